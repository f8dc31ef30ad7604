"""A stand-in for numpy (README.md here): the names that train_qwen.py allows in a checkpoint."""


class _core:
    class multiarray:
        _reconstruct = print


ndarray = dtype = type
uint32 = "uint32"
