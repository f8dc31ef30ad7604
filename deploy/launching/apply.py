"""One training over several hosts: see them all, write each one's launch files, let all do an all-reduce at once."""

from __future__ import annotations

import json
import threading  # greenlets, where pyinfra has patched the standard library
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from qwen_rig import exits
from qwen_rig import launch as plan
from qwen_rig.deploy.training.plan import settings
from qwen_rig.errors import RigError
from qwen_rig.launch import Launch, Member
from qwen_rig.plan import Context
from qwen_rig.plan.crossed import by_pcie_alone
from qwen_rig.plan.env import records
from qwen_rig.run import adapter
from qwen_rig.run.adapter import FunctionCommand, Host, State, StringCommand
from qwen_rig.run.contain import entry, operation
from qwen_rig.run.converge import script
from qwen_rig.run.files import written
from qwen_rig.run.members import member
from qwen_rig.run.memory import UNREAD
from qwen_rig.run.preview import probed
from qwen_rig.run.programs import env_path, program
from qwen_rig.run.run import Run

CHECK = ("launch_check.py", "processes.py")
AT_ONCE = 20  # hosts that are looked at side by side


class Together:
    """The launch of one run: `found()` once all hosts were seen, None where they can't train together."""

    def __init__(self) -> None:
        self._lock, self._seen = threading.Lock(), False
        self._launch: Launch | None = None

    def found(self, state: State) -> Launch | None:
        """The first host to be prepared looks at all."""
        with self._lock:
            if not self._seen:
                self._launch, self._seen = _look(state), True
        return self._launch


@entry
def launch() -> None:
    """Declare both steps for the current host. Where the hosts can't train together, none is touched."""
    host = adapter.current_host()
    run = Run.of(host)
    if run.part(Together).found(host.state) is None or host.name in run.report.cards:
        adapter.leave_out(host)
        return
    _write(name="Write the launch files")
    _check(name="All-reduce over all hosts")


def _look(state: State) -> Launch | None:
    """All hosts of the run as one launch; None, and a card for each, where they aren't one."""
    hosts = adapter.taking_part(state)
    reached = [host for host in hosts if host in state.active_hosts]
    report = Run.of(hosts[0]).report

    def see(host: Host) -> Member | None:
        with adapter.on(state, host):
            return probed(host, lambda: member(host))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        members = list(pool.map(see, reached))
    report.show([], [], verbose=False)  # the cards of those that could not be read
    broken = [host.name for host in hosts if host.name in report.cards or host not in reached]
    try:
        if broken:
            raise RigError(f"no launch without {', '.join(broken)}", "", "mend it, or leave it out: --limit")
        made = plan.together([member for member in members if member])
    except RigError as error:
        for host in reached:
            report.fail(host.name, error.what, error.remedy)
        return None
    if said := plan.trusting(made):
        report.caveats[made.members[0].name].append(said)
    return made


def _settings(ctx: Context) -> Mapping[str, Any]:
    made = records(ctx).training
    return made.raw if made else settings(ctx)


def _launch_of(host: Host) -> Launch:
    """The launch that a host takes part in."""
    made = Run.of(host).part(Together).found(host.state)
    assert made is not None  # else nothing was declared
    return made


@operation()
def _write() -> Generator[StringCommand, None, None]:
    """Write what isn't as it should be, each file whole or not at all."""
    host = adapter.current_host()
    run, made = Run.of(host), _launch_of(host)
    ctx, name = run.memory.context(host), host.name
    if not (stale := plan.stale(made, name, _settings(ctx))):
        host.noop("launch files: as they should be")
        return
    texts = plan.files(made, name, _settings(ctx))
    run.report.outcomes[name] = ("✓ ready", f"wrote {', '.join(stale)}")
    yield script(written(f"{env_path(ctx)}/.rig", {title: texts[title] for title in stale}), 60)


@operation()
def _check() -> Generator[StringCommand | FunctionCommand, None, None]:
    """All hosts do it at the same time; a good result is kept on each, and not asked for again."""
    host = adapter.current_host()
    made, ctx = _launch_of(host), Run.of(host).memory.context(host)
    wanted = ctx.knobs.verification
    if not (why := plan.unchecked(made, wanted)):
        host.noop("all-reduce: " + ("verification=never" if wanted == "never" else "nothing has changed"))
        return
    given = plan.spec(made, host.name, ctx.knobs.verification_gpu, ctx.knobs.timeout_launch)
    yield FunctionCommand(_begin, (why,), {})
    words = ["--spec", json.dumps(given), "--record", f"{env_path(ctx)}/.rig/{plan.RECORD}"]
    yield program(ctx, CHECK, words, ctx.knobs.timeout_launch + 60, quiet="out")
    yield FunctionCommand(_judge, (), {})


def _begin(state: State, host: Host, why: str) -> bool:
    run, made = Run.of(host), _launch_of(host)
    rank = made.rank(host.name)
    run.report.progress(host.name, f"all-reduce as host {rank} of {len(made.members)}, by {made.places[rank][0]} "
                                   f"({why})")
    return True


def _judge(state: State, host: Host) -> bool:
    """Read the record back: a pass is said, what couldn't be run is a caveat, a failure or a hang fails the host."""
    run = Run.of(host)
    try:
        found = plan.record(member(host))
    except UNREAD as error:
        run.report.fail(host.name, f"the all-reduce's result could not be read: {error}", "run the same command again")
        return False
    if found.status == "not_run":
        run.report.caveats[host.name].append(f"all-reduce not run: {found.why}")
        came = "all-reduce not run"
    elif found.status != "pass":
        why = found.why or "no record was written"
        ctx = run.memory.context(host)
        peers = sum(by_pcie_alone(ctx, gpu) for gpu in ctx.fit) > 1 and not ctx.environment
        run.report.fail(host.name, f"all-reduce failed: {why}", "open all ports between the hosts; name another "
                        "network with launch_address" + ("; or the cards of one host hang: `qwen-rig certify` tries "
                                                         "that" if peers else ""),
                        said=[why], status=exits.VERIFICATION)
        return False
    else:
        came = (f"all-reduce of {found.ranks} ranks over {found.backend} ({found.version}), "
                f"{found.bus_gbs:.2f} GB/s bus")
        if found.backend == "gloo":
            run.report.caveats[host.name].append(
                "the all-reduce ran on the CPU: it shows the network, not the cards")
    _, files = run.report.outcomes.get(host.name, ("", ""))
    run.report.outcomes[host.name] = ("✓ ready", "; ".join(filter(None, [files, came])))
    return True
