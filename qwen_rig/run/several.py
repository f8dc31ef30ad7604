"""A training run over several hosts: begun on all or on none, followed on all, ended on all where one falls away.

What is decided is in qwen_rig/finetune/several.py; what one host does is in finetune.py beside this file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from qwen_rig import launch as launching
from qwen_rig import strictjson
from qwen_rig.errors import RigError
from qwen_rig.finetune import checks, failure, options, record, several, told, words
from qwen_rig.finetune.data import Data
from qwen_rig.finetune.record import Record
from qwen_rig.finetune.several import End, Seat
from qwen_rig.finetune.told import Told
from qwen_rig.frozen import frozen
from qwen_rig.launch import Launch
from qwen_rig.plan import Action, Step
from qwen_rig.plan.context import Context
from qwen_rig.plan.env import records

from . import adapter, finetune, memory
from .adapter import Host, State
from .finetune import Wanted
from .job import Outcome, Shown, attend
from .job_protocol import Answer, Job
from .members import member
from .programs import env_path
from .report import Report, now
from .run import Run

T = TypeVar("T")
HASH_S = 3600  # of a model's folder, on the slowest disk
UNSEEN = "its part could not be begun, or nobody knows whether it was"


class Opened(Protocol):
    """The session of hosts that a run is on."""

    state: State
    report: Report

    def work(self, do: Callable[[Host], T]) -> list[T]: ...


@frozen
class Crew:
    """The hosts of a run that is begun: who takes part in which order, by what settings, from which checkpoint."""

    launch: Launch
    made: Mapping[str, Any]
    from_: int


class Looked:
    """What is known of all hosts of a run while somebody looks on: how each one's part ended, and who failed."""

    def __init__(self) -> None:
        self.ends: dict[str, End] = {}
        self.failed: list[End] = []

    def ended(self, end: End, failed: bool) -> None:
        self.ends[end.host] = end
        if failed:
            self.failed.append(end)


class Part:
    """What is shown of one host's part; where another has failed, this one is ended, which would wait for it."""

    def __init__(self, host: Host, kept: Record, looked: Looked, inner: Shown | None) -> None:
        self.host, self.kept, self.looked, self.inner = host, kept, looked, inner
        self.seen = self.told = False

    def feed(self, answer: Answer) -> str | None:
        first, self.seen = not self.seen, True
        if self.looked.failed and not self.told and answer.state == "running":
            self._end(self.looked.failed[0])
        if self.inner:
            return self.inner.feed(answer)
        hosts = list(self.kept.crew)
        return f"trains as host {hosts.index(self.host.name) + 1} of {len(hosts)}" if first else None

    def _end(self, failed: End) -> None:
        own = view(self.kept, self.host.name)
        try:
            finetune.ask(self.host, own.env["path"], own.folder, "end", own.folder,
                         self.kept.crew[self.host.name]["turn"], f"{failed.host} failed: {failed.why}"[:300])
        except RigError:
            return  # asked again with the next answer
        self.told = True


def hosts_of(opened: Opened, names: Sequence[str]) -> list[str]:
    """The hosts that these words of the command line mean, in that order."""
    found = [host.name for name in names for host in adapter.matching(opened.state.inventory, name)]
    return list(dict.fromkeys(found))


def begin(opened: Opened, names: Sequence[str], wanted: Wanted) -> Record:
    """Check all, send the data to each, put the run on record, start it on all and see it through."""
    on_host = wanted.data.file is None
    seats = _seats(opened, names, wanted.given, wanted.data)
    launch = several.together(seats, on_host)
    settings = _settings(opened, seats, launch)
    name = wanted.name or record.free(str(settings["model_name_or_path"]), wanted.data.name)
    crew = _parts(opened, launch, name, wanted.data)
    first, ctx = launch.members[0].name, _context(opened, launch.members[0].name)
    made = records(ctx).env
    kept = Record(
        name, record.new_id(), first, wanted.inventory, crew[first]["folder"], now(), wanted.knobs,
        memory.identity(adapter.named(opened.state, first)).digest, {
            "path": crew[first]["env"], "stack": checks.stack(ctx).name,
            "lock_sha256": made.lock_sha256 if made else None, "launch": "accelerate",
            "busy": crew[first]["busy"]},
        {key: value for key, value in wanted.given.items() if key != "dataset_name"},
        settings, {"name": wanted.data.name, "sha256": wanted.data.sha256, "bytes": wanted.data.bytes,
                   "samples": wanted.data.samples, "there": crew[first]["there"]},
        settings["seed"], str(settings["model_name_or_path"]),
        certificates=tuple(line for each in launch.members
                           for line in finetune.certificates(adapter.named(opened.state, each.name))), crew=crew)
    return _through(opened, record.keep(kept, new=True), Crew(launch, seats[0].made, 0))


def resume(opened: Opened, kept: Record, more: Mapping[str, Any]) -> Record:
    """Go on, on all, from the last checkpoint that all have. Raises RigError where it is at work, or has finished."""
    found = _all(opened, kept.hosts, lambda host: finetune.look(host, view(kept, host.name)))
    kept = finetune.take_in(kept, found[kept.host])
    if running := [name for name, each in found.items() if each is not None and each.state == "running"]:
        raise RigError(f"the run {kept.name} has not ended on {', '.join(running)}", "",
                       f"qwen-rig runs attach {kept.name}")
    if kept.state == "finished":
        raise RigError(f"the run {kept.name} has finished, {words.step(kept.last)}", "", f"qwen-rig fetch {kept.name}")
    from_ = several.common(kept.name, {name: each.checkpoints if each else () for name, each in found.items()})
    given, data = {**kept.options, **more}, Data(kept.crew[kept.host]["there"])
    seats = _seats(opened, kept.hosts, given, data)
    launch = several.together(seats, True)
    settings = _settings(opened, seats, launch)
    busy = _all(opened, kept.hosts, finetune.busy_file)
    turns = {name: {**part, "turn": record.new_id(), "env": str(launch.members[launch.rank(name)].env),
                    "address": launch.places[launch.rank(name)][1], "busy": busy[name]}
             for name, part in kept.crew.items()}
    kept = record.changed(kept, options=given, settings=settings, crew=turns, result={})
    return _through(opened, kept, Crew(launch, seats[0].made, from_))


def attach(opened: Opened, kept: Record, stop: bool = False) -> Record:
    """See it through on all hosts, where it is at work on any; `stop`: have it write a checkpoint and end."""
    def look(host: Host) -> tuple[str, Told | None]:
        own = view(kept, host.name)
        found = finetune.look(host, own)
        if stop and found is not None and found.state == "running":
            finetune.ask(host, own.env["path"], own.folder, "stop", own.folder)
        return host.name, found

    found = dict(opened.work(look))
    if kept.host in found:
        kept = finetune.take_in(kept, found[kept.host])
    begun = {name: each.job for name, each in found.items() if each is not None and each.state == "running"}
    if not begun:
        if kept.host in found:
            finetune.stands_at(adapter.named(opened.state, kept.host), kept)
        return kept
    looked = Looked()
    for name, each in found.items():
        state = each.state if each else "lost"
        if name not in begun and state not in ("finished", "stopped", "begun"):
            looked.ended(End(name, state, "its part has ended already"), True)
    return _through(opened, kept, None, begun, looked)


def view(kept: Record, name: str) -> Record:
    """The run as one of its hosts has it."""
    part = kept.crew[name]
    return replace(kept, host=name, folder=part["folder"], env={**kept.env, "path": part["env"], "busy": part["busy"]},
                   job=kept.job if name == kept.host else "")


def _all(opened: Opened, names: Sequence[str], do: Callable[[Host], T]) -> dict[str, T]:
    """What `do` makes of each host. Raises RigError where one is missing: the run is on all of them or on none."""
    made: dict[str, T] = {}

    def keep(host: Host) -> None:
        made[host.name] = do(host)

    opened.work(keep)
    if lacking := [name for name in names if name not in made]:
        raise RigError(f"nothing was started: {', '.join(lacking)} can't take part", "",
                       "mend what the card says, and give the same command again")
    return {name: made[name] for name in names}


def _seats(opened: Opened, names: Sequence[str], given: Mapping[str, Any], data: Data) -> list[Seat]:
    """All hosts, each checked as for a run of its own."""
    return list(_all(opened, names, lambda host: _seat(host, given, data)).values())


def _seat(host: Host, given: Mapping[str, Any], data: Data) -> Seat:
    run = Run.of(host)
    ctx = run.memory.context(host)
    settings = checks.settings(ctx, given)
    run.report.caveats[host.name] += checks.refuse(ctx, settings, data, finetune.others(host))
    env, made = env_path(ctx), records(ctx)
    output = finetune.ask(host, env, env, "same", f"{env}/.rig/training.json", str(settings["model_name_or_path"]),
                          "" if data.file else data.name, seconds=HASH_S)
    said = strictjson.mapping(output or "", 100_000) or {}
    versions = [each if isinstance(each := said.get(name), str) and each.isalnum() else None
                for name in ("model", "data")]
    own = said.get("own")
    raw = made.training.raw if made.training else {}
    return Seat(member(host), {**settings, **options.typed(own if isinstance(own, dict) else {}), **given}, raw,
                (checks.stack(ctx).name, made.env.lock_sha256 if made.env else None), versions[0], versions[1],
                checks.each_card(ctx, settings))


def _settings(opened: Opened, seats: Sequence[Seat], launch: Launch) -> dict[str, Any]:
    """What all train by; caveats where it isn't what was asked for, or the network between them wasn't tried."""
    settings = several.agreed(seats, launch.cards * len(launch.members))
    first = seats[0].settings
    whole = (first[several.BATCH] or 1) * (first[several.STEPS] or 1)
    why = launching.unchecked(launch, _context(opened, launch.members[0].name).knobs.verification)
    untried = f"the network between the hosts wasn't tried ({why}): qwen-rig launch " \
        + " ".join(each.name for each in launch.members) if why else ""
    opened.report.caveats[seats[0].name] += filter(None, (several.told_uneven(settings, whole), untried,
                                                          launching.trusting(launch)))
    return settings


def _parts(opened: Opened, launch: Launch, name: str, data: Data) -> dict[str, dict[str, str]]:
    """Each host's part as the record has it, its data sent."""
    def part(host: Host) -> dict[str, str]:
        ctx = Run.of(host).memory.context(host)
        root = checks.root(ctx)
        return {"folder": f"{root}/runs/{name}", "env": env_path(ctx), "there": finetune.sent(host, root, data),
                "busy": finetune.busy_file(host), "turn": record.new_id(),
                "address": launch.places[launch.rank(host.name)][1]}

    return _all(opened, [each.name for each in launch.members], part)


def _context(opened: Opened, name: str) -> Context:
    host = adapter.named(opened.state, name)
    return Run.of(host).memory.context(host)


def job(host: Host, kept: Record, crew: Crew) -> Job:
    """One host's part as a job: the options that all have, the launcher's file and NCCL's settings for this host."""
    ctx, own = Run.of(host).memory.context(host), view(kept, host.name)
    part = kept.crew[host.name]
    asked = {"id": kept.id, "name": kept.name, "env": part["env"], "launch": "accelerate", "busy": part["busy"],
             "options": [*several.words(kept.settings), f"--dataset_name={part['there']}"],
             "hosts": list(kept.crew), "turn": part["turn"], "from": crew.from_, "silent_s": ctx.knobs.timeout_launch,
             # What was found to be the same on all stays so: nobody looks for a newer one.
             "environment": {**launching.environment(crew.launch, host.name), "HF_HUB_OFFLINE": "1"}}
    config = launching.files(crew.launch, host.name, crew.made)[launching.YAML]
    return finetune.job_of(ctx, own, {"run.json": json.dumps(asked), launching.YAML: config})


def _through(opened: Opened, kept: Record, crew: Crew | None, begun: Mapping[str, str] | None = None,
             looked: Looked | None = None) -> Record:
    """Start it on all (or attach to what is `begun`), see all to their ends, tell how it ended."""
    looked = looked or Looked()
    outcomes: dict[str, Outcome] = {}

    def one(host: Host) -> None:
        if begun is not None and host.name not in begun:
            return
        try:
            outcomes[host.name] = _follow(host, kept, looked, crew, (begun or {}).get(host.name, ""))
        except BaseException:
            looked.ended(End(host.name, "unreachable", UNSEEN), True)
            raise

    if crew:
        for name in set(kept.crew) - {host.name for host in adapter.active(opened.state)}:
            looked.ended(End(name, "unreachable", UNSEEN), True)
    opened.work(one)
    kept = record.load(kept.name)
    _tell(opened.report, kept, looked, outcomes)
    return kept


def _follow(host: Host, kept: Record, looked: Looked, crew: Crew | None, begun: str) -> Outcome:
    """One host's part, seen through to its end; the first one's goes into the record."""
    run, first = Run.of(host), host.name == kept.host
    made = job(host, kept, crew) if crew else finetune.known(kept)
    run.report.started(host.name, Step(f"training {kept.name}", "-", "-", Action.ADD, "", component=made.step),
                       changes=False)
    run.ender.again, run.ender.stop = (f"qwen-rig runs {act} {kept.name}" for act in ("attach", "stop"))
    followed = finetune.Followed(host, kept) if first else None
    shown = Part(host, kept, looked, followed)
    outcome = attend(host, made, shown=shown, begun=begun, wait=finetune.WAIT_S, restarts=0)
    if host.name in run.report.cards:  # the connection stays lost: what was begun there goes on
        looked.ended(End(host.name, "unreachable", UNSEEN), not shown.seen)
        return outcome
    found = finetune.look(host, view(followed.kept if followed else kept, host.name))
    if followed:
        finetune.take_in(followed.kept, found)
    state = found.state if found else "lost"
    _, said = told.lines(outcome.lines)
    why = "" if outcome.ok else CUT if state == "aborted" else failure.cause(said) or f"it ended with {outcome.code}"
    looked.ended(End(host.name, state, why), not outcome.ok)
    return outcome


CUT = "it was rebooted, or somebody killed the run there"


def _tell(report: Report, kept: Record, looked: Looked, outcomes: Mapping[str, Outcome]) -> None:
    """The run's outcome: a row for each host, or one card, which names the host that failed first."""
    if kept.state in ("finished", "stopped"):
        for name in looked.ends:
            report.outcomes[name] = finetune.ended_well(kept) if name == kept.host else \
                (f"✓ {looked.ends[name].state}", f"its part of {kept.name}")
        return
    if kept.state == "running":  # the connection to the first is lost, and its card says so
        return
    ends = [looked.ends[name] for name in kept.hosts if name in looked.ends]
    if not ends:
        return
    bad = several.culprit(ends, {name: part["address"] for name, part in kept.crew.items()})
    outcome = outcomes.get(bad.host)
    _, said = told.lines(outcome.lines if outcome else ())
    shown = failure.trainer(said)
    remedy = f"mend that, then qwen-rig runs resume {kept.name}"
    how = "fell away" if bad.state in several.LOST else "failed"
    what = f"{kept.name} ended on all hosts, as {bad.host} {how}: {bad.why or bad.state}"
    if any("out of memory" in line.lower() for line in said):
        what, remedy = f"{kept.name}: a card of {bad.host} ran out of memory", words.again(kept.settings, kept.name)
    heard = None if how == "fell away" or any(line.startswith(failure.OWN) for line in shown) else said
    report.fail(kept.host, what, remedy, said=heard, tail=tuple(shown[-15:]), log=outcome.log if outcome else "")
    for name in kept.hosts:
        report.outcomes.setdefault(name, ("✗ ended", f"{kept.name}: {bad.host} {how}"))
