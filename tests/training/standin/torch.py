"""A stand-in for torch (README.md here): no GPU."""

float32, float16, bfloat16 = "float32", "float16", "bfloat16"


class cuda:
    class OutOfMemoryError(RuntimeError):
        pass

    @staticmethod
    def is_available():
        return False


class distributed:
    @staticmethod
    def is_available():
        return False


class serialization:
    @staticmethod
    def add_safe_globals(types):
        pass


class no_grad:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def manual_seed(seed):
    pass
