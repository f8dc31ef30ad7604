"""`rig runs`: the training runs that were begun from here: listed, attached to, read, stopped, resumed."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from qwen_rig import exits, homes, say
from qwen_rig.cli import _output
from qwen_rig.errors import RigError
from qwen_rig.finetune import options, record, words
from qwen_rig.finetune.record import Record

SUMMARY = "training runs: list, look, attach, logs, stop, resume"
EXAMPLES = ("qwen-rig runs list", "qwen-rig runs list --json", "qwen-rig runs look", "qwen-rig runs attach support",
            "qwen-rig runs logs support", "qwen-rig runs stop support", "qwen-rig runs resume support")
ACTS = {
    "list": "what is on record here, without asking a host (the default)",
    "look": "ask the hosts of all runs that haven't finished",
    "attach": "see a run that is at work through to its end",
    "logs": "the last lines that it printed",
    "stop": "have it write a checkpoint and end",
    "resume": "go on from the last whole checkpoint: after a stop, a reboot, a spot machine's end",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    acts = parser.add_subparsers(dest="act", metavar="ACT", parser_class=type(parser))
    for act, told in ACTS.items():
        own = acts.add_parser(act, help=told, description=told)
        if act not in ("list", "look"):
            own.add_argument("name", metavar="NAME", help="a run's name")
        general(own)
        if act == "resume":
            options.declare(own, options.AGAIN)


def general(parser: argparse.ArgumentParser) -> None:
    """The option of each verb that works on runs by their names."""
    parser.add_argument("-i", "--inventory", metavar="FILE",
                        help="another inventory than the one that the run was begun with")


def run(options_: argparse.Namespace) -> int:
    """0: done · 1: no such run, bad input, or it failed · 3: unreachable."""
    act = options_.act or "list"
    if act == "list":
        _there(getattr(options_, "inventory", None))
        _told(record.every(), options_.json)
        return exits.OK
    if act == "look":
        return _look(options_)
    kept, more = record.load(record.checked(options_.name)), options.given(options_)
    from qwen_rig.run import finetune

    if act == "logs":
        printed: list[str] = []
        status = on_host(kept, options_, lambda host: printed.append(finetune.log(host, kept)))
        if options_.json:
            say.as_json({"form": words.FORM, "run": kept.name, "lines": "\n".join(printed).splitlines()})
        else:
            say.out("\n".join(printed))
        return status
    if kept.crew:
        status = _on_all(kept, options_, act, more)
    else:
        acts: dict[str, Callable[[Any], Record]] = {
            "attach": lambda host: finetune.attach(host, kept), "stop": lambda host: finetune.stop(host, kept),
            "resume": lambda host: finetune.resume(host, kept, more)}
        status = on_host(kept, options_, acts[act])
    if options_.json:
        say.as_json(words.shown(record.load(kept.name)))
    return status


def _there(inventory: str | None) -> None:
    """An inventory that is named where none is read must be there all the same. Raises RigError."""
    if inventory is not None and not inventory.startswith("@") and not homes.expanded(inventory, "-i").is_file():
        raise RigError("no such inventory", inventory, "leave -i out: `runs list` asks no host")


def _on_all(kept: Record, options_: argparse.Namespace, act: str, more: dict[str, Any]) -> int:
    """Do it on all hosts of a run over several; the exit status."""
    from qwen_rig.cli import _session as session
    from qwen_rig.run import several

    inventory = kept.inventory if options_.inventory is None else options_.inventory
    with session.opened(inventory, kept.hosts, kept.knobs, _output.Output.of(options_), table=False) as opened:
        if act == "resume":
            several.resume(opened, kept, more)
        else:
            several.attach(opened, kept, stop=act == "stop")
        return opened.status()


def on_host(kept: Record, options_: argparse.Namespace, do: Callable[[Any], Any]) -> int:
    """Do it on a run's host, the first of several; the exit status."""
    from qwen_rig.cli import _session as session

    inventory = kept.inventory if options_.inventory is None else options_.inventory
    with session.opened(inventory, [kept.host], kept.knobs, _output.Output.of(options_), table=False) as opened:
        opened.work(do)
        return opened.status()


def _look(options_: argparse.Namespace) -> int:
    """Ask each run's host how it stands; those of one inventory side by side."""
    from qwen_rig.cli import _session as session
    from qwen_rig.run import finetune

    left = [kept for kept in record.every() if kept.state in record.OPEN]
    places = {(kept.inventory if options_.inventory is None else options_.inventory, kept.knobs) for kept in left}
    if len(places) > 1:
        raise RigError("these runs are of several inventories", "", "name one: -i FILE; or runs attach NAME")
    status = exits.OK
    for inventory, knobs in places:
        hosts = list(dict.fromkeys(kept.host for kept in left))
        with session.opened(inventory, hosts, knobs, _output.Output.of(options_), table=False) as opened:
            opened.work(lambda host: finetune.stands(host, [kept for kept in left if kept.host == host.name]))
            status = opened.status()
    _told(record.every(), options_.json)
    return status


def _told(found: list[Record], as_json: bool) -> None:
    if as_json:
        say.as_json([words.shown(each) for each in found])
        return
    if not found:
        say.err("No runs yet. Start one: qwen-rig train HOST --dataset_name FILE (with --model_name_or_path, where the "
                "host's model= chose none)")
        return
    from rich.table import Table

    from qwen_rig.render import out

    table = Table("run", "host", "state", "how far", box=None, pad_edge=False)
    for each in found:
        table.add_row(*words.row(each))
    out().print(table)
