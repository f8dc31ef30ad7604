"""The certificates: measure on the host, judge here (qwen_rig/certificate/), keep, compare."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

from qwen_rig import exits, say, strictjson
from qwen_rig.certificate import judge, record, table
from qwen_rig.certificate.gates import load_gates
from qwen_rig.certificate.model import LARGEST
from qwen_rig.deploy.training.plan import settings
from qwen_rig.errors import RigError
from qwen_rig.plan import Context
from qwen_rig.plan.env import records
from qwen_rig.program import load
from qwen_rig.run import adapter
from qwen_rig.run.adapter import LOST, FunctionCommand, Host, PyinfraError, State, StringCommand
from qwen_rig.run.contain import entry, operation
from qwen_rig.run.converge import run_script
from qwen_rig.run.preview import probed
from qwen_rig.run.programs import CERTIFY, compiling, env_path, program
from qwen_rig.run.run import Run

READ = load("deploy/certification/measured.sh")
CHECKS_SHARE = 0.8  # of timeout_certify; the rest is for nvidia-smi and the kernel log, which may not answer either


@entry
def certification() -> None:
    """Measure every card of this host; a host without the env is left out with a card of its own."""
    host = adapter.current_host()
    if probed(host, lambda: _with_env(host), later=False) is None:
        adapter.leave_out(host)
        return
    _certify(name="Certificate | Measure and judge every card")


@entry
def tell_new_name() -> None:
    """Say, once in a run, that deploy/verify.py is deploy/certify.py now."""
    Run.of(adapter.current_host()).part(_tell)


def _tell() -> bool:
    say.err("qwen-rig: deploy/verify.py is now deploy/certify.py")
    return True


def _with_env(host: Host) -> Context:
    """What is known of a host that has the env. Raises RigError where it has none."""
    ctx = Run.of(host).memory.context(host)
    if ctx.state.env is None:
        raise RigError(f"there is no env {ctx.knobs.env_name} on this host", "", "run deploy/5090.py on it first")
    return ctx


@operation(is_idempotent=False)
def _certify() -> Generator[StringCommand | FunctionCommand, None, None]:
    """Measure on the host, then read the measurements back and judge them."""
    host = adapter.current_host()
    ctx = Run.of(host).memory.context(host)
    yield FunctionCommand(_begin, (), {})
    wanted = expect(ctx)
    words = ["--expect", json.dumps(wanted), "--out", _measured(ctx)]
    yield program(ctx, CERTIFY, words, ctx.knobs.timeout_certify + compiling(wanted), quiet="err")
    yield FunctionCommand(_judge, (), {})


def _measured(ctx: Context) -> str:
    return f"{env_path(ctx)}/.rig/measured.json"


def _begin(state: State, host: Host) -> bool:
    run = Run.of(host)
    count = len(run.memory.context(host).gpus)
    run.report.progress(host.name, f"measuring {count} GPU{'s' * (count != 1)}, about two minutes")
    return True


def expect(ctx: Context) -> dict[str, Any]:
    """What qwen_rig/host/certify.py is told: the host's own training settings, and the limits that it needs there."""
    gate, made = load_gates().checks["other_users"], records(ctx).training
    wanted = ctx.stack.expect(ctx.knobs.python, gpu=ctx.knobs.verification_gpu, model=ctx.model)
    return {
        **{key: wanted[key] for key in ("stack", "gpu", "torch", "model", "head_dims", "gated_delta")},
        "deadline_seconds": CHECKS_SHARE * ctx.knobs.timeout_certify + compiling(wanted),
        "allow_busy_gpu": ctx.knobs.allow_busy_gpu,
        "busy": {"utilization": gate["utilization_pct"], "memory_mib": gate["memory_mib"]},
        "training": dict(made.raw) if made else settings(ctx),
    }


def _judge(state: State, host: Host) -> bool:
    """Certificates out of the host's measurements; a failed gate fails the host, what wasn't run is a caveat."""
    run = Run.of(host)
    ctx = run.memory.context(host)
    built = records(ctx).env
    try:
        good, text = run_script(host, READ(_measured(ctx)), 60)
        measured, why = strictjson.parse(text, LARGEST, measured=True) if good else (None, None)
        if why:
            raise ValueError(why)
        taken = record.take(measured, ctx.stack, ctx.who, ctx.knobs.verification_gpu, f"{host.name}: measured.json",
                            built)
    except (*LOST, ValueError, PyinfraError) as error:
        run.report.fail(host.name, f"the measurements could not be read back: {error}", "run the same command again")
        return False
    except RigError as error:
        run.report.fail(host.name, error.what, error.remedy or "run the same command again")
        return False
    for each in taken:
        run.report.screens.results.print(each.told())
    run.report.more[host.name]["certificates"] = [each.new.to_json() for each in taken]
    failed = [text for each in taken for text in each.failed]
    if built and built.lock_sha256 not in (None, ctx.stack.lock_sha256):
        run.report.caveats[host.name].append(f"certified is the env on this host, of stack {built.stack}: its lock "
                                          f"isn't that of {ctx.stack.name}, which is wanted (run deploy/5090.py)")
    silent = judge.silent(measured)
    if other := record.miscounted(taken, ctx.knobs.expect_gpus):
        failed.append(f"{other} (expect_gpus)")
    if ctx.foreign_kernel or not ctx.knobs.verification_gpu:  # a container is handed some of its host's cards
        run.report.caveats[host.name] += silent
    else:
        failed = [*silent, *failed]
    run.report.outcomes[host.name] = ("✓ certified", "; ".join(
        f"{each.new.name}: {each.new.overall} ({table.summary(each.new)})" for each in taken))
    if failed:
        run.report.fail(host.name, f"certificate failed: {'; '.join(failed)}",
                     f"qwen-rig certificate show {host.name}", said=failed, alone=True, status=exits.VERIFICATION)
    return not failed
