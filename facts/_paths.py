"""Whose the paths are that we would run, read as configuration or write to. Pure: knows no pyinfra.

The probe's shell passes over what isn't ours alone (shell/owned.sh), so that nothing in a stranger's folder is read or
listed; and the same components are brought here, where qwen_rig/trust.py decides and can say why.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from qwen_rig.facts import _disk
from qwen_rig.frozen import frozen
from qwen_rig.trust import MEMORY, Entry, Fault, Tree, fault

ROOT, OWN, CONDA, ENV, PLACE, SCRIPT, MODELS = "root", "own", "conda", "env", "place", "script", "models"
KEPT = (CONDA, ENV, PLACE)  # what must not lie in memory, as it shall be there after a reboot

# `look KIND SUBJECT PATH…` notes the paths that a subject depends on, and `fit` says whether every path is ours
# alone. A name with a control character in it is looked at no further: the subject falls by it.
SHELL = r"""
us
asked='' chains=''
look() {
  kind=$1 subject=$2 list='' parts='' beside=+
  shift 2
  for path do
    case $path in
      *[[:cntrl:]]*) path="$subject/?" list=$list$nl!$path ;;
      *) add "$path" ;;
    esac
    asked=$asked$nl$kind$tab$subject$tab$path
  done
  chains=$chains$parts
}
fit() { look "$@"; judge; [ -z "$fault" ]; }
owned() { gather "$@"; judge; [ -z "$fault" ]; } # in this shell: nothing here uses a variable of the same name
there() { # PATH…: $found, those that are there, a line each
  found=''
  for path do [ ! -e "$path" ] && [ ! -L "$path" ] || found=$found$path$nl; done
}
"""

# What every run depends on: our home, the job runner's folder, caches; what pip, uv, conda, apt and modprobe are told.
OWN_PATHS = r"""
cache=${XDG_CACHE_HOME:-$HOME/.cache} config=${XDG_CONFIG_HOME:-$HOME/.config}
look own "$HOME" "$HOME"
if [ "$me" != 0 ]; then
  b=${XDG_STATE_HOME:-$HOME/.local/state}/qwen-rig
  look own "$b" "$b/jobs" "$b/job.sh"
fi
look root /var/lib/qwen-rig /var/lib/qwen-rig/jobs /var/lib/qwen-rig/job.sh
look own "$cache" "$cache/qwen-rig" "${UV_CACHE_DIR:-$cache/uv}" "${PIP_CACHE_DIR:-$cache/pip}" \
  "$cache"/qwen-rig/uv-*/bin/uv "$HOME/.conda/pkgs"
look own "$config" "$config/pip/pip.conf" "$config/uv/uv.toml" "$config/conda/.condarc" "$HOME/.condarc" \
  "$HOME/.pip/pip.conf" "$HOME/.conda/.condarc"
look root /etc /etc/pip.conf /etc/xdg/pip/pip.conf /etc/uv/uv.toml /etc/conda/.condarc /etc/conda/condarc
there /etc/apt/*.d /etc/apt/*.d/* /etc/modprobe.d/qwen-rig-*
IFS=$nl; set -f
look root /etc/apt /etc/apt/sources.list /etc/apt/preferences /etc/apt/apt.conf /etc/modprobe.d $found \
  /usr/share/keyrings /var/cache/qwen-rig/apt
unset IFS; set +f
look script /etc/network_turbo /etc/network_turbo
look models "${HF_HOME:-$cache/huggingface}" "${HF_HOME:-$cache/huggingface}"
"""

SECTIONS = {
    "paths": r"""
IFS=$nl; set -f
printf 'me%s%s%s%s\n' "$tab" "$me" "$tab" "$outer"
for row in $asked; do printf 'ask%s%s\n' "$tab" "$row"; done
for row in $targets; do printf 'link%s%s\n' "$tab" "$row"; done
for row in $absent; do printf 'none%s%s\n' "$tab" "$row"; done
rows=$(stat -c "stat$tab%u$tab%U$tab%g$tab%f$tab%n" $chains)
printf '%s\n' "$rows"
gids=: told=$nl
for row in $rows; do
  case $row in *"$tab"??[13579bdf][014589cd]"$tab"/*) ;; *) continue ;; esac # its group can write there, others can't
  path=/${row#*"$tab"/} gid=${row%%"$tab"/*}
  gid=${gid%"$tab"*} gid=${gid##*"$tab"}
  case $told in *"$nl$path$nl"*) continue ;; esac
  told=$told$path$nl
  case $(ls -ld "$path") in ??????????+*) printf 'acl%s%s\n' "$tab" "$path" ;; esac
  case $gids in *:"$gid":*) continue ;; esac
  gids=$gids$gid:
  (unset IFS; own_group "$gid") && printf 'group%s%s\n' "$tab" "$gid"
done
""",
}


def places(data_dir: str | None) -> str:
    """Shell that leaves in $places our folders on disks, that of `data_dir` first; and that looks at each place where
    one could be made."""
    asked = shlex.quote(f"{data_dir.rstrip('/')}/qwen-rig" if data_dir else "")
    return rf"""
places='' unfit_places=''
disk_folder() {{ # FOLDER
  look place "$1" "$1" "$1"/envs "$1"/cache/uv "$1"/cache/pip "$1"/cache/qwen-rig "$1"/pkgs "$1"/tmp "$1"/huggingface
  [ -d "$1" ] || return
  if owned "$1" "$1/envs"; then places=$places$1$nl; else unfit_places=$unfit_places$1$nl; fi
}}
asked_place={asked}
[ -z "$asked_place" ] || disk_folder "$asked_place"
while IFS=' ' read -r device m type rest; do
  case $type in {_disk.NETWORK}|{"|".join((*MEMORY, *_disk.KERNELS))}) continue ;; esac
  case $m in *\\*) continue ;; esac
  [ -d "$m" ] && [ "${{m%/}}/qwen-rig" != "$asked_place" ] || continue
  if [ -w "$m" ] || [ -d "$m/qwen-rig" ]; then disk_folder "${{m%/}}/qwen-rig"; fi
done </proc/self/mounts
"""


def read(text: str, mounts: Mapping[str, str]) -> tuple[Tree, list[tuple[str, str, str]]]:
    """The components, and (kind, subject, path) of each path that was asked for. ValueError where there are none."""
    rows = [line.split("\t") for line in text.split("\n") if line]
    told: dict[str, list[list[str]]] = {}
    for word, *cells in rows:
        told.setdefault(word, []).append(cells)
    if "me" not in told:
        raise ValueError("it doesn't say whose the paths are")
    targets = {at: to for at, to in told.get("link", [])}
    lists = {path for (path,) in told.get("acl", [])}
    entries: dict[str, Entry | None] = {path: None for (path,) in told.get("none", [])}
    for uid, user, gid, mode, path in told.get("stat", []):
        entries[path] = Entry(int(uid), int(gid), int(mode, 16), _user(user), targets.get(path), path in lists)
    uid, outer = [*told["me"][0], ""][:2]
    groups = frozenset(int(gid) for (gid,) in told.get("group", []))
    tree = Tree(entries, int(uid), int(outer) if outer else None, groups, mounts)
    return tree, [(kind, subject, path) for kind, subject, path in told.get("ask", [])]


def _user(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").replace(".", "").isalnum() and name != "UNKNOWN" else ""


@frozen
class Looked:
    """What was looked at. `refused`: the first fault of each subject that has one: `{kind, subject, path, at, why,
    remedy, foreign}`; `subjects`: (kind, subject) of those without."""

    refused: list[dict[str, Any]]
    subjects: frozenset[tuple[str, str]] = frozenset()

    def fit(self, kind: str, subject: str) -> bool:
        """Whether it was looked at and is ours alone."""
        return (kind, subject) in self.subjects


NOTHING = Looked([])  # where the probe's output breaks off before that: then nothing is adopted


def looked_at(text: str, mounts: str) -> Looked:
    """All subjects of a probe. ValueError where it doesn't tell."""
    tree, asked = read(text, _disk.file_systems(mounts))
    found: dict[tuple[str, str], Fault | None] = {}
    for kind, subject, path in asked:
        if found.get((kind, subject)) is None:
            found[kind, subject] = fault(tree, path, root_only=kind in (ROOT, SCRIPT), memory=kind not in KEPT)
    rows = [{"kind": kind, "subject": subject, "path": wrong.path, "at": wrong.at, "why": wrong.why,
             "remedy": wrong.remedy, "foreign": wrong.foreign} for (kind, subject), wrong in found.items() if wrong]
    return Looked(rows, frozenset(key for key, wrong in found.items() if wrong is None))
