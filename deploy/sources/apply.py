"""Before anything is changed: can the host reach what the steps will fetch, and which mirror serves it best?"""

from __future__ import annotations

from collections.abc import Generator

from qwen_rig.catalog.limits import load_limits
from qwen_rig.catalog.sources import load_sources
from qwen_rig.errors import RigError
from qwen_rig.network import measure
from qwen_rig.network.route import candidates, choose, from_bundle, needs
from qwen_rig.program import load
from qwen_rig.run import adapter, network
from qwen_rig.run.adapter import FunctionCommand, Host, State
from qwen_rig.run.contain import operation
from qwen_rig.run.converge import run_script
from qwen_rig.run.run import Run

ARCHIVES = load("deploy/sources/archives.sh")


def sources() -> None:
    """One command on the host, where something is to be fetched; a host that can't is left before it is touched."""
    _reach(name="Sources | Reach what will be fetched")


@operation()
def _reach() -> Generator[FunctionCommand, None, None]:
    host = adapter.current_host()
    run = Run.of(host)
    plan = run.memory.plan(host)
    bundled = bool(run.memory.context(host).knobs.bundle)
    if not needs(plan) and not (bundled and network.apt_needed(plan)):
        host.noop("nothing is fetched")
        return
    yield FunctionCommand(_ask, (), {})


def _ask(state: State, host: Host) -> bool:
    """Measure the candidates from the host, choose, and keep the choice for this run."""
    run = Run.of(host)
    ctx = run.memory.context(host)
    plan = run.memory.plan(host)
    found = candidates(ctx, needs(plan))
    if ctx.knobs.bundle:
        try:
            served = from_bundle(run.tunnels.way(host, ctx.knobs.bundle).address)
            if network.apt_needed(plan):
                ok, said = run_script(host, ARCHIVES(), ctx.knobs.timeout_fetch)
                if not ok:
                    return False
                run.network.hand_on(host, ctx, plan, said)
        except RigError as error:
            run.report.fail(host.name, f"nothing was changed: {error.what}", error.remedy)
            return False
        found = {role: served.get(role, rows[:1]) for role, rows in found.items() if role in served}
    packages = network.wanted(ctx, plan)
    ask = measure.script(network.known(ctx, found), measure.probe_of(packages), network.files(ctx),
                         {load_sources().conda_channel: load_sources().conda_measure},
                         run.network.way_out(ctx), lambda url: network.turbo(ctx, url))
    ok, said = run_script(host, ask, 6 * load_limits().measure_seconds)
    if not ok:
        return False
    route, wrong = choose(found, measure.read(said))
    if wrong:
        run.report.fail(host.name, f"nothing was changed: {'; '.join(wrong)}", _remedy(wrong))
        return False
    run.network.take(host, route)
    run.report.caveats[host.name] += route.said
    return True


def _remedy(wrong: list[str]) -> str:
    text = " ".join(wrong).lower()
    if "resolve" in text:
        return "the host has no name server that knows these: mend its DNS, set proxy, or serve it by a bundle"
    if "certificate" in text:
        return "look at the host's clock and ca-certificates"
    return "set proxy or the source_… knobs, or serve the host by a bundle"
