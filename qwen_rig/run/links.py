"""The connections of a run: which are being made again, and why the last try failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from . import adapter
from .adapter import Host


class Links:
    """The connections of one run. `refused`: host → why it could not be connected again, at the last try."""

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}
        self._trying: set[str] = set()
        self._after: list[Callable[[Host], None]] = []

    def after_reconnect(self, act: Callable[[Host], None]) -> None:
        """Call this for each host whose connection was made again."""
        self._after.append(act)

    def expected(self, host: str, what: str) -> bool:
        """Whether a failure to connect is no end, as somebody is trying again; then it is kept in `refused`."""
        if host in self._trying:
            self.refused[host] = what
        return host in self._trying

    def reconnected(self, host: Host) -> bool:
        """Connect anew; whether it worked. Where it didn't, no card is written: who waits says how it ends."""
        with self._attempt(host.name):
            good = adapter.connect_again(host)
        if good:
            for act in self._after:
                act(host)
        return good

    @contextmanager
    def _attempt(self, host: str) -> Iterator[None]:
        self.refused.pop(host, None)
        self._trying.add(host)
        try:
            yield
        finally:
            self._trying.discard(host)
