"""qwen_rig/host/'s programs, sent to a host and run there under the env's own python."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from qwen_rig.plan import Context
from qwen_rig.plan.env import envs_dir
from qwen_rig.program import load
from qwen_rig.run.job import JobCommand
from qwen_rig.run.job_protocol import Job
from qwen_rig.run.place import place

# The program, and what travels with it.
VERIFY = ("verify.py", "processes.py", "tiny_qwen.py", "flash_attn_check.py", "gated_delta.py")
CERTIFY = ("certify.py", "certify_attention.py", "certify_card.py", "certify_compute.py", "certify_peers.py",
           "certify_training.py", "processes.py", "nvidia_text.py", "tiny_qwen.py", "flash_attn_check.py",
           "gated_delta.py")

NO_WAY_OUT = MappingProxyType({"proxy": "", "secret_tunnel": ""})  # as the host has it
PROGRAM = load("shell/place.sh", "shell/network.sh", "host/program.sh")


def env_path(ctx: Context) -> str:
    """The env's folder on that host: the link, or the folder itself where somebody else made it."""
    env = ctx.state.env
    if env and not env.target:
        return env.path
    return f"{envs_dir(ctx)}/{ctx.knobs.env_name}"


def compiling(expected: Mapping[str, Any]) -> int:
    """Seconds that the kernels of linear layers may take to compile, once; 0 where the stack's Qwen has none."""
    return int((expected["gated_delta"] or {}).get("compile_s", 0))


def program(ctx: Context, names: tuple[str, ...], arguments: Sequence[str], seconds: int,
            way_out: Mapping[str, str] = NO_WAY_OUT, script: str = "", nice: int = 0, quiet: str = "") -> JobCommand:
    """A job that lays these files into the env's .rig/ and runs the first.

    `way_out`, `script`: as shell/network.sh takes them; `nice`: as nice(1) has it; `quiet`: out or err, where what is
    said there isn't wanted.
    """
    texts = {name: (files("qwen_rig.host") / name).read_text(encoding="utf-8") for name in names}
    call = PROGRAM(*arguments, place=place(ctx), **way_out, script=script, env=env_path(ctx), first=names[0],
                   quiet=quiet)
    name = names[0].removesuffix(".py")
    return JobCommand(Job(name, name, call, seconds, json.dumps(texts), nice))
