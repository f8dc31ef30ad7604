"""The host's part: one small file from each candidate, timed and hashed, by POSIX sh and curl or wget. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from qwen_rig.catalog.lock import Requirement
from qwen_rig.network.limits import load_limits
from qwen_rig.network.route import DEFAULT, Measured, Source


@dataclass(frozen=True)
class Probe:
    """The locked package that an index is judged by; any file of it whose sha256 the lock has will do."""

    project: str
    version: str
    hashes: tuple[str, ...]


def probe_of(packages: Mapping[str, Requirement]) -> Probe | None:
    """The largest of these that is still small; None where no size is known."""
    largest = load_limits().measure_largest_bytes
    small = [(r.bytes, name) for name, r in packages.items() if r.bytes and r.bytes <= largest]
    if not small:
        return None
    name = max(small)[1]
    found = packages[name]
    return Probe(name, found.version, tuple(each.removeprefix("sha256:") for each in found.hashes))


# A row is role, label, bytes, milliseconds and verdict, with tabs between.
_FUNCTIONS = r"""
get() { # url file [range]
  if command -v curl >/dev/null 2>&1; then
    curl -fsSL --connect-timeout $limit --max-time $limit ${3:+-r "$3"} -w '%{url_effective}' -o "$2" "$1" \
      >"$2.url" 2>"$2.err"
  elif command -v wget >/dev/null 2>&1; then
    printf '%s' "$1" >"$2.url"
    timeout -k 1 $limit wget -q --tries=1 ${3:+--header="Range: bytes=$3"} -O "$2" "$1" 2>"$2.err"
  else
    echo "unmeasured" >"$2.err"; return 99
  fi
}
ms() { n=$(date +%s%N); case $n in *N) n=${n%N}000000000 ;; esac; echo $((n / 1000000)); }
link() { # page-file page-url version hash…: the address of a locked file on an index page, by hash, else by version
  page=$1 from=$2 version=$3; shift 3
  tr '<>' '\n\n' <"$page" | sed -n 's/^a .*href="\([^"]*\)".*/\1/p' >"$page.links"
  href=
  for hash in "$@"; do href=$(grep -F "$hash" "$page.links" | head -n 1); [ -z "$href" ] || break; done
  [ -n "$href" ] || href=$(grep -v 'sha256=' "$page.links" | grep -F -e "-$version-" -e "-$version.tar" | head -n 1)
  [ -n "$href" ] || return 1
  href=$(printf '%s' "${href%%#*}" | sed 's/&amp;/\&/g')
  rest=${from#*://} origin=${from%%://*}; origin=$origin://${rest%%/*}
  case $href in
    *://*) printf '%s' "$href" ;;
    //*) printf '%s' "${from%%:*}:$href" ;;
    /*) printf '%s' "$origin$href" ;;
    *) printf '%s' "${from%/*}/$href" ;;
  esac
}
row() { # role label url [project version hash…]
  role=$1 label=$2 url=$3 f=$dir/$1.$2 range=0-1048575 verdict=ok; shift 3
  if [ $# -gt 0 ]; then
    range=
    if ! get "${url%/}/$1/" "$f.page"; then
      say 0 1 "$(tail -n 1 "$f.page.err")"; return
    fi
    project=$1 version=$2; shift 2
    url=$(link "$f.page" "$(cat "$f.page.url")" "$version" "$@") || {
      say 0 1 "it has no $project $version with a locked hash"; return; }
  fi
  start=$(ms)
  get "$url" "$f" "$range"; code=$?
  took=$(($(ms) - start))
  bytes=$(wc -c <"$f" 2>/dev/null || echo 0)
  if [ $code = 0 ]; then
    got=$(sha256sum <"$f")
    case " $* " in "  "|*" ${got%% *} "*) ;; *) verdict=lies ;; esac
  elif [ $code = 28 ] || [ $code = 124 ]; then
    verdict=slow; [ $bytes -gt 0 ] || verdict="no answer within $limit s"
  else
    verdict=$(tail -n 1 "$f.err"); verdict=${verdict:-failed with exit $code}
  fi
  say $((bytes + 0)) $((took + 0)) "$verdict"
}
say() { printf '%s\t%s\t%s\t%s\t%s\n' "$role" "$label" "$1" "$2" "$(printf '%s' "$3" | tr '\t' ' ')"; }
good() { # out-file: whether this default needs no rival
  IFS='	' read -r _ _ bytes took verdict <"$1" || return 1
  [ "$verdict" = ok ] && [ $((bytes * 1000 / (took + 1))) -ge $enough ]
}
"""


def script(found: Mapping[str, tuple[Source, ...]], probe: Probe | None, files: Mapping[str, str],
           channels: Mapping[str, str], aside: Callable[[str], str] = lambda url: "") -> str:
    """A script that prints a row for each source it could ask: the defaults first, all at once, and the mirrors of a
    role only where its default isn't good. A default of unknown address is not asked.

    files: role → the file below its address that is fetched; channels: a channel's name → its address; aside: what a
    subshell runs before it fetches from an address.
    """
    limits = load_limits()
    first: list[str] = []
    rest: list[str] = []
    for role, sources in found.items():
        rivals: list[str] = []
        for source in sources:
            words = _words(source, probe, files, channels)
            if words is None:
                continue
            row = " ".join(shlex.quote(word) for word in words)
            line = f'( {aside(words[2])}set +e; row {row} ) >"$dir/{role}.{source.label}.row" &'
            (first if source.label == DEFAULT else rivals).append(line)
        if rivals:
            rest += [f'if ! good "$dir/{role}.{DEFAULT}.row" 2>/dev/null; then', *rivals, "fi"]
    return "\n".join([
        f"set +e\nlimit={limits.measure_seconds} enough={limits.measure_enough_bytes_s}",
        "dir=$(mktemp -d) || exit 1\ntrap 'rm -rf \"$dir\"' EXIT", _FUNCTIONS.strip(), *first, "wait", *rest, "wait",
        'cat "$dir"/*.row 2>/dev/null', "exit 0", ""])


def _words(source: Source, probe: Probe | None, files: Mapping[str, str], channels: Mapping[str, str],
           ) -> list[str] | None:
    if source.url is None:
        return None
    url = channels.get(source.url, source.url).rstrip("/")
    if source.role == "pip_index":
        return [source.role, source.label, url, probe.project, probe.version, *probe.hashes] if probe else None
    return [source.role, source.label, f"{url}/{files[source.role]}"] if source.role in files and "://" in url else None


def read(text: str) -> list[Measured]:
    """The rows that the script printed; a line that isn't one is passed over."""
    rows = []
    for line in text.splitlines():
        cells = line.split("\t")
        if len(cells) == 5 and cells[2].isdigit() and cells[3].lstrip("-").isdigit() and cells[4] != "unmeasured":
            rows.append(Measured(cells[0], cells[1], int(cells[2]), int(cells[3]), cells[4].strip() or "failed"))
    return rows
