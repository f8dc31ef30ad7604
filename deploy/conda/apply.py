"""Miniforge, where no sound conda is there to adopt. As the SSH user, never root's business."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from qwen_rig.catalog.rules import load_rules
from qwen_rig.facts._conda import UNFINISHED
from qwen_rig.plan import Context, Step
from qwen_rig.run import network
from qwen_rig.run.adapter import deploy
from qwen_rig.run.converge import converge
from qwen_rig.run.job import JobCommand, job
from qwen_rig.run.place import exports
from qwen_rig.run.run import Run


@deploy("Conda")
def conda() -> None:
    """A conda to make the env with."""
    converge("conda", "Install Miniforge", _miniforge)


def _miniforge(run: Run, ctx: Context, step: Step) -> Iterator[JobCommand]:
    name = network.miniforge_file(ctx)
    sources = run.network.route(ctx, ["miniforge"]).of("miniforge")
    digest = ctx.knobs.source_miniforge_sha256 or load_rules().miniforge.sha256
    tries = "".join(f"""[ -n "$got" ] || {{
  if (
{network.turbo(ctx, source.url or "")}{download(f"{(source.url or '').rstrip('/')}/{name}", '"$work/installer.sh"')}
  ); then
    if echo "{digest}  $work/installer.sh" | sha256sum -c --quiet -; then got=1
    else said={shlex.quote(f"{name} from {source.url} isn't the file that is expected: check source_miniforge")}; fi
  fi
}}
""" for source in sources)
    # Conda knows its prefix by heart, so it can't be made elsewhere and moved. What marks it as unfinished stands
    # beside it: the probe passes over such a prefix (facts/_conda.py), however sound it looks, and we begin anew.
    yield job(step, f"""{exports(ctx)}{network.proxies(ctx)}prefix={shlex.quote(step.data["prefix"])}
work=$prefix.{UNFINISHED}
clear() {{ [ ! -e "$work/begun" ] || rm -rf "$prefix"; rm -rf "$work"; }}
clear
if "$prefix/bin/conda" --version 2>/dev/null; then exit 0; fi # another run has made it since we looked
trap clear EXIT
mkdir -p "$work"
got='' said=''
{tries}[ -n "$got" ] || {{ [ -z "$said" ] || echo "qwen-rig: $said"; exit 1; }}
if [ -e "$prefix" ]; then # no conda, and not ours: kept, under another name
  old=$prefix.before-qwen-rig n=1
  while [ -e "$old" ]; do n=$((n + 1)) old=$prefix.before-qwen-rig-$n; done
  mv "$prefix" "$old"
fi
: > "$work/begun"
bash "$work/installer.sh" -b -p "$prefix"
"$prefix/bin/conda" --version
rm "$work/begun"
""", ctx.knobs.timeout_env)


def download(url: str, target: str) -> str:
    """A shell line that fetches a URL with curl or wget, or with apt's own downloader where neither is there."""
    quoted = shlex.quote(url)
    return (f"if command -v curl >/dev/null; then curl -fsSL --retry 2 --connect-timeout 30 --speed-time 60 "
            f"--speed-limit 1000 -o {target} {quoted}\n"
            f"elif command -v wget >/dev/null; then wget -q --tries=2 --timeout=60 -O {target} {quoted}\n"
            f"else /usr/lib/apt/apt-helper -o Acquire::http::Timeout=60 download-file {quoted} {target}\nfi")
