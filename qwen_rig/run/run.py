"""One run of the tool over some hosts: all state of a run is on this object, none on modules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

from qwen_rig.plan import Context, Plan

from . import adapter, ending
from .adapter import Host, State
from .interrupt import Ender, Left
from .links import Links
from .lookups import Lookups
from .memory import Memory
from .network import Network
from .progress import Board
from .report import Report
from .screens import Screens, of_pyinfra
from .tunnel import Tunnels

T = TypeVar("T")


class Run:
    """A run: what is known of its hosts (memory), what is told (report, board), how they are reached (links, tunnels),
    where their files come from (network, lookups). `make_plan`: the planner of deploy/; `saved`: a saved plan that
    every host's own must match. `past`: the steps that each host is through with.
    """

    def __init__(self, make_plan: Callable[[Context], Plan], tables: bool = True,
                 saved: dict[str, Any] | None = None, screens: Screens | None = None) -> None:
        self.saved = saved
        self.links, self.tunnels, self.board = Links(), Tunnels(), Board()
        self.links.after_reconnect(self.tunnels.again)  # what is at work there may be fetching from a bundle
        self.memory = Memory(self.links, make_plan)
        self.report = Report(self.memory, self.links, self.board, screens or of_pyinfra(), tables)
        self.network, self.lookups = Network(self.tunnels), Lookups()
        self.ender = Ender()
        self.past: dict[str, set[str]] = defaultdict(set)
        self._parts: dict[Callable[[], Any], Any] = {}

    @classmethod
    def of(cls, host: Host) -> Run:
        """The run that a host takes part in."""
        run = adapter.attached(host.state)
        assert isinstance(run, cls)
        return run

    def part(self, kind: Callable[[], T]) -> T:
        """What a step keeps over all hosts of this run: `kind()`, made at the first asking."""
        if kind not in self._parts:
            self._parts[kind] = kind()
        made: T = self._parts[kind]
        return made

    def left(self) -> list[Left]:
        """How each host stands now (interrupt.Reported)."""
        state = adapter.current_state()
        return ending.left(state, self.report) if state is not None else []

    def cut_short(self) -> None:
        """The run is ended in the middle (interrupt.Reported)."""
        if (state := adapter.current_state()) is not None:
            ending.cut_short(state, self.report)

    def end(self, state: State | None) -> None:
        """The last words, whichever way pyinfra left; hosts are served nothing from here on."""
        self.tunnels.close()
        ending.end(state, self.report, self.memory)
