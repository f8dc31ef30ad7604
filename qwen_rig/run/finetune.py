"""Training runs on a host: begun as a job, followed, asked about, stopped. What is decided is in qwen_rig/finetune/."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

from qwen_rig.certificate import store
from qwen_rig.errors import RigError
from qwen_rig.finetune import checks, curve, failure, options, record, told, words
from qwen_rig.finetune.data import Data
from qwen_rig.finetune.record import Record
from qwen_rig.finetune.told import Told
from qwen_rig.frozen import frozen
from qwen_rig.plan import Action, Step
from qwen_rig.plan.context import Context
from qwen_rig.plan.env import records
from qwen_rig.program import load
from qwen_rig.tracebacks import folded

from . import adapter, memory, network, transfer
from .adapter import Host
from .converge import run_script, script
from .job import Outcome, attend
from .job_protocol import Answer, Job
from .place import place
from .programs import NO_WAY_OUT, env_path
from .report import now
from .run import Run

TRAIN = load("shell/place.sh", "shell/network.sh", "host/train.sh")
ASK = load("host/train_ask.sh")
BUSY, BUSY_LOOK = load("host/busy.sh"), load("host/busy_look.sh")
THERE = load("host/data_there.sh")
PROGRAMS = ("train_run.py", "train_follow.py", "train_files.py", "train_qwen.py")
LONGEST_S = 30 * 24 * 3600  # a run that takes longer than a month is cut off there, and resumed
WAIT_S = 3  # one question waits so long: what the board shows is no older
SAY_EVERY_S = 60  # where there is no board


def program(name: str) -> str:
    """The text of one of host/'s programs."""
    return (files("qwen_rig.host") / name).read_text(encoding="utf-8")


def job(ctx: Context, kept: Record) -> Job:
    """The job of a run; the same for each of its beginnings, so that it is never at work twice."""
    asked = {"id": kept.id, "name": kept.name, "env": kept.env["path"], "launch": kept.env.get("launch", "one"),
             "busy": kept.env.get("busy", ""),
             "options": [*options.words(kept.options), f"--dataset_name={kept.data['there']}"]}
    return job_of(ctx, kept, {"run.json": json.dumps(asked)})


def job_of(ctx: Context, kept: Record, more: Mapping[str, str]) -> Job:
    """The job of one host's part in a run: the programs, and with them `more` texts by their names."""
    texts = {each: program(each) for each in PROGRAMS} | dict(more)
    call = TRAIN(place=place(ctx), **{**NO_WAY_OUT, "proxy": network.proxy(ctx)}, env=kept.env["path"], run=kept.folder,
                 id=kept.id)
    return Job(f"train-{kept.name}", f"training {kept.name}", call, LONGEST_S, json.dumps(texts))


@frozen
class Wanted:
    """A run that is asked for, as the command line has it."""

    name: str
    inventory: str
    knobs: tuple[str, ...]
    given: Mapping[str, Any]
    data: Data


def begin(host: Host, wanted: Wanted) -> Record:
    """Check, send the data, put the run on record, start it and see it through."""
    run = Run.of(host)
    ctx = run.memory.context(host)
    settings = checks.settings(ctx, wanted.given)
    run.report.caveats[host.name] += checks.refuse(ctx, settings, wanted.data, others(host))
    name = wanted.name or record.free(str(settings["model_name_or_path"]), wanted.data.name)
    root, made = checks.root(ctx), records(ctx).env
    kept = Record(
        name, record.new_id(), host.name, wanted.inventory, f"{root}/runs/{name}", now(), wanted.knobs,
        memory.identity(host).digest, {
            "path": env_path(ctx), "stack": checks.stack(ctx).name, "lock_sha256": made.lock_sha256 if made else None,
            "launch": "accelerate" if checks.each_card(ctx, settings) else "one", "busy": busy_file(host)},
        {key: value for key, value in wanted.given.items() if key != "dataset_name"},
        settings, {"name": wanted.data.name, "sha256": wanted.data.sha256, "bytes": wanted.data.bytes,
                   "samples": wanted.data.samples, "there": sent(host, root, wanted.data)},
        settings["seed"], str(settings["model_name_or_path"]), certificates=certificates(host))
    return follow(host, record.keep(kept, new=True), job(ctx, kept))


def resume(host: Host, kept: Record, more: Mapping[str, Any]) -> Record:
    """Go on from the last whole checkpoint, with `more` of its settings changed. Raises RigError where the run is at
    work, or has finished."""
    kept = take_in(kept, look(host, kept))
    if kept.state == "running":
        raise RigError(f"the run {kept.name} has not ended", "", f"qwen-rig runs attach {kept.name}")
    if kept.state == "finished":
        raise RigError(f"the run {kept.name} has finished, {words.step(kept.last)}", "", f"qwen-rig fetch {kept.name}")
    ctx = Run.of(host).memory.context(host)
    options_ = {**kept.options, **more}
    settings = checks.settings(ctx, options_)
    checks.refuse(ctx, settings, Data(str(kept.data["name"])), others(host))
    env = {**kept.env, "path": env_path(ctx), "busy": busy_file(host)}
    kept = record.changed(kept, options=options_, settings=settings, env=env, result={})
    return follow(host, kept, job(ctx, kept))


def attach(host: Host, kept: Record) -> Record:
    """See a run through that is at work; say how it stands where it isn't."""
    kept = take_in(kept, found := look(host, kept))
    if kept.state == "running" and found:
        return follow(host, kept, known(kept), found.job)
    stands_at(host, kept)
    return kept


def stop(host: Host, kept: Record) -> Record:
    """Have it write a checkpoint and end."""
    kept = take_in(kept, found := look(host, kept))
    if kept.state != "running" or found is None:
        stands_at(host, kept)
        return kept
    ask(host, kept.env["path"], kept.folder, "stop", kept.folder)
    Run.of(host).report.progress(host.name, f"{kept.name} ends its step, writes a checkpoint, and stops")
    return follow(host, kept, known(kept), found.job)


def known(kept: Record) -> Job:
    """The job of a run that isn't begun from here: its name alone counts."""
    return Job(f"train-{kept.name}", f"training {kept.name}", TRAIN(), LONGEST_S)


def stands_at(host: Host, kept: Record) -> None:
    """A row of the report: how a run stands that isn't at work."""
    after = {"finished": f"qwen-rig fetch {kept.name}", "lost": "that host knows no such run: was its disk replaced?"}
    report = Run.of(host).report
    report.outcomes[host.name] = (f"· {kept.state}", f"{kept.name}: {words.line(kept.last)}; next: "
                                  f"{after.get(kept.state, f'qwen-rig runs resume {kept.name}')}")


def sent(host: Host, root: str, data: Data) -> str:
    """Where the data are on the host: sent once, by their sha256."""
    if data.file is None or data.there is None or data.sha256 is None:
        return data.name
    folder = f"{root}/data"
    ok, output = run_script(host, THERE(folder=folder, name=data.there, sha256=data.sha256), transfer.HASH_SECONDS)
    if not ok:
        raise RigError(f"no place for the data on the host: {folder}", "", "see its lines with -v, or name another "
                       "disk: --data data_dir=FOLDER")
    if output.strip() == "there":
        return f"{folder}/{data.there}"
    return transfer.send(host, data.file, folder, folder, data.there)


def ask(host: Host, env: str, folder: str, *arguments: str, seconds: int = 60) -> str | None:
    """What train_files.py prints there; None, with a card, where it doesn't run."""
    call = ASK(*arguments, env=env, run=folder)
    ok, output, lines = adapter.execute(host, script(call, seconds, program("train_files.py")))
    if not ok:
        own = (line for line in lines if line.startswith("qwen-rig: "))
        said = next(own, lines[-1] if lines else "it said nothing")
        raise RigError(f"the run's files on the host can't be read: {said.removeprefix('qwen-rig: ')}", "",
                       f"is the env there? qwen-rig plan --limit {host.name}")
    return output


def look(host: Host, kept: Record) -> Told | None:
    """The run as its host tells of it now; None where the host knows no such run."""
    parent = str(PurePosixPath(kept.folder).parent)
    output = ask(host, kept.env["path"], parent, "look", parent, kept.name)
    found = next((each for each in told.runs(output or "") if each.name == kept.name), None)
    if found is not None and found.id and found.id != kept.id:
        raise RigError(f"the run {kept.name} on the host is not the run on record here", kept.host,
                       "give yours another name")
    return found


def take_in(kept: Record, found: Told | None) -> Record:
    """The record with what its host tells, written down."""
    if found is None:
        return record.changed(kept, state="lost" if kept.job else kept.state, seen=now())
    return record.changed(
        kept, state=found.state, job=found.job or kept.job, seen=now(), settings={**kept.settings, **found.settings},
        points=curve.merged(kept.points, found.points), revision=found.revision or kept.revision,
        result={**found.end, "files": told.files(found.files)} if found.end else kept.result)


class Followed:
    """Turns a run's log into the board's line, a plain line a minute elsewhere, and the points of its record."""

    def __init__(self, host: Host, kept: Record) -> None:
        self.host, self.kept, self._said = host, kept, -SAY_EVERY_S
        self._board = sys.stderr.isatty()

    def feed(self, answer: Answer) -> str | None:
        points, rest = told.lines(answer.lines)
        if answer.run and (points or answer.run != self.kept.job):
            self.kept = record.changed(self.kept, job=answer.run, state="running", seen=now(),
                                       points=curve.merged(self.kept.points, points))
        last = self.kept.last
        if points and last.get("of"):
            Run.of(self.host).board.of(self.host.name, int(last["step"]), int(last["of"]))
        if not self._board and answer.elapsed - self._said < SAY_EVERY_S and not (points and self._said < 0):
            return None
        self._said = answer.elapsed
        line = next((line.strip() for line in reversed(rest) if line.strip()), "")
        return words.line(last) if last else f"begins{f': {line[:80]}' if line else ''}"


def follow(host: Host, kept: Record, made: Job, begun: str = "") -> Record:
    """See the run through to its end (or attach to `begun`), and put on record how it ended; a card where it failed."""
    run = Run.of(host)
    step = Step(f"training {kept.name}", "-", "-", Action.ADD, "", component=made.step)
    run.report.started(host.name, step, changes=False)
    run.ender.again, run.ender.stop = (f"qwen-rig runs {act} {kept.name}" for act in ("attach", "stop"))
    shown = Followed(host, kept)
    outcome = attend(host, made, shown=shown, begun=begun, wait=WAIT_S)
    if host.name in run.report.cards:  # the connection stays lost: the run goes on there
        return shown.kept
    kept = take_in(shown.kept, look(host, shown.kept))
    _tell(host, kept, outcome)
    return kept


def ended_well(kept: Record) -> tuple[str, str]:
    """The row of the report for a run that finished or was stopped."""
    nxt = f"qwen-rig fetch {kept.name}" if kept.state == "finished" else f"qwen-rig runs resume {kept.name}"
    loss = f", loss {kept.last['loss']:.3f}" if "loss" in kept.last else ""
    return f"✓ {kept.state}", f"{kept.name}: {words.step(kept.last)}{loss}; next: {nxt}"


def _tell(host: Host, kept: Record, outcome: Outcome) -> None:
    """The run's outcome: a row of the report, or a card."""
    report = Run.of(host).report
    if outcome.ok and kept.state in ("finished", "stopped"):
        report.outcomes[host.name] = ended_well(kept)
        return
    _, said = told.lines(outcome.lines)
    if kept.state == "aborted":
        report.fail(host.name, f"{kept.name} ended early: the host was rebooted, or somebody killed the run",
                    f"qwen-rig runs resume {kept.name}")
        return
    if any("out of memory" in line.lower() for line in said):
        settings = {name: kept.settings.get(name) for name in ("per_device_train_batch_size", "max_length")}
        report.fail(host.name, f"{kept.name}: the card ran out of memory with batch "
                    f"{settings['per_device_train_batch_size']} of {settings['max_length']} tokens",
                    words.again(kept.settings, kept.name), tail=tuple(folded(failure.trainer(said))[-5:]))
        return
    shown = failure.trainer(said)
    own = any(line.startswith(failure.OWN) for line in shown)
    why = failure.cause(said) or f"it ended with {outcome.code}"
    report.fail(host.name, f"{kept.name}: {why}", f"mend the cause, then qwen-rig runs resume {kept.name}",
                said=[] if own else said, tail=tuple(folded(shown)[-15:]), log=outcome.log)


def others(host: Host) -> list[checks.Busy]:
    """Who has this host's GPUs by their own word, but for ourselves."""
    _, output = run_script(host, BUSY_LOOK(), 30)
    uid = Run.of(host).memory.context(host).machine.user.uid
    return [each for each in checks.busy(output) if each.uid != uid or each.run]


def busy_file(host: Host) -> str:
    """The file in which our run tells others how far it is; "" where we can't have root make it."""
    machine = Run.of(host).memory.context(host).machine
    if machine.sudo not in ("root", "passwordless", "password"):
        return ""
    ok, output = run_script(host, BUSY(uid=str(machine.user.uid)), 30, sudo=machine.sudo != "root")
    path = output.strip()
    return path if ok and path == f"/run/qwen-rig/gpu/{machine.user.uid}" else ""


def certificates(host: Host) -> tuple[str, ...]:
    """The certificates kept here of the host's cards: `UUID taken at TIME: verdict`."""
    ctx = Run.of(host).memory.context(host)
    uuids = [gpu.uuid for gpu in ctx.state.gpus if gpu.uuid and store.UUID.fullmatch(gpu.uuid)]
    return tuple(f"{uuid} {made.began} {made.overall}" for uuid in uuids if (made := store.last(uuid, ctx.who)))


def stands(host: Host, found: Sequence[Record]) -> None:
    """Ask for each of a host's runs, and put on record how it stands."""
    states = [f"{kept.name} {take_in(kept, look(host, kept)).state}" for kept in found]
    Run.of(host).report.outcomes[host.name] = ("· asked", ", ".join(states))


def log(host: Host, kept: Record) -> str:
    """The last lines that the run printed."""
    printed = ask(host, kept.env["path"], kept.folder, "log", kept.name)
    Run.of(host).report.outcomes[host.name] = ("· told", kept.name)
    return "\n".join(line for line in told.lines((printed or "").splitlines())[1] if line.strip())
