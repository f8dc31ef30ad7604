"""A Python env by its files alone: packages, Python, torch's build. Pure: knows no pyinfra, runs no Python."""

from __future__ import annotations

import re
from typing import Any

from qwen_rig.facts import _sh

# `env_files DIR` prints one env. Package names come from one glob a site-packages; METADATA tells a package from the
# folder that a broken uninstall leaves behind.
SHELL = r"""
env_files() {
  printf '##env %s\n' "$1"
  [ -L "$1" ] && printf 'target=%s\n' "$(readlink "$1")"
  [ -x "$1/bin/python" ] && echo python=1
  for f in "$1"/conda-meta/python-[0-9]*.json; do [ -e "$f" ] && printf 'conda=%s\n' "${f##*/}"; done
  while read -r key eq v; do case $key in version|version_info) printf 'venv=%s\n' "$v" ;; esac; done <"$1/pyvenv.cfg"
  for s in "$1"/lib/python3.*/site-packages; do
    [ -d "$s" ] || continue
    s=${s%/site-packages}; printf 'lib=%s\n' "${s##*/python}"
    (cd "$s/site-packages" && printf '%s\n' *.dist-info/METADATA *.egg-info)
    [ -f "$s/site-packages/torch/version.py" ] && sed 's/^/torch|/' "$s/site-packages/torch/version.py"
  done
}
"""


_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")  # as their specification has them
_VERSION = re.compile(r"[A-Za-z0-9.!+_*-]+")


def canonical(name: str) -> str:
    """A package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def package(entry: str) -> tuple[str, str] | None:
    """Canonical name and version out of the name of a .dist-info or .egg-info; None for anything else."""
    stem, dot, kind = entry.partition("/")[0].rpartition(".")
    if not dot or kind not in ("dist-info", "egg-info"):
        return None
    if kind == "egg-info":
        stem = re.sub(r"-py\d+(\.\d+)?(-[\w.]+)?$", "", stem)
    name, dash, version = stem.partition("-") if kind == "egg-info" else stem.rpartition("-")
    if not dash or not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):  # ~orch-2.8.0: pip's own litter
        return None
    return canonical(name), version


def torch(text: str) -> dict[str, str | None] | None:
    """torch/version.py as `{version, cuda}`: the truth about its build, which the package's name may not tell."""
    fields = dict(re.findall(r"^(\w+)\s*(?::[^=\n]*)?=\s*['\"]([^'\"]*)['\"]", text, re.MULTILINE))
    return {"version": fields["__version__"], "cuda": fields.get("cuda")} if "__version__" in fields else None


def read(text: str) -> list[dict[str, Any]]:
    """Each env that `env_files` printed: `{path, target, python, packages, duplicates, torch}`."""
    return [_one(block) for block in re.split(r"^##env ", text, flags=re.MULTILINE)[1:]]


def _one(block: str) -> dict[str, Any]:
    path, _, rest = block.partition("\n")
    fields = _sh.pairs(rest)
    python = _python(fields)
    packages: dict[str, str] = {}
    twice, lib, source = set(), "", []
    wanted = ".".join(python.split(".")[:2]) if python else fields.get("lib", "")
    for line in rest.split("\n"):
        if line.startswith("lib="):
            lib = line[4:]
        elif lib != wanted:  # the site-packages of a Python that this env no longer runs
            continue
        elif line.startswith("torch|"):
            source.append(line[6:])
        elif found := package(line):
            if packages.get(found[0], found[1]) != found[1]:
                twice.add(found[0])
            packages[found[0]] = found[1]
    return {"path": path.strip(), "target": fields.get("target"), "python": python,
            "packages": dict(sorted(packages.items())), "duplicates": sorted(twice), "torch": torch("\n".join(source))}


def _python(fields: dict[str, str]) -> str | None:
    """The env's Python: by conda's record, by pyvenv.cfg, else the 3.x that its lib folder names; None without one."""
    if "python" not in fields:
        return None
    record = re.match(r"python-([0-9]+\.[0-9]+[0-9a-z_.]*)-", fields.get("conda", ""))
    venv = re.match(r"\d+\.\d+(\.\d+)?", fields.get("venv", ""))
    lib = re.fullmatch(r"[0-9]+\.[0-9]+t?", fields.get("lib", ""), re.ASCII)
    return record[1] if record else venv[0] if venv else lib[0] if lib else None
