"""One run of deploy/5090.py on pyinfra's API, in this process: what `pyinfra INVENTORY deploy/5090.py` does, with
exit statuses of its own, without pyinfra's prompts and its words."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from qwen_rig.run import process  # isort: skip  it patches the standard library for gevent, so it stands before the rest

from qwen_rig import exits, homes, knobs, project, say
from qwen_rig.cli._output import Output
from qwen_rig.deploy import watched
from qwen_rig.deploy.planning import make_plan
from qwen_rig.entry import join
from qwen_rig.errors import RigError
from qwen_rig.plan import Context, Plan
from qwen_rig.plan.document import of_all
from qwen_rig.run import adapter, ending, preview
from qwen_rig.run.adapter import Host, State
from qwen_rig.run.command_text import with_inventory
from qwen_rig.run.report import now
from qwen_rig.run.run import Run
from qwen_rig.run.screens import Screens

T = TypeVar("T")


class Session:
    """One run: prepare() probes, plans and shows; execute() changes; end() tells what has come of it, and is what the
    process ends with."""

    def __init__(self, state: State, run: Run, root: Path, asked: dict[str, Any], output: Output) -> None:
        self.state, self.run, self.root, self.asked, self.output = state, run, root, asked, output
        self.report, self._closed = run.report, False

    def prepare(self, entry: str = "5090.py") -> None:
        """Load a file of the project's deploy/ for every connected host: each is probed, planned and shown."""
        if self.state.active_hosts:
            process.prepare(self.state, str(self.root / "deploy" / entry))
            self.report.show_commands(list(self.state.inventory))

    def plans(self) -> list[Plan]:
        """The plans of the hosts that are left, in the inventory's order."""
        return [self.report.plans[host.name] for host in self.state.inventory
                if host.name in self.report.plans and host.name not in self.report.cards]

    def document(self) -> dict[str, Any]:
        """All plans, and the failures of hosts that have none or are refused, as docs/plan.schema.json has them."""
        names = [host.name for host in self.state.inventory]
        failures = [{"host": name, "what": card.what, "remedy": card.remedy, "status": card.status}
                    for name, card in self.report.cards.items()]
        return of_all([self.report.plans[name] for name in names if name in self.report.plans], failures, now(),
                      self.asked, self.report.states, self.report.commands)

    def execute(self, ahead: bool = False) -> None:
        """Run what prepare() declared, on the hosts that are left. `ahead`: no host waits for another at a step's end,
        but where a step itself waits for what another host makes."""
        if not self.state.active_hosts:
            return
        changes = {plan.host: len(plan.changes) for plan in self.plans() if plan.changes}
        with self.run.board.shown(self.report.console, {} if self.output.quiet else changes):
            if ahead and process.side_by_side(self.state):
                self.report.ahead = True
                process.execute_ahead(self.state, lambda host, act: self.report.contained(host.name, act),
                                      lambda host: self.report.host_ended(self.state, host))
            else:
                process.execute(self.state)
        self.report.failures(self.state)

    def look(self, make: Callable[[Context], T], diagnose: bool = False) -> list[T]:
        """What `make` makes of all that is known and wanted of each connected host, probed side by side; a card, and
        nothing, where that fails.

        `diagnose`: as Report.contained has it.
        """

        return self.look_at(lambda host: make(self.run.memory.context(host)), diagnose)

    def look_at(self, make: Callable[[Host], T], diagnose: bool = False) -> list[T]:
        """The same of the host itself, where more is asked than the probe brings."""

        def see(host: Host) -> T | None:
            with adapter.on(self.state, host):
                return preview.probed(host, lambda: make(host), False, diagnose)

        return [made for made in process.look(self.state, see) if made is not None]

    def work(self, do: Callable[[Host], T]) -> list[T]:
        """What `do` makes of each connected host, side by side, with the board of long work; a card, and nothing, where
        that raises."""

        def each(host: Host) -> T | None:
            with adapter.on(self.state, host):
                return self.report.contained(host.name, lambda: do(host))

        hosts = dict.fromkeys((host.name for host in adapter.active(self.state)), 1)
        with self.run.board.shown(self.report.console, hosts):
            return [made for made in process.work(self.state, each) if made is not None]

    def afterwards(self) -> list[Plan]:
        """What a plan of each host that is left says after the run, shown as well; drift is left out: it was us."""
        contexts = [self.run.memory.remembered(host) for host in self.state.inventory.get_active_hosts()]
        made = [self.report.contained(ctx.host, partial(make_plan, replace(ctx, applied=None)))
                for ctx in contexts if ctx]
        plans = [plan for plan in made if plan]
        self.report.show(plans, [], verbose=False)
        return plans

    def end(self, verb: str) -> int:
        """The last words, or the document of what has come of each host. Returns the exit status."""
        self.close()
        if self.output.json:
            say.as_json(ending.document(self.state, self.report, self.run.memory, verb, self.asked, self.status()))
        return self.status()

    def close(self) -> None:
        """The last words; once."""
        if not self._closed:
            self._closed = True
            self.run.end(adapter.current_state())

    def status(self, pending: bool = False) -> int:
        """The gravest of all hosts' outcomes (qwen_rig/exits.py); `pending`: planned changes count as such."""
        found = [card.status for card in self.report.cards.values()]
        if pending and any(p.changes for name, p in self.report.plans.items() if name not in self.report.cards):
            found.append(exits.CHANGES)
        return exits.worst(found)


@contextmanager
def opened(inventory: str | None, limit: Sequence[str], data: Sequence[str], output: Output,
           screens: Screens | None = None, table: bool = True, saved: dict[str, Any] | None = None,
           ) -> Iterator[Session]:
    """A session with these hosts, connected. Raises RigError for bad input before any host is dialled.

    `inventory`: a file or connector; None: the project's inventories/lab.py. `screens`: None: the run's plans are no
    result. `table`: show the plans. `saved`: a saved plan, which each host's own must still match.
    """
    override = dict(map(knobs.pair, data))
    homes.check()
    root = project.find()
    given, inventory = inventory, str(root / "inventories" / "lab.py") if inventory is None else inventory
    asked = {"inventory": str(Path(inventory).absolute()), "limit": list(limit), "data": list(data)}
    state = process.state(str(root), output.verbose > 0)
    run = join(state, Run(make_plan, watched, table, saved, screens or output.screens()))
    process.ready(state, _file(inventory, root), override, limit)
    run.inventory = given
    try:
        process.connect(state)
        session = Session(state, run, root, asked, output)
        yield session
        session.close()
    except RigError as error:
        hosts = {host.name for host in state.inventory}
        raise RigError(error.what, error.where, with_inventory(error.remedy, given, hosts)) from None
    finally:
        process.disconnect(state)


def _file(inventory: str, root: Path) -> str:
    """The inventory as pyinfra reads it; a YAML of hosts goes through inventories/lab.py, one of sources through
    inventories/cloud.py."""
    path = homes.expanded(inventory, "-i")
    if inventory.startswith("@"):  # a connector, as @local
        return inventory
    if not os.path.isfile(path):
        raise RigError("no such inventory", inventory, "name inventories/lab.py, another .py, or a file like lab.yml")
    if path.suffix in (".yml", ".yaml"):
        text = path.read_text(encoding="utf-8", errors="replace")
        kind = "cloud" if re.search(r"^sources\s*:", text, re.MULTILINE) else "lab"
        os.environ[f"{kind.upper()}_HOSTS"] = str(path)
        return str(root / "inventories" / f"{kind}.py")
    return str(path)
