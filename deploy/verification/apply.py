"""The proof on the host: versions, GPU, kernel, matmul, import, five training steps. What couldn't run is `not run`."""

from __future__ import annotations

import json
from collections.abc import Iterator

from paramiko import SSHException
from pyinfra.api import FunctionCommand, deploy
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.state import State

from qwen_rig import exits
from qwen_rig.deploy.env.plan import records
from qwen_rig.deploy.training.plan import fingerprint, summary
from qwen_rig.plan import Context, Step
from qwen_rig.run import report as _report
from qwen_rig.run import session as _session
from qwen_rig.run.converge import converge
from qwen_rig.run.programs import VERIFY, env_path, program


@deploy("Verification")
def verification() -> None:
    """Prove the env on this host, and keep the record in it."""
    converge("verify", "Verify on the host", _verify)


def _verify(ctx: Context, step: Step) -> Iterator[FunctionCommand]:
    expected = ctx.stack.expect(ctx.knobs.python, gpu=ctx.knobs.verify_gpu)
    words = ["--expect", json.dumps(expected), "--record", f"{env_path(ctx)}/.rig/verify.json", "--fingerprint",
             fingerprint(ctx)]
    yield program(ctx, VERIFY, words, ctx.knobs.timeout_verify, quiet="out")
    yield FunctionCommand(_judge, (), {})


def _judge(state: State, host: Host) -> bool:
    """Read the record back as the plan would; a failed check fails the host, what wasn't run is a caveat."""
    _session.forget(host)
    try:
        made = records(_session.context(host)).verify
    except (_session.ProbeFailed, PyinfraError, OSError, EOFError, SSHException) as error:
        what = f"connection lost while the verification was read: {error}"
        _report.fail(host.name, what, "run the same command again")
        return False
    if made is None or made.failed:
        why = "; ".join(f"{check.name}: {check.why or check.measured}" for check in made.failed) if made else \
            "no record was written"
        _report.fail(host.name, f"verification failed: {why}", "see .rig/verify.json in the env on that host",
                     said=[why], alone=True, status=exits.VERIFICATION)
        return False
    skipped = [check.name for check in made.checks if check.status == "not_run"]
    if skipped:
        _report.caveats[host.name].append(f"verified: {summary(made)} ({', '.join(skipped)})")
    return True
