"""qwen_rig/host/'s programs, sent to a host and run there under the env's own python."""

from __future__ import annotations

import json
import shlex
from importlib.resources import files

from qwen_rig.deploy.env.plan import envs_dir
from qwen_rig.plan import Context
from qwen_rig.run.job import JobCommand
from qwen_rig.run.job_protocol import Job
from qwen_rig.run.place import exports

# The program, and what travels with it.
VERIFY = ("verify.py", "children.py", "tiny_qwen.py")
CERTIFY = ("certify.py", "certify_attention.py", "certify_card.py", "certify_compute.py", "certify_peers.py",
           "certify_training.py", "children.py", "tiny_qwen.py", "flash_attn_check.py")

# Run by the env's python, so that a host needs neither tar nor a copy of this project.
_UNPACK = """import json, pathlib, sys
for name, text in json.load(sys.stdin).items():
    pathlib.Path(sys.argv[1], name).write_text(text, encoding="utf-8")
"""


def env_path(ctx: Context) -> str:
    """The env's folder on that host: the link, or the folder itself where somebody else made it."""
    env = ctx.state["env"]
    if env and not env["target"]:
        return str(env["path"])
    return f"{envs_dir(ctx)}/{ctx.knobs.env_name}"


def program(ctx: Context, names: tuple[str, ...], arguments: str, seconds: int, head: str = "",
            nice: int = 0) -> JobCommand:
    """A job that lays these files into the env's .rig/ and runs the first; `$env` in arguments is the env.

    `head`: lines of shell before it, as a proxy's variables; `nice`: as nice(1) has it.
    """
    texts = {name: (files("qwen_rig.host") / name).read_text(encoding="utf-8") for name in names}
    script = f"""{exports(ctx)}{head}env={shlex.quote(env_path(ctx))}
mkdir -p "$env/.rig"
"$env/bin/python" -c {shlex.quote(_UNPACK)} "$env/.rig"
"$env/bin/python" "$env/.rig/{names[0]}" {arguments}
"""
    name = names[0].removesuffix(".py")
    return JobCommand(Job(name, name, script, seconds, json.dumps(texts), nice))
