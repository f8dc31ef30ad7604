"""Live progress on a terminal: a line a host, with the step that runs now. Elsewhere finished steps are plain lines,
and a line tells what runs where nothing was told for a while."""

from __future__ import annotations

import sys
import threading  # a greenlet, where pyinfra has patched the standard library
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

SAY_EVERY_S = 10.0
NAMED = 3  # hosts that a plain line names


class Board:
    """The live table of one run; on no terminal, the lines that stand for it."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._at: dict[str, tuple[str, float]] = {}  # host → what it does, since when
        self._told = 0.0

    @contextmanager
    def shown(self, console: Console, steps: Mapping[str, int]) -> Iterator[None]:
        """Show the table while the block runs; `steps`: how many changes each host has before it. No terminal: a line
        every SAY_EVERY_S in which nothing else was told."""
        if not steps:
            yield
            return
        with self.drawn(console, steps) if sys.stderr.isatty() else self._lines(console):
            yield

    @contextmanager
    def _lines(self, console: Console) -> Iterator[None]:
        ended = threading.Event()

        def tell() -> None:
            while not ended.wait(SAY_EVERY_S / 4):
                if self._at and time.monotonic() - self._told >= SAY_EVERY_S:
                    self._told = time.monotonic()
                    console.print(f"    … {self.line(self._told)}")

        threading.Thread(target=tell, daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    def line(self, now: float) -> str:
        """`lab-01 Conda (12 s) · lab-02 NVIDIA driver (40 s)`: what runs."""
        rows = [f"{host} {what} ({now - since:.0f} s)" for host, (what, since) in sorted(self._at.items())]
        more = [f"{len(rows) - NAMED} more"] if len(rows) > NAMED else []
        return " · ".join(rows[:NAMED] + more)

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
        self._told = time.monotonic()
        self._at[host] = what, self._at.get(host, (what, self._told))[1]
        if self._progress is None or host not in self._tasks:
            return False
        self._progress.update(self._tasks[host], description=what)
        return True

    def of(self, host: str, done: int, total: int) -> None:
        """How much of a host's work is done, where it isn't counted in steps of a plan."""
        if self._progress is not None and host in self._tasks:
            self._progress.update(self._tasks[host], completed=done, total=total)

    def rests(self, host: str) -> None:
        """A host is at no step, as after one that failed."""
        self._at.pop(host, None)

    def done(self, host: str, waits: bool = True) -> None:
        """A host's step is done. `waits`: it waits for the others before the next."""
        self._told = time.monotonic()
        self._at.pop(host, None)
        if self._progress is not None and host in self._tasks:
            self._progress.update(self._tasks[host], advance=1, description="waits for the others" if waits else "")
