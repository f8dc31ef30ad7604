"""One exception for everything a user can put right; its text is one line: what, where, what to do."""

from qwen_rig import hosttext


class RigError(Exception):
    """Bad input or a wish that cannot be met, found before any host is touched."""

    def __init__(self, what: str, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = map(hosttext.line, (what, where, remedy))  # some quote a stranger
        super().__init__(" · ".join(part for part in (self.what, self.where, self.remedy) if part))
