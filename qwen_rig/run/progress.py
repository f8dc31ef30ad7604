"""Live progress on a terminal: a line a host, with the step that runs now. Elsewhere finished steps are plain lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

_board: Progress | None = None
_tasks: dict[str, TaskID] = {}


@contextmanager
def shown(console: Console, steps: Mapping[str, int]) -> Iterator[None]:
    """Show the board while the block runs; `steps`: how many changes each host has before it. No terminal: no board."""
    global _board
    if not sys.stderr.isatty() or not steps:
        yield
        return
    _board = board = Progress(SpinnerColumn(), TextColumn("[bold]{task.fields[host]}"), BarColumn(bar_width=20),
                      MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"), console=console)
    with board:
        for host, count in steps.items():
            _tasks[host] = board.add_task("waits", total=count, host=host)
        try:
            yield
        finally:
            _tasks.clear()
            _board = None


def at(host: str, what: str) -> bool:
    """What a host is doing now; False where there is no board to show it on."""
    if _board is None or host not in _tasks:
        return False
    _board.update(_tasks[host], description=what)
    return True


def done(host: str) -> None:
    """A host's step is done."""
    if _board is not None and host in _tasks:
        _board.update(_tasks[host], advance=1, description="waits for the others")
