"""Every conda on the host, by its files: conda may be slow or broken, and is never run. Pure: knows no pyinfra."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

from qwen_rig import strictjson
from qwen_rig.facts import _condarc, _dist, _paths, _sh

RECORDS = ("env", "flash_attn", "verification", "training", "prefetch")
FORMER = {"verify": "verification"}  # a record by its name in release 0.1.0; read where there is none by today's name
BESIDE = ("accelerate.yaml", "train_qwen.py")  # our files in .rig that are no records: their digests are brought


UNFINISHED = "unfinished-qwen-rig"  # PREFIX.UNFINISHED/begun: our installer was at work there, and hasn't ended
OURS = ".qwen-rig-installed"  # in a conda's prefix that our installer made
PLACE = "qwen-rig"  # our folder on a data disk: envs/, miniforge3/, caches


NUMBER = "([1-9][0-9]{0,8})"  # which build of its lock a generation is
GENERATION = re.compile(rf"\..+-[0-9a-f]{{12}}-{NUMBER}", re.ASCII)  # `.ENV-LOCK-NUMBER`
_NAME = re.compile(r"\w[\w.+~@-]{0,127}")  # an env's, as conda lets one be called

# What of a conda, and of an env, is run, read as configuration or written to.
PARTS = r"""
conda_parts() { # PREFIX
  there "$1" "$1/bin" "$1/bin/conda" "$1/conda-meta" "$1/condabin" "$1/envs" "$1/pkgs" "$1/lib" "$1/.condarc" \
    "$1/condarc" "$1/condarc.d"
}
env_parts() { there "$1" "$1/bin" "$1/bin/python" "$1/conda-meta" "$1/lib" "$1/.rig" "$1/pip.conf"; }
library_parts() { # PREFIX: once that is known to be ours alone
  there "$1"/lib/python3.* "$1"/lib/python3.*/site-packages "$1"/lib/python3.*/site-packages/*.pth \
    "$1"/lib/python3.*/site-packages/sitecustomize.py "$1"/.rig/*.json "$1"/.rig/*.py "$1"/.rig/*.yaml
}
fit_tree() { # KIND PREFIX PARTS: what is inside is listed only where nobody else can put a name there
  "$3" "$2"
  IFS=$nl
  set -f; fit "$1" "$2" $found || { unset IFS; set +f; return 1; }
  set +f; library_parts "$2"; set -f
  fit "$1" "$2" $found; set -- $?
  unset IFS; set +f
  return "$1"
}
interpreter() { # PREFIX: $i, what bin/conda starts: its #! line, or the exec below it where the path was too long
  one='' two=''
  { read -r one; read -r two; } <"$1/bin/conda"
  case $one in
    '#!'*/bin/env\ *) i=$1/bin/python ;;
    '#!'*python*) i=${one#??}; i=${i# }; i=${i%% -*} ;;
    *) case $two in
         *exec*) i=${two#*exec*\"}; i=${i%%\"*}; [ -n "$i" ] || i=$1/bin/python ;;
         *) i=${one#??}; i=${i# } ;; # a script of another kind starts what its first line names
       esac ;;
  esac
  case $i in /*) ;; *) i=$1/bin/none ;; esac
}
"""


def find(conda_prefix: str | None, data_dir: str | None = None) -> str:
    """Shell that leaves in $condas one prefix a line, each real folder once, the asked-for one first; and in $places
    our folders on data disks, that of `data_dir` first: of both, those that are ours alone.
    """
    first = shlex.quote((conda_prefix or "").rstrip("/"))
    return _paths.SHELL + PARTS + _condarc.SHELL + _paths.places(data_dir) + rf"""
condas= unfit= seen=:
[ -z {first} ] || look place {first} {first}
conda=$(command -v conda) && conda=$(readlink -f "$conda")
case $conda in */bin/conda | */condabin/conda) conda=${{conda%/*/conda}} ;; *) conda= ;; esac
IFS=$nl; set -f
set -- {first} "${{CONDA_EXE%/bin/conda}}" \
  $conda \
  "$HOME/miniforge3" "$HOME/miniforge3-qwen-rig" \
  $(for p in $places; do echo "$p/miniforge3"; done) \
  "$HOME/miniconda3" "$HOME/anaconda3" "$HOME/mambaforge" /opt/conda /opt/miniforge3 \
  /opt/miniconda3 /opt/anaconda3 /root/miniforge3 /root/miniconda3 \
  $(while read -r e || [ -n "$e" ]; do
    [ -x "$e/bin/conda" ] && echo "$e"
    case $e in (*/envs/*) echo "${{e%/envs/*}}" ;; esac
  done <"$HOME/.conda/environments.txt")
unset IFS; set +f
for p do
  [ -n "$p" ] && [ -d "$p/conda-meta" -o -e "$p/bin/conda" ] && [ ! -e "$p.{UNFINISHED}/begun" ] || continue
  case $seen in *:"$p":*) continue ;; esac
  r=$(cd -P "$p" && pwd)
  case $seen in *:"$r":*) continue ;; esac
  seen=$seen$p:$r:
  if fit_tree conda "$p" conda_parts && interpreter "$p" && fit conda "$p" "$i"; then condas=$condas$p$nl
  else unfit=$unfit$p$nl; fi
done
IFS=$nl; set -f; condarc $(condarc_files "${{condas%%"$nl"*}}"); unset IFS; set +f
"""


SECTIONS = {
    "conda": rf"""
IFS=$nl
for p in $condas; do
  printf '##conda %s\n' "$p"
  for f in "$p"/conda-meta/conda-[0-9]*.json "$p"/conda-meta/anaconda-[0-9]*.json; do
    [ -e "$f" ] && printf 'record=%s\n' "${{f##*/}}" && channel=$f
  done
  [ -n "$channel" ] && grep -qs conda-forge "$p"/conda-meta/conda-[0-9]*.json && echo channel=conda-forge
  [ -n "$channel" ] && grep -qs -E 'pkgs/main|repo\.anaconda' "$p"/conda-meta/conda-[0-9]*.json && echo channel=main
  channel=
  interpreter "$p"
  if [ -e "$p.{UNFINISHED}/mending" ]; then echo mending=1
  elif [ -x "$p/bin/conda" ] && [ -x "$i" ]; then echo sound=1
  elif [ -e "$p/{OURS}" ]; then echo ours=1; fi
  [ -w "$p" ] && [ -w "$p/conda-meta" ] && echo writable=1
  for e in "$p"/envs/*; do [ -x "$e/bin/python" -o -d "$e/conda-meta" ] && printf 'env=%s\n' "${{e##*/}}"; done
done
""",
}


def find_envs(env_name: str) -> str:
    """Shell that leaves in $envs each env of that name, and in $generations its generations and what else bears its
    name, a line each: those that are ours alone."""
    name = shlex.quote(env_name)
    return rf"""
envs= generations=
IFS=$nl
for p in $unfit $unfit_places; do [ ! -e "$p/envs/"{name} ] || look env "$p/envs/"{name} "$p/envs/"{name}; done
set -- $(envs_dirs; for p in $places $condas; do echo "$p/envs"; done) "$HOME/.conda/envs"
unset IFS
looked=:
for d do
  case $looked in *:"$d":*) continue ;; esac
  looked=$looked$d:
  [ -d "$d" ] && owned "$d" || {{ [ ! -e "$d/"{name} ] || look env "$d/"{name} "$d"; continue; }}
  e=$d/{name}
  if [ -L "$e" ] && {{ [ -n "$envs" ] || [ ! -e "$e" ]; }}; then
    case $(readlink "$e") in */{PLACE}/envs/{name}) e= ;; esac # conda's name for the one on a data disk
  fi
  if [ -L "$e" ] || [ -d "$e" ]; then
    fit_tree env "$e" env_parts && envs=$envs$e$nl
  fi
  for g in "$d"/.{name}-* "$d"/{name}; do # the last: an env that somebody else made, where it is no link
    [ -d "$g" ] && [ ! -L "$g" ] || continue
    if [ "$g" != "$e" ]; then
      number=${{g##*-}} lock=${{g##*/.{name}-}}
      lock=${{lock%-*}}
      case $lock-$number in *[!0-9a-f-]*) continue ;; esac
      case $lock$number in *-*) continue ;; esac
      case $number in '' | 0* | *[!0-9]*) continue ;; esac
      [ ${{#lock}} -eq 12 ] && [ ${{#number}} -le 9 ] || continue
    fi
    fit_tree env "$g" env_parts && generations=$generations$g$nl
  done
done
"""


def env_sections() -> dict[str, str]:
    """Sections on the envs and generations that `find_envs` found."""
    records = " ".join([*RECORDS, *FORMER])
    return {
        "env": f"""{_dist.SHELL}
IFS=$nl
for e in $envs; do env_files "$e"; done""",
        "generations": rf"""{_dist.SHELL}
IFS=$nl
for g in $generations; do
  gone=$(gone "$g") linked=
  for e in $envs; do [ ! "$e" -ef "$g" ] || linked=1; done # that one is held to conda's record above
  [ -n "$gone$linked" ] || gone=$(base "$g")
  printf '##generation %s\n##gone %s\n' "$g" "$gone"
  IFS=' '
  for f in {" ".join(BESIDE)}; do
    [ -f "$g/.rig/$f" ] && d=$(sha256sum <"$g/.rig/$f") && printf '##beside %s %s\n' "$f" "${{d%% *}}"
  done
  # A prefetched model is whole where no link of its snapshot leads nowhere.
  s=
  [ ! -f "$g/.rig/prefetch.json" ] || s=$(sed -n 's/^ *"snapshot": "\(.*\)",*$/\1/p' "$g/.rig/prefetch.json")
  [ -n "$s" ] && [ -d "$s" ] && [ -z "$(find -L "$s" -type l)" ] && printf '##beside snapshot whole\n'
  set --
  for r in {records}; do
    if [ -s "$g/.rig/$r.json" ]; then set -- "$@" "$g/.rig/$r.json"
    elif [ -f "$g/.rig/$r.json" ]; then printf '##record %s\n' "$r"; fi
  done
  [ $# -eq 0 ] || awk -v most={strictjson.LARGEST + 1} '
    FNR == 1 {{ n = split(FILENAME, at, "/"); sub(/\.json$/, "", at[n]); printf "##record %s\n", at[n]; size = 0 }}
    size < most {{ print "|" substr($0, 1, most - size); size += length($0) + 1 }}' "$@"
done""",
    }


def read(text: str) -> list[dict[str, Any]]:
    """`{prefix, version, kind, sound, writable, envs}` of each installation, in the order found, and `ours` of a broken
    one that our installer made."""
    found = []
    for block in re.split(r"^##conda ", text, flags=re.MULTILINE)[1:]:
        prefix, _, rest = block.partition("\n")
        if not (prefix.startswith("/") and prefix.isprintable()):
            continue
        fields = _sh.pairs(rest)
        lines = rest.split("\n")
        record = next((m for line in lines if (m := re.match(r"record=conda-(\d[\w.]*)-", line))), None)
        kind = ("anaconda" if any(line.startswith("record=anaconda-") for line in lines)
                else {"conda-forge": "miniforge", "main": "miniconda"}.get(fields.get("channel", ""), "unknown"))
        found.append({
            "prefix": prefix.strip(), "version": record[1] if record else None, "kind": kind,
            "sound": "sound" in fields and record is not None, "writable": "writable" in fields,
            **({"ours": True} if "ours" in fields else {}),
            "envs": ["base", *(line[4:] for line in lines if line.startswith("env=") and _NAME.fullmatch(line[4:]))],
        })
    return found


def read_generations(text: str) -> tuple[list[dict[str, Any]], str | None]:
    """Each generation with what of it is `gone`, its records and the digests of what lies `beside` them; and one line
    on the first record that is no JSON (it reads as None)."""
    found, problem = [], None
    for block in re.split(r"^##generation ", text, flags=re.MULTILINE)[1:]:
        head, *records = re.split(r"^##record ", block, flags=re.MULTILINE)
        path, *lines = head.strip().split("\n")
        records.sort(key=lambda record: record.partition("\n")[0].strip() in FORMER)
        parsed: dict[str, Any] = dict.fromkeys(RECORDS)
        seen = set()
        for record in records:
            file, _, body = record.partition("\n")
            body = "\n".join(line.removeprefix("|") for line in body.split("\n"))
            kind = FORMER.get(file.strip(), file.strip())
            if kind in seen or kind not in RECORDS:  # by today's name, where it has both
                continue
            seen.add(kind)
            parsed[kind], why = strictjson.parse(body)
            if why:
                problem = problem or f"{path}/.rig/{file.strip()}.json: {why}"
            if file.strip() in FORMER and isinstance(parsed[kind], dict):
                parsed[kind]["file"] = f"{file.strip()}.json"
        name = path.rpartition("/")[2]
        if not (GENERATION.fullmatch(name) or (_NAME.fullmatch(name))):
            continue
        words = [line.split() for line in lines if line.startswith("##beside ")]
        gone = next((_dist.lacks(line[7:]) for line in lines if line.startswith("##gone ")), None)
        found.append({"name": name, "path": path, "complete": parsed["env"] is not None, "gone": gone,
                      "records": parsed, "beside": {row[1]: row[2] for row in words if len(row) == 3}})
    return found, problem


def arrange(condas: list[dict[str, Any]], envs: list[dict[str, Any]], conda_prefix: str | None,
            data_dir: str | None = None, envs_dirs: Sequence[str] = ()
            ) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The conda that holds the env first, and that env.

    One in `envs_dirs` (those of .condarc) is what `conda activate` takes, whatever lies elsewhere by the same name.

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
    named = next((e for at in envs_dirs for e in envs if e["path"].rpartition("/")[0] == at), None)
    if named:
        return ordered, named
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
