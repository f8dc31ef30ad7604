"""The env and its packages, from a lock with hashes: built beside, proved, then the link is flipped (DESIGN rule 9)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import suppress

from qwen_rig.deploy.env.installers import installers, torch_apart
from qwen_rig.deploy.env.plan import envs_dir, prefix, record
from qwen_rig.network.route import DEFAULT
from qwen_rig.plan import Context, Step
from qwen_rig.run.adapter import FunctionCommand, Host, State, deploy
from qwen_rig.run.converge import converge
from qwen_rig.run.job import JobCommand, job
from qwen_rig.run.memory import ProbeFailed
from qwen_rig.run.run import Run


@deploy("Env")
def env() -> None:
    """The env with exactly what the lock names."""
    converge("env", "Build or mend the env", _env)


def _env(run: Run, ctx: Context, step: Step) -> Iterator[FunctionCommand]:
    if step.data["mode"] == "mend":
        yield _mend(run, ctx, step)
    else:
        yield _build(run, ctx, step)
        if len(run.network.route(ctx, ["pip_index"]).of("pip_index")) > 1:
            yield FunctionCommand(_tell, (), {})


def _tell(state: State, host: Host) -> bool:
    """Say which sources didn't serve the lock, as the env's record has it."""
    Run.of(host).memory.forget(host)
    with suppress(ProbeFailed):  # the next step says so
        _say_refused(host)
    return True


def _say_refused(host: Host) -> None:
    run = Run.of(host)
    for refused in str(record(run.memory.context(host), "env").get("refused", "")).split(";"):
        if refused:
            label, _, why = refused.partition(":")
            run.report.caveats[host.name].append(f"packages: source {label} refused ({why}), the next one used")


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


_LOCK_ID = 12 * "[0-9a-f]"  # Stack.lock_id, as a shell's pattern: an env whose name goes on after ours is not ours


def _build(run: Run, ctx: Context, step: Step) -> JobCommand:
    """Create the env in its own generation, fill it, prove the import, write its record, flip the link."""
    knobs, stack = ctx.knobs, ctx.stack
    root, name, generation = envs_dir(ctx), knobs.env_name, step.data["generation"]
    route = run.network.route(ctx, ["conda_channel", "huggingface"])
    channels = " ".join(shlex.quote(source.url or "") for source in route.of("conda_channel"))
    apart = stack.apart(knobs.source_torch_index, knobs.python)
    unlocked = list(apart.names) if apart and not apart.hashed else []
    made = {"stack": stack.name, "unlocked": unlocked, "standin": stack.standin,
            "lock_sha256": stack.lock_sha256, "python": knobs.python}
    if (endpoint := route.of("huggingface")[0]).label != DEFAULT:
        made["hf_endpoint"] = endpoint.url or ""
    return job(step, f"""{_locked(root, name)}{installers(run, ctx)}
new=$root/{generation}
mkdir -p "$cache"
if [ ! -e "$new/.rig/env.json" ] && [ ! -e "$new/.rig/python" ]; then
  for channel in {channels}; do
    rm -rf "$new"
    {shlex.quote(prefix(ctx))}/bin/conda create -y -q -p "$new" --override-channels -c "$channel" \\
      python={knobs.python} pip && break
    channel=
  done
  [ -n "$channel" ] || exit 1
  mkdir -p "$new/.rig" && : > "$new/.rig/python"
fi
cat > "$new/.rig/lock.txt"
# In an env that was left aside whole: nothing, or what it lost.
{"export UV_NO_CACHE=1 PIP_NO_CACHE_DIR=1" if step.data["afresh"] else ""}
packages "$new/bin/python" "$new/.rig/lock.txt"{" --no-deps" if apart else ""}{torch_apart(ctx, apart)}
timeout -k 10 600 "$new/bin/python" -c {shlex.quote(stack.import_gate)} || {{
  rm -rf "$new" # no use to resume it: the next run builds anew
  echo "qwen-rig: the new env can't do «{stack.import_gate}»; the old env is untouched"; exit 1; }}
link=$root/{name}
old=$(readlink "$link" 2>/dev/null || true)
if [ -e "$link" ] && [ ! -L "$link" ]; then # not ours: kept, under another name
  old={name}.before-qwen-rig n=1
  while [ -e "$root/$old" ]; do n=$((n + 1)) old={name}.before-qwen-rig-$n; done
fi
{{ printf '%s' {shlex.quote(json.dumps(made)[:-1])}
  printf ', "installer": "%s", "source": "%s", "refused": "%s", "previous": "%s"}}' \\
    "$installer" "$source" "$refused" "$old"
}} > "$new/.rig/env.json.new"
mv "$new/.rig/env.json.new" "$new/.rig/env.json"
[ -L "$link" ] || [ ! -e "$link" ] || mv "$link" "$root/$old"
ln -sfn {generation} "$link.new"
mv -T "$link.new" "$link"
for other in "$root"/.{name}-{_LOCK_ID}-*; do # what neither runs nor would be gone back to
  case ${{other##*/}} in {generation}|"$old"|.{name}-{_LOCK_ID}-*[!0-9]*) ;; *) rm -rf "$other" ;; esac
done
""", knobs.timeout_env, stdin=stack.lock_beside(apart, knobs.python))


# What an uninstaller leaves behind of a package whose records are damaged: its metadata, which would count twice.
_FORGET = """import importlib.metadata, re, shutil, sys
for found in list(importlib.metadata.distributions()):
    if re.sub("[-_.]+", "-", found.metadata["Name"] or "").lower() in sys.argv[1:]:
        shutil.rmtree(found._path)
"""


def _mend(run: Run, ctx: Context, step: Step) -> JobCommand:
    """Put single packages right in the env that runs, from the same lock; nothing else moves."""
    lines = ctx.stack.lock_for(step.data["names"], ctx.knobs.python)
    root, name, names = envs_dir(ctx), ctx.knobs.env_name, " ".join(step.data["names"])
    return job(step, f"""{_locked(root, name)}{installers(run, ctx)}
python={shlex.quote(step.data["path"])}/bin/python
rm -f {shlex.quote(step.data["path"])}/.rig/verify.json # what it proved was before this
mkdir -p "$cache"
cat > "$cache/mend.txt"
try=$(mktemp -d) # fetched and checked first: a file that isn't the lock's must not cost the one that is there
trap 'rm -rf "$try"' EXIT
packages "$python" "$cache/mend.txt" --no-deps --target "$try"
"$python" -m pip uninstall -q -y {names} || true
"$python" -c {shlex.quote(_FORGET)} {names}
packages "$python" "$cache/mend.txt" --no-deps
timeout -k 10 600 "$python" -c {shlex.quote(ctx.stack.import_gate)}
""", ctx.knobs.timeout_env, stdin=lines)
