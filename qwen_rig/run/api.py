"""One run of deploy/5090.py on pyinfra's API, in this process: what `pyinfra INVENTORY deploy/5090.py` does, with
exit statuses of its own, without pyinfra's prompts and its words."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pyinfra_cli  # noqa: F401  it patches the standard library for gevent, so it stands before the rest of pyinfra

import pyinfra  # isort: skip
from pyinfra.api import Config, State
from pyinfra.api.connect import connect_all, disconnect_all
from pyinfra.api.exceptions import NoGroupError, PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.api.operations import run_ops
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_config, ctx_host, ctx_inventory, ctx_state
from pyinfra_cli.inventory import make_inventory
from pyinfra_cli.util import load_deploy_file, parse_cli_arg

from qwen_rig import exits, knobs, project
from qwen_rig.errors import RigError
from qwen_rig.plan import Context, Plan, make_plan
from qwen_rig.plan.document import of_all
from qwen_rig.run import preview
from qwen_rig.run import progress as _board
from qwen_rig.run import report as _report
from qwen_rig.run import session as _session


class Door:
    """One run: prepare() probes, plans and shows; execute() changes; status() is what the process ends with."""

    def __init__(self, state: State, root: Path, asked: dict[str, Any]) -> None:
        self.state, self.root, self.asked = state, root, asked

    def prepare(self, entry: str = "5090.py") -> None:
        """Load a file of the project's deploy/ for every connected host: each is probed and planned, its plan shown."""
        if not self.state.active_hosts:
            return
        self.state.set_stage(StateStage.Prepare)
        try:
            load_deploy_file(self.state, str(self.root / "deploy" / entry))
        except PyinfraError:  # no host is left; each has its card
            if self.state.active_hosts:
                raise

        _report.show_commands(list(self.state.inventory))

    def plans(self) -> list[Plan]:
        """The plans of the hosts that are left, in the inventory's order."""
        return [_report.plans[host.name] for host in self.state.inventory
                if host.name in _report.plans and host.name not in _report.cards]

    def document(self) -> dict[str, Any]:
        """All plans, and the failures of hosts that have none or are refused, as docs/plan.schema.json has them."""
        names = [host.name for host in self.state.inventory]
        failures = [{"host": name, "what": card.what, "remedy": card.remedy, "status": card.status}
                    for name, card in _report.cards.items()]
        return of_all([_report.plans[name] for name in names if name in _report.plans], failures, _report.now(),
                      self.asked, _report.states, _report.commands)

    def execute(self) -> None:
        """Run what prepare() declared, on the hosts that are left."""
        if not self.state.active_hosts:
            return
        self.state.set_stage(StateStage.Execute)
        with _board.shown(_report.console, {plan.host: len(plan.changes) for plan in self.plans() if plan.changes}):
            try:
                run_ops(self.state)
            except PyinfraError:  # the last host has failed, and pyinfra leaves without a word to its callbacks
                if self.state.active_hosts:
                    raise
        _report.failures(self.state)

    def look(self) -> list[Context]:
        """What is known and wanted of each connected host, probed side by side; a card where that fails."""
        self.state.set_stage(StateStage.Prepare)

        def see(host: Host) -> Context | None:
            with ctx_state.use(self.state), ctx_host.use(host):
                return preview.probed(lambda: _session.context(host))

        found = self.state.pool.map(see, list(self.state.inventory.get_active_hosts()))
        return [ctx for ctx in found if ctx is not None]

    def now(self) -> list[Plan]:
        """What a plan of each host that is left says after the run, shown as well; drift is left out: it was us."""
        contexts = [_session.remembered(host) for host in self.state.inventory.get_active_hosts()]
        plans = [make_plan(replace(ctx, applied=None)) for ctx in contexts if ctx]
        _report.show(plans, [], verbose=False)
        return plans

    def status(self, pending: bool = False) -> int:
        """The gravest of all hosts' outcomes (qwen_rig/exits.py); `pending`: planned changes count as such."""
        found = [card.status for card in _report.cards.values()]
        if pending and any(p.changes for name, p in _report.plans.items() if name not in _report.cards):
            found.append(exits.CHANGES)
        return exits.worst(found)


@contextmanager
def opened(inventory: str | None, limit: Sequence[str], data: Sequence[str], verbose: int = 0, table: bool = True,
           saved: dict[str, Any] | None = None) -> Iterator[Door]:
    """A door to these hosts, connected. Raises RigError for bad input before any host is dialled.

    `inventory`: a file or connector; None: the project's inventories/lab.py.
    `table`: show the plans. `saved`: a saved plan, which each host's own must still match.
    """
    override = dict(map(_pair, data))
    root = project.find()
    inventory = inventory or str(root / "inventories" / "lab.py")
    pyinfra.is_cli = True  # deploy/5090.py is written for pyinfra's command line: order by line, as there
    logging.getLogger("pyinfra").addHandler(logging.NullHandler())  # its words; ours are in _report
    logging.getLogger("pyinfra").propagate = False
    if str(root) not in sys.path:
        sys.path.append(str(root))
    state = State(check_for_changes=False)  # the plan tells what changes; pyinfra needs not run it all to find out
    state.cwd, state.print_noop_info = str(root), verbose > 0
    ctx_state.set(state)
    config = Config()
    ctx_config.set(config)
    _report.hook(state)
    _report.tables = table
    preview.saved = saved
    made = make_inventory(_file(inventory, root), cwd=str(root), override_data=override)
    ctx_inventory.set(made)
    state.init(made, config, initial_limit=_limited(made, limit))
    try:
        state.set_stage(StateStage.Connect)
        try:
            connect_all(state)
        except PyinfraError:  # nobody could be reached; each has its card
            if state.active_hosts:
                raise
        asked = {"inventory": str(Path(inventory).absolute()), "limit": list(limit), "data": list(data)}
        yield Door(state, root, asked)
        _report.end()
    finally:
        disconnect_all(state)


def _pair(text: str) -> tuple[str, Any]:
    """`KNOB=VALUE` checked, its value in its own type."""
    name, equals, value = text.partition("=")
    if not equals:
        raise RigError(f"{text!r} is no KNOB=VALUE", "--data", "see group_data/all.py for the knobs")
    if name not in knobs.NAMES:
        raise knobs.unknown(name, "--data")
    read = None if value.lower() == "none" else parse_cli_arg(value)
    return name, knobs.check(name, read)


def _file(inventory: str, root: Path) -> str:
    """The inventory as pyinfra reads it; a YAML of hosts goes through inventories/lab.py, one of sources through
    inventories/cloud.py."""
    path = Path(inventory).expanduser()
    if inventory.startswith("@"):  # a connector, as @local
        return inventory
    if not path.is_file():
        raise RigError("no such inventory", inventory, "name inventories/lab.py, another .py, or a file like lab.yml")
    if path.suffix in (".yml", ".yaml"):
        text = path.read_text(encoding="utf-8", errors="replace")
        kind = "cloud" if re.search(r"^sources\s*:", text, re.MULTILINE) else "lab"
        os.environ[f"{kind.upper()}_HOSTS"] = str(path)
        return str(root / "inventories" / f"{kind}.py")
    return str(path)


def _limited(inventory: Inventory, limit: Sequence[str]) -> list[Any] | None:
    """The hosts that --limit means; None without one."""
    if not limit:
        return None
    chosen = []
    for pattern in limit:
        try:
            hosts = list(inventory.get_group(pattern))
        except NoGroupError:
            hosts = [host for host in inventory if fnmatch(host.name, pattern)]
        if not hosts:
            names = ", ".join(host.name for host in inventory)
            raise RigError(f"no host or group {pattern!r}", "--limit", f"there are: {names}")
        chosen += [host for host in hosts if host not in chosen]
    return chosen
