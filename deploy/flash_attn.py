"""flash-attn, attempted: a verified wheel that imports and works, else SDPA. Either is a good end, and on record."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from importlib.resources import files

from pyinfra.api import StringCommand, deploy

from rig.plan import Context, Step
from rig.plan.env import envs_dir

from . import _network
from ._converge import converge, script
from ._place import exports


@deploy("flash-attn")
def flash_attn() -> None:
    """The attempt, and its record in the env."""
    converge("flash_attn", "Attempt flash-attn", _attempt)


def on_host(ctx: Context, program: str, arguments: str, seconds: int) -> StringCommand:
    """Run one of rig/host/'s programs under the env's python; it travels on stdin, so the host needs no copy of us."""
    env = f"{envs_dir(ctx)}/{ctx.knobs.env_name}"
    if ctx.state["env"] and not ctx.state["env"]["target"]:
        env = ctx.state["env"]["path"]
    proxies = _network.proxies(ctx, github=program == "attention.py")  # the wheels are GitHub's
    return script(f"""{exports(ctx)}{proxies}env={shlex.quote(env)}
mkdir -p "$env/.rig"
cat > "$env/.rig/{program}"
"$env/bin/python" "$env/.rig/{program}" {arguments}
""", seconds, stdin=(files("rig.host") / program).read_text())


def _attempt(ctx: Context, step: Step) -> Iterator[StringCommand]:
    # The check stands beside the attempt, which runs it in a process of its own.
    yield on_host(ctx, "flash_attn_check.py", "--help >/dev/null", 120)
    yield on_host(ctx, "attention.py", f"--spec {shlex.quote(json.dumps(dict(step.data)))}", ctx.knobs.timeout_verify)
