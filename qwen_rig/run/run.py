"""One run of the tool over some hosts: all state of a run is on this object, none on modules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from . import adapter
from .adapter import Host, State
from .beforehand import Probes
from .interrupt import Ender, Left
from .links import Links

if TYPE_CHECKING:
    from qwen_rig.plan import Context, Plan

    from .lookups import Lookups
    from .memory import Memory
    from .network import Network
    from .progress import Board
    from .report import Report
    from .screens import Screens
    from .tunnel import Tunnels

T = TypeVar("T")


class Run:
    """A run: what is known of its hosts (memory), what is told (report, board), how they are reached (links, tunnels),
    where their files come from (network, lookups). Parts that only a host's answer needs are loaded while hosts are at
    work on it.

    `make_plan`: the planner of deploy/; `watched`: gives the files whose state it must know; `saved`: a saved plan that
    every host's own must match; `past`: the steps that each host is through with; `inventory`: what -i named.
    """

    def __init__(self, make_plan: Callable[[Context], Plan], watched: Callable[[], Iterable[str]], tables: bool = True,
                 saved: dict[str, Any] | None = None, screens: Screens | None = None) -> None:
        self.saved = saved
        self.links, self.probes, self.ender = Links(), Probes(watched), Ender()
        self.links.after_reconnect(lambda host: self.tunnels.again(host))  # what is at work there may be fetching
        self.past: dict[str, set[str]] = defaultdict(set)
        self.inventory: str | None = None
        self._make_plan, self._tables, self._screens = make_plan, tables, screens
        self._parts: dict[Callable[[], Any], Any] = {}

    @cached_property
    def memory(self) -> Memory:
        """What is known of the hosts."""
        from .memory import Memory
        return Memory(self.links, self.probes, self._make_plan)

    @cached_property
    def board(self) -> Board:
        """The live table."""
        from .progress import Board
        return Board()

    @cached_property
    def report(self) -> Report:
        """What is told."""
        from .report import Report
        from .screens import of_pyinfra
        return Report(self.memory, self.links, self.board, self._screens or of_pyinfra(), self._tables, self._spoilt,
                      self.inventory)

    def _spoilt(self, name: str) -> str:
        return self.tunnels.wrong(name) if "tunnels" in self.__dict__ else ""  # most runs serve no bundle

    @cached_property
    def tunnels(self) -> Tunnels:
        """The forwards by which hosts reach a bundle."""
        from .tunnel import Tunnels
        return Tunnels()

    @cached_property
    def network(self) -> Network:
        """Where each host's files come from."""
        from .network import Network
        return Network(lambda: self.tunnels)

    @cached_property
    def lookups(self) -> Lookups:
        """What the controller looked up itself."""
        from .lookups import Lookups
        return Lookups()

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
        from . import ending
        state = adapter.current_state()
        return ending.left(state, self.report) if state is not None else []

    def cut_short(self) -> None:
        """The run is ended in the middle (interrupt.Reported)."""
        from . import ending
        if (state := adapter.current_state()) is not None:
            ending.cut_short(state, self.report)

    def end(self, state: State | None) -> None:
        """The last words, whichever way pyinfra left; hosts are served nothing from here on."""
        from . import ending
        self.tunnels.close()
        ending.end(state, self.report, self.memory)
