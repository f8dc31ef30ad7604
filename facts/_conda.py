"""Every conda on the host, by its files: conda may be slow or broken, and is never run. Pure: knows no pyinfra."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from qwen_rig import hosttext
from qwen_rig.facts import _disk, _dist, _sh

RECORDS = ("env", "flash_attn", "verification", "training", "prefetch")
FORMER = {"verify": "verification"}  # a record by its name in release 0.1.0; read where there is none by today's name
BESIDE = ("accelerate.yaml", "train_qwen.py")  # files of ours in .rig that are no records: their digests are brought


UNFINISHED = "unfinished-qwen-rig"  # PREFIX.UNFINISHED/begun: our installer was at work there, and hasn't ended
PLACE = "qwen-rig"  # our folder on a data disk: envs/, miniforge3/, caches


def find(conda_prefix: str | None, data_dir: str | None = None) -> str:
    """Shell that leaves in $condas one prefix a line, each real folder once, the asked-for one first; and in $places
    our folders on data disks, that of `data_dir` first.
    """
    first = shlex.quote((conda_prefix or "").rstrip("/"))
    asked = shlex.quote(f"{data_dir.rstrip('/')}/{PLACE}" if data_dir else "")
    return rf"""
places=$([ -d {asked} ] && echo {asked}
  while read -r device m type rest; do
    case $type in {_disk.NETWORK}) continue ;; esac
    [ "$m/{PLACE}" != {asked} ] && [ -d "$m/{PLACE}" ] && printf '%s\n' "$m/{PLACE}"
  done </proc/self/mounts)
condas= seen=:
conda=$(command -v conda); conda=$(readlink -f "${{conda:-/}}")
nl='
'
IFS=$nl; set -f
for p in {first} "${{CONDA_EXE%/bin/conda}}" \
  $(case $conda in (*/bin/conda|*/condabin/conda) echo "${{conda%/*/conda}}" ;; esac) \
  "$HOME/miniforge3" "$HOME/miniforge3-qwen-rig" \
  $(for p in $places; do echo "$p/miniforge3"; done) \
  "$HOME/miniconda3" "$HOME/anaconda3" "$HOME/mambaforge" /opt/conda /opt/miniforge3 \
  /opt/miniconda3 /opt/anaconda3 /root/miniforge3 /root/miniconda3 \
  $(while read -r e || [ -n "$e" ]; do
    [ -x "$e/bin/conda" ] && echo "$e"
    case $e in (*/envs/*) echo "${{e%/envs/*}}" ;; esac
  done <"$HOME/.conda/environments.txt")
do
  [ -n "$p" ] && [ -d "$p/conda-meta" -o -e "$p/bin/conda" ] && [ ! -e "$p.{UNFINISHED}/begun" ] || continue
  r=$(cd -P "$p" && pwd)
  case $seen in *:"$r":*) ;; *) seen=$seen$r:; condas=$condas$p$nl ;; esac
done
set +f; unset IFS
"""


SECTIONS = {
    "conda": r"""
IFS='
'
for p in $condas; do
  printf '##conda %s\n' "$p"
  for f in "$p"/conda-meta/conda-[0-9]*.json "$p"/conda-meta/anaconda-[0-9]*.json; do
    [ -e "$f" ] && printf 'record=%s\n' "${f##*/}" && channel=$f
  done
  [ -n "$channel" ] && grep -qs conda-forge "$p"/conda-meta/conda-[0-9]*.json && echo channel=conda-forge
  [ -n "$channel" ] && grep -qs -E 'pkgs/main|repo\.anaconda' "$p"/conda-meta/conda-[0-9]*.json && echo channel=main
  channel=
  # The interpreter that bin/conda starts: its #! line, or the exec below it where the path was too long for that.
  { read -r one; read -r two; } <"$p/bin/conda"
  case $one in
    '#!'*/bin/env\ *) i=$p/bin/python ;;
    '#!'*python*) i=${one#??}; i=${i# }; i=${i%% -*} ;;
    *) case $two in
         *exec*) i=${two#*exec*\"}; i=${i%%\"*}; [ -n "$i" ] || i=$p/bin/python ;;
         *) i=${one#??}; i=${i# } ;; # a script of another kind starts what its first line names
       esac ;;
  esac
  one= two=
  [ -x "$p/bin/conda" ] && [ -x "$i" ] && echo sound=1
  [ -w "$p" ] && [ -w "$p/conda-meta" ] && echo writable=1
  for e in "$p"/envs/*; do [ -x "$e/bin/python" -o -d "$e/conda-meta" ] && printf 'env=%s\n' "${e##*/}"; done
done
""",
}


def env_sections(env_name: str) -> dict[str, str]:
    """Sections on one env by name, in every conda and in ~/.conda/envs, and on its generations beside it."""
    name = shlex.quote(env_name)
    records = " ".join([*RECORDS, *FORMER])
    each = r"""IFS='
'
for d in $(for p in $places $condas; do echo "$p/envs"; done) "$HOME/.conda/envs"; do"""
    return {
        "env": f"""{_dist.SHELL}
{each}
  e=$d/{name}
  if [ -L "$e" ] || [ -d "$e" ]; then env_files "$e"; fi
done""",
        "generations": rf"""{each}
  for g in "$d"/.{name}-* "$d"/{name}; do # the last: an env that somebody else made, where it is no link
    [ -d "$g" ] && [ ! -L "$g" ] || continue
    printf '##generation %s\n' "$g"
    IFS=' '
    for f in {" ".join(BESIDE)}; do
      [ -f "$g/.rig/$f" ] && d=$(sha256sum <"$g/.rig/$f") && printf '##beside %s %s\n' "$f" "${{d%% *}}"
    done
    # A prefetched model is whole where no link of its snapshot leads nowhere.
    s=$(sed -n 's/^ *"snapshot": "\(.*\)",*$/\1/p' "$g/.rig/prefetch.json")
    [ -n "$s" ] && [ -d "$s" ] && [ -z "$(find -L "$s" -type l)" ] && printf '##beside snapshot whole\n'
    for r in {records}; do
      [ -f "$g/.rig/$r.json" ] && printf '##record %s\n' "$r" && cat "$g/.rig/$r.json" && echo
    done
  done
done""",
    }


def read(text: str) -> list[dict[str, Any]]:
    """`{prefix, version, kind, sound, writable, envs}` of each installation, in the order found."""
    found = []
    for block in re.split(r"^##conda ", text, flags=re.MULTILINE)[1:]:
        prefix, _, rest = block.partition("\n")
        fields = _sh.pairs(rest)
        lines = rest.splitlines()
        record = next((m for line in lines if (m := re.match(r"record=conda-(\d[\w.]*)-", line))), None)
        kind = ("anaconda" if any(line.startswith("record=anaconda-") for line in lines)
                else {"conda-forge": "miniforge", "main": "miniconda"}.get(fields.get("channel", ""), "unknown"))
        found.append({
            "prefix": prefix.strip(), "version": record[1] if record else None, "kind": kind,
            "sound": "sound" in fields and record is not None, "writable": "writable" in fields,
            "envs": ["base", *(line[4:] for line in lines if line.startswith("env="))],
        })
    return found


def read_generations(text: str) -> tuple[list[dict[str, Any]], str | None]:
    """Each generation with its records and the digests of what lies `beside` them; and one line on the first record
    that is no JSON (it reads as None)."""
    found, problem = [], None
    for block in re.split(r"^##generation ", text, flags=re.MULTILINE)[1:]:
        path, *records = re.split(r"^##record ", block, flags=re.MULTILINE)
        parsed: dict[str, Any] = dict.fromkeys(RECORDS)
        seen = set()
        for record in records:
            file, _, body = record.partition("\n")
            name = FORMER.get(file.strip(), file.strip())
            if name in seen:  # by today's name: the former ones come last
                continue
            seen.add(name)
            try:
                parsed[name] = hosttext.value(json.loads(body))
            except ValueError as error:
                problem = problem or f"{path.strip()}/.rig/{file.strip()}.json: {error}"
            if file.strip() in FORMER and isinstance(parsed[name], dict):
                parsed[name]["file"] = f"{file.strip()}.json"
        path, *lines = path.strip().splitlines()
        words = [line.split() for line in lines if line.startswith("##beside ")]
        found.append({"name": path.rpartition("/")[2], "path": path, "complete": "env" in seen, "records": parsed,
                      "beside": {row[1]: row[2] for row in words if len(row) == 3}})
    return found, problem


def arrange(condas: list[dict[str, Any]], envs: list[dict[str, Any]], conda_prefix: str | None,
            data_dir: str | None = None) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The conda that holds the env first, and that env.

    Whoever looks for "the" conda takes the first sound one, and so meets the env that is there. Where a prefix is
    asked for, only its env counts, or the one in ~/.conda/envs (conda's own place beside a read-only prefix). One on
    a data disk was put there by us, for want of room elsewhere: it comes first; where such a disk is asked for, only
    what lies there counts.
    """
    placed = next((e for e in envs if f"/{PLACE}/envs/" in e["path"]), None)
    home = {conda["prefix"]: next((e for e in envs if e["path"].startswith(conda["prefix"] + "/envs/")), None)
            for conda in condas}
    ordered = sorted(condas, key=lambda c: (c["prefix"] != (conda_prefix or "").rstrip("/"),
                                            not (c["sound"] and home[c["prefix"]])))
    if data_dir:
        root = f"{data_dir.rstrip('/')}/{PLACE}/envs/"
        return ordered, next((e for e in envs if e["path"].startswith(root)), None)
    if placed and not conda_prefix:
        return ordered, placed
    for conda in ordered:
        if conda["sound"] and conda["writable"] and (env := home[conda["prefix"]]):
            return ordered, env
        if conda_prefix:
            break
    beside = next((e for e in envs if not any(e["path"].startswith(p + "/envs/") for p in home)), None)
    if beside or conda_prefix:
        return ordered, beside
    if any(conda["sound"] for conda in ordered):
        return ordered, None
    return ordered, next((env for env in home.values() if env), None)
