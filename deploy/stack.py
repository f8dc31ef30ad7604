"""The env and its packages, from a lock with hashes: built beside, proved, then the link is flipped (DESIGN rule 9)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from importlib.resources import files
from urllib.parse import urlsplit

from pyinfra.api import StringCommand, deploy

from rig.plan import Context, Step
from rig.plan.env import envs_dir, prefix
from rig.torch_index import Apart

from . import _session
from ._converge import converge, script
from ._place import exports


@deploy("Env")
def env() -> None:
    """The env with exactly what the lock names."""
    converge("env", "Build or mend the env", _env)


def _env(ctx: Context, step: Step) -> Iterator[StringCommand]:
    if step.data["mode"] == "mend":
        yield _mend(ctx, step)
    else:
        yield _build(ctx, step)


def _index(address: str | None) -> str:
    """Options that name the package index; a plain-http one is the user's own choice, and hashes guard the bytes."""
    if not address:
        return ""
    url = urlsplit(address)
    quoted = f"--index-url {shlex.quote(address)}"
    return quoted + (f" --trusted-host {shlex.quote(url.hostname or '')}" if url.scheme == "http" else "")


def uv_lock() -> str:
    """The lock of the installer itself: one line, `uv==VERSION` and the hashes of its Linux x86_64 wheels."""
    return (files("rig.data") / "locks" / "uv.lock.txt").read_text()


def _installers(ctx: Context) -> str:
    """Shell functions; `packages PYTHON LOCK …` installs by uv where it can be had, else by pip, to the same end."""
    knobs, lock = ctx.knobs, uv_lock()
    version = lock.split("==", 1)[1].split()[0]
    index = _index(knobs.source_pip_index)
    uv_index = index.replace("--trusted-host", "--allow-insecure-host")
    return f"""{exports(ctx)}
cache=${{XDG_CACHE_HOME:-$HOME/.cache}}/qwen-rig
uv=$cache/uv-{version}/bin/uv
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore UV_NO_PROGRESS=1 UV_HTTP_TIMEOUT=120
get_uv() {{
  [ {knobs.installer} != pip ] || return 1
  [ -x "$uv" ] && "$uv" --version >/dev/null 2>&1 && return 0
  mkdir -p "$cache" && rm -rf "$cache/uv.new" || return 1
  printf '%s' {shlex.quote(lock)} > "$cache/uv.txt" || return 1
  "$1" -m pip install -q --timeout 30 --require-hashes --no-deps {index} --target "$cache/uv.new" -r "$cache/uv.txt" \\
    && rm -rf "${{uv%/bin/uv}}" && mv "$cache/uv.new" "${{uv%/bin/uv}}"
}}
packages() {{ # python lock [options]
  python=$1 lock=$2; shift 2
  if get_uv "$python"; then
    installer="uv {version}"
    "$uv" pip install -q --python "$python" --require-hashes {uv_index} "$@" -r "$lock"
  elif [ {knobs.installer} = uv ]; then
    echo "qwen-rig: uv {version} can't be had and installer=uv: set installer=auto, or check source_pip_index"
    exit 1
  else
    installer=pip
    "$python" -m pip install -q --timeout 60 --require-hashes {index} "$@" -r "$lock"
  fi
}}
"""


def _torch_apart(apart: Apart | None) -> str:
    """The torch packages from an index of their own, by the installer that the rest came by; nothing where they're
    in the lock."""
    if apart is None:
        return ""
    options = _index(apart.index) + (" --require-hashes" if apart.hashed else "") + ("" if apart.deps else " --no-deps")
    by_pip, by_uv = options, options.replace("--trusted-host", "--allow-insecure-host")
    if apart.pre:
        by_pip, by_uv = f"{by_pip} --pre", f"{by_uv} --prerelease allow"
    return f"""
printf '%s' {shlex.quote(apart.requirements)} > "$new/.rig/torch.txt"
if [ "$installer" = pip ]; then
  "$new/bin/python" -m pip install -q --timeout 60 {by_pip} -r "$new/.rig/torch.txt"
else
  "$uv" pip install -q --python "$new/bin/python" {by_uv} -r "$new/.rig/torch.txt"
fi"""


def _locked(root: str, name: str) -> str:
    """One builder at a time: a run whose connection broke may still be at work on the host."""
    return f"""root={shlex.quote(root)}
mkdir -p "$root"
exec 9>"$root/.{name}.lock"
flock -w 60 9 || {{
  echo "qwen-rig: another run is building this env (lock $root/.{name}.lock): wait for it"
  exit 75
}}
"""


def _build(ctx: Context, step: Step) -> StringCommand:
    """Create the env in its own generation, fill it, prove the import, write its record, flip the link."""
    knobs, stack = ctx.knobs, ctx.stack
    root, name, generation = envs_dir(ctx), knobs.env_name, step.data["generation"]
    channel = knobs.source_conda_channel or _session.rules().sources.conda_channel
    apart = stack.apart(knobs.source_torch_index, knobs.python)
    unlocked = list(apart.names) if apart and not apart.hashed else []
    made = {"stack": stack.name, "unlocked": unlocked, "standin": stack.standin,
            "lock_sha256": stack.lock_sha256, "python": knobs.python}
    return script(f"""{_locked(root, name)}{_installers(ctx)}
new=$root/{generation}
mkdir -p "$cache"
if [ ! -e "$new/.rig/env.json" ] && [ ! -e "$new/.rig/python" ]; then
  rm -rf "$new"
  {shlex.quote(prefix(ctx))}/bin/conda create -y -q -p "$new" --override-channels -c {shlex.quote(channel)} \\
    python={knobs.python} pip
  mkdir -p "$new/.rig" && : > "$new/.rig/python"
fi
cat > "$new/.rig/lock.txt"
# In an env that was left aside whole: nothing, or what it lost.
packages "$new/bin/python" "$new/.rig/lock.txt"{" --no-deps" if apart else ""}{_torch_apart(apart)}
timeout -k 10 600 "$new/bin/python" -c {shlex.quote(stack.import_gate)} || {{
  [ ! -e "$new/.rig/env.json" ] || rm -rf "$new" # left aside, and no good any more: the next run builds it anew
  echo "qwen-rig: the new env can't do «{stack.import_gate}»; the old env is untouched"; exit 1; }}
link=$root/{name}
old=$(readlink "$link" 2>/dev/null || true)
if [ -e "$link" ] && [ ! -L "$link" ]; then # not ours: kept, under another name
  old={name}.before-qwen-rig n=1
  while [ -e "$root/$old" ]; do n=$((n + 1)) old={name}.before-qwen-rig-$n; done
fi
printf '%s' {shlex.quote(json.dumps(made)[:-1])}", \\"installer\\": \\"$installer\\", \\"previous\\": \\"$old\\"}}" \\
  > "$new/.rig/env.json.new"
mv "$new/.rig/env.json.new" "$new/.rig/env.json"
[ -L "$link" ] || [ ! -e "$link" ] || mv "$link" "$root/$old"
ln -sfn {generation} "$link.new"
mv -T "$link.new" "$link"
for other in "$root"/.{name}-*-[0-9]*; do # what neither runs nor would be gone back to
  case ${{other##*/}} in {generation}|"$old") ;; *) rm -rf "$other" ;; esac
done
""", knobs.timeout_env, stdin=stack.lock_beside(apart, knobs.python))


# What an uninstaller leaves behind of a package whose records are damaged: its metadata, which would count twice.
_FORGET = """import importlib.metadata, re, shutil, sys
for found in list(importlib.metadata.distributions()):
    if re.sub("[-_.]+", "-", found.metadata["Name"] or "").lower() in sys.argv[1:]:
        shutil.rmtree(found._path)
"""


def _mend(ctx: Context, step: Step) -> StringCommand:
    """Put single packages right in the env that runs, from the same lock; nothing else moves."""
    lines = ctx.stack.lock_for(step.data["names"], ctx.knobs.python)
    root, name, names = envs_dir(ctx), ctx.knobs.env_name, " ".join(step.data["names"])
    return script(f"""{_locked(root, name)}{_installers(ctx)}
python={shlex.quote(step.data["path"])}/bin/python
mkdir -p "$cache"
cat > "$cache/mend.txt"
"$python" -m pip uninstall -q -y {names} || true
"$python" -c {shlex.quote(_FORGET)} {names}
packages "$python" "$cache/mend.txt" --no-deps
timeout -k 10 600 "$python" -c {shlex.quote(ctx.stack.import_gate)}
""", ctx.knobs.timeout_env, stdin=lines)
