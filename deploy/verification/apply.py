"""The proof on the host: versions, GPU, kernel, matmul, import, five training steps. What couldn't run is `not run`."""

from __future__ import annotations

import json
from collections.abc import Iterator

from qwen_rig import exits
from qwen_rig.deploy.env.proof import fingerprint
from qwen_rig.deploy.verification.plan import summary
from qwen_rig.plan import Context, Step
from qwen_rig.plan.env import records
from qwen_rig.run import adapter
from qwen_rig.run.adapter import FunctionCommand, Host, State
from qwen_rig.run.converge import Applier
from qwen_rig.run.memory import UNREAD
from qwen_rig.run.programs import VERIFY, compiling, env_path, program
from qwen_rig.run.run import Run
from qwen_rig.run.writer import claim
from qwen_rig.ssh import shell_line


def commands(run: Run, ctx: Context, step: Step) -> Iterator[FunctionCommand]:
    """The proof, and its judgement."""
    expected = ctx.stack.expect(ctx.knobs.python, gpu=ctx.knobs.verification_gpu, model=ctx.model)
    words = ["--expect", json.dumps(expected), "--record", f"{env_path(ctx)}/.rig/verification.json", "--fingerprint",
             fingerprint(ctx)]
    yield program(ctx, VERIFY, words, ctx.knobs.timeout_verification + compiling(expected), quiet="out")
    yield FunctionCommand(_judge, (), {})


def _judge(state: State, host: Host) -> bool:
    """Read the record back as the plan would; a failed check fails the host, what wasn't run is a caveat."""
    run = Run.of(host)
    run.memory.forget(host)
    try:
        ctx = run.memory.context(host)
        made = records(ctx).verification
    except UNREAD as error:
        what = f"connection lost while the verification was read: {error}"
        run.report.fail(host.name, what, "run the same command again")
        return False
    if made is None or made.failed:
        why = "; ".join(f"{check.name}: {check.why or check.measured}" for check in made.failed) if made else \
            "no record was written"
        login = shell_line(host.name, adapter.data(host))
        run.report.fail(host.name, f"verification failed: {why}", "mend that, and run the same command again; all that "
                        f"was measured: {login} cat {env_path(ctx)}/.rig/verification.json",
                        said=[why], alone=True, status=exits.VERIFICATION)
        return False
    skipped = [check.name for check in made.checks if check.status == "not_run"]
    if skipped:
        run.report.caveats[host.name].append(f"verified: {summary(made)} ({', '.join(skipped)})")
    # One that measured something beside what was asked of it has something to tell: a slow kernel that serves.
    run.report.caveats[host.name] += [f"{check.name}: {check.why}" for check in made.checks
                                      if check.status == "not_run" and check.measured and check.why]
    return True


APPLIER = Applier("Verification | Verify on the host", commands, claim=claim)
