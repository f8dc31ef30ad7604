"""Live progress on a terminal: a line a host, with the step that runs now. Elsewhere finished steps are plain lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class Board:
    """The live table of one run."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    @contextmanager
    def shown(self, console: Console, steps: Mapping[str, int]) -> Iterator[None]:
        """Show the table while the block runs; `steps`: how many changes each host has before it. No terminal: none."""
        if not sys.stderr.isatty() or not steps:
            yield
            return
        with self.drawn(console, steps):
            yield

    @contextmanager
    def drawn(self, console: Console, steps: Mapping[str, int]) -> Iterator[None]:
        """The same, terminal or not."""
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.fields[host]}", style="bold", markup=False), BarColumn(bar_width=20),
            MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False), console=console)
        with self._progress:
            for host, count in steps.items():
                self._tasks[host] = self._progress.add_task("waits", total=count, host=host)
            try:
                yield
            finally:
                self._tasks.clear()
                self._progress = None

    def at(self, host: str, what: str) -> bool:
        """What a host is doing now; False where there is no table to show it on."""
        if self._progress is None or host not in self._tasks:
            return False
        self._progress.update(self._tasks[host], description=what)
        return True

    def of(self, host: str, done: int, total: int) -> None:
        """How much of a host's work is done, where it isn't counted in steps of a plan."""
        if self._progress is not None and host in self._tasks:
            self._progress.update(self._tasks[host], completed=done, total=total)

    def done(self, host: str) -> None:
        """A host's step is done."""
        if self._progress is not None and host in self._tasks:
            self._progress.update(self._tasks[host], advance=1, description="waits for the others")
