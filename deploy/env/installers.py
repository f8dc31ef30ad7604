"""Shell that installs a lock: by uv where it can be had, else by pip; from the best source, and from the next where one
fails or serves other bytes than the lock's."""

from __future__ import annotations

import shlex
from importlib.resources import files
from urllib.parse import urlsplit

from qwen_rig.catalog.torch_index import Apart
from qwen_rig.network.route import Source, torch_sources
from qwen_rig.plan import Context
from qwen_rig.run import network
from qwen_rig.run.place import exports
from qwen_rig.run.run import Run


def uv_lock() -> str:
    """The lock of the installer itself: one line, `uv==VERSION` and the hashes of its Linux x86_64 wheels."""
    return (files("qwen_rig.data") / "locks" / "uv.lock.txt").read_text()


def options(source: Source, uv: bool = False) -> str:
    """pip's (or uv's) options that name a source. A plain-http one is the user's own choice: hashes guard the bytes.
    Empty for the client's own default."""
    if source.url is None:
        return ""
    named = "--no-index --find-links" if source.role == "torch_find_links" else "--index-url"
    words = f"{named} {shlex.quote(source.url)}"
    if source.url.startswith("http://"):
        host = shlex.quote(urlsplit(source.url).hostname or "")
        words += f" {'--allow-insecure-host' if uv else '--trusted-host'} {host}"
    return words


def installers(run: Run, ctx: Context) -> str:
    """Shell functions; `packages PYTHON LOCK …` installs a lock and sets installer, source and refused.

    source: the label of the source that served; refused: `label:why` of those that didn't, before it.
    """
    lock, route = uv_lock(), run.network.route(ctx, ["pip_index"])
    version = lock.split("==", 1)[1].split()[0]
    sources = route.of("pip_index")
    labels = " ".join(source.label for source in sources)
    pip, uv = ("\n".join(f"    {source.label}) {command} {options(source, by_uv)} \"$@\" ;;"
                         for source in sources)
               for command, by_uv in (('"$python" -m pip install -q', False), ('"$uv" pip install -q', True)))
    return f"""{exports(ctx)}{network.proxies(ctx)}
cache=${{XDG_CACHE_HOME:-$HOME/.cache}}/qwen-rig
uv=$cache/uv-{version}/bin/uv
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore UV_NO_PROGRESS=1 UV_HTTP_TIMEOUT=120
by_pip() {{ # source, then pip's own arguments
  from=$1; shift
  case $from in
{pip}
  esac
}}
by_uv() {{
  from=$1; shift
  case $from in
{uv}
  esac
}}
get_uv() {{
  [ {ctx.knobs.installer} != pip ] || return 1
  [ -x "$uv" ] && "$uv" --version >/dev/null 2>&1 && return 0
  mkdir -p "$cache" && printf '%s' {shlex.quote(lock)} > "$cache/uv.txt" || return 1
  for from in {labels}; do
    rm -rf "$cache/uv.new"
    by_pip "$from" --timeout 30 --require-hashes --no-deps --target "$cache/uv.new" -r "$cache/uv.txt" || continue
    rm -rf "${{uv%/bin/uv}}" && mv "$cache/uv.new" "${{uv%/bin/uv}}" && return 0
  done
  return 1
}}
configured() {{ # uv doesn't read pip's configuration: where no source is named, both shall ask the same index
  [ -z "${{UV_DEFAULT_INDEX:-}}${{UV_INDEX_URL:-}}" ] || return 0
  UV_DEFAULT_INDEX=${{PIP_INDEX_URL:-$("$python" -m pip config get global.index-url 2>/dev/null || :)}}
  if [ -n "$UV_DEFAULT_INDEX" ]; then export UV_DEFAULT_INDEX; else unset UV_DEFAULT_INDEX; fi
}}
packages() {{ # python lock [options]
  python=$1 lock=$2 refused=''; shift 2
  configured
  if get_uv; then installer="uv {version}" by=by_uv where="--python $python"
  elif [ {ctx.knobs.installer} = uv ]; then
    echo "qwen-rig: uv {version} can't be had and installer=uv: set installer=auto, or check source_pip_index"
    exit 1
  else installer=pip by=by_pip where="--timeout 60"
  fi
  for source in {labels}; do
    if $by "$source" $where --require-hashes "$@" -r "$lock" >"$cache/said.$$" 2>&1; then
      cat "$cache/said.$$"; rm -f "$cache/said.$$"
      return 0
    fi
    cat "$cache/said.$$"
    if grep -qi 'hash' "$cache/said.$$"; then why='other bytes than the lock names'; else why='failed'; fi
    rm -f "$cache/said.$$"
    refused="$refused$source:$why;"
    echo "source $source: $why"
  done
  exit 1
}}
"""


def torch_apart(ctx: Context, apart: Apart | None) -> str:
    """The torch packages from an index of their own, by the installer that the rest came by; nothing where they're
    in the lock. Mirrors of that index stand by only where hashes of ours guard the bytes."""
    if apart is None:
        return ""
    more = (" --require-hashes" if apart.hashed else "") + ("" if apart.deps else " --no-deps")
    pip, uv = ("--pre", "--prerelease allow") if apart.pre else ("", "")
    sources = torch_sources(ctx, apart)
    python, torch = '"$new/bin/python"', '-r "$torch"'
    by_pip = " || ".join(f"{python} -m pip install -q --timeout 60 {options(source)}{more} {pip} {torch}"
                         for source in sources)
    by_uv = " || ".join(f'"$uv" pip install -q --python {python} {options(source, True)}{more} {uv} {torch}'
                        for source in sources)
    return f"""
torch=$new/.rig/torch.txt
printf '%s' {shlex.quote(apart.requirements)} > "$torch"
if [ "$installer" = pip ]; then {by_pip}
else {by_uv}
fi"""
