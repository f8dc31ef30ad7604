"""A Python env by its files alone: packages, Python, torch's build. Pure: knows no pyinfra, runs no Python."""

from __future__ import annotations

import re
from typing import Any

from qwen_rig.facts import _sh
from qwen_rig.program import load

# What each CPython since 3.9 has as a .py file or a package, in every distribution's first package of it
# (sys.stdlib_module_names of 3.10 to 3.14, without what distributions package apart).
MODULES = """
__future__ _collections_abc _weakrefset abc argparse ast asyncio base64 bdb bisect bz2 calendar cmd code codecs
codeop collections colorsys compileall concurrent configparser contextlib contextvars copy copyreg csv ctypes
dataclasses datetime decimal difflib dis doctest email encodings enum filecmp fileinput fnmatch fractions ftplib
functools genericpath getopt getpass gettext glob gzip hashlib heapq hmac html http importlib inspect io
ipaddress json keyword linecache locale logging lzma mailbox mimetypes multiprocessing netrc numbers opcode
operator optparse os pathlib pdb pickle pickletools pkgutil platform plistlib posixpath pprint profile pstats
pty py_compile pydoc queue quopri random re reprlib runpy sched secrets selectors shelve shlex shutil signal
site smtplib socket socketserver sqlite3 ssl stat statistics string struct subprocess symtable sysconfig tarfile
tempfile textwrap threading timeit token tokenize trace traceback tracemalloc tty types typing unittest urllib
uuid warnings wave weakref webbrowser wsgiref xml xmlrpc zipapp zipfile zipimport
"""

# `gone DIR` names what its Python lacks: the program, conda's record of that, or files of the standard library. A conda
# env's Python, and what that depends on, is held to conda's own records (`base`): a line with the first file that is
# absent or of another size. A venv's standard library is elsewhere, and has no record: the modules that each has.
# `env_files DIR` prints one env. Package names come from one glob a site-packages; METADATA tells a package from the
# folder that a broken uninstall leaves behind.
SHELL = f"modules='{MODULES}'\n" + load("shell/torn.sh").text + r"""
gone() {
  if [ ! -f "$1/bin/python" ] || [ ! -x "$1/bin/python" ]; then echo python; return; fi
  if [ -e "$1/pyvenv.cfg" ]; then
    home='' x=''
    while read -r key eq v; do case $key in home) home=$v ;; version|version_info) x=$v ;; esac; done <"$1/pyvenv.cfg"
    case $x in 3.*) x=${x#3.}; modules "${home%/bin}/lib/python3.${x%%[!0-9]*}" ;; esac
    return
  fi
  for f in "$1"/lib/python3.*/encodings/__init__.py; do [ -s "$f" ] && [ -s "${f%/*/*}/os.py" ] && break; done ||
    { echo library; return; }
  [ -d "$1/conda-meta" ] || { modules "${f%/*/*}"; return; }
  for f in "$1"/conda-meta/python-[0-9]*.json; do [ -s "$f" ] || echo record; break; done
}
modules() { # FOLDER of a standard library
  [ -e "$1/os.py" ] || return
  unset IFS
  for m in $modules; do [ -s "$1/$m.py" ] || [ -e "$1/$m/__init__.py" ] || { echo "absent|$1/$m"; break; }; done
}
base() { # PREFIX: the first file of its Python that isn't as conda's record says
  cd "$1" || return
  set +f; unset IFS
  set -- conda-meta/python-[0-9]*.json
  [ -s "$1" ] || return
  for name in $(sed -n '/"depends": *\[/,/\]/{ s/.*"depends": *\[//; h; s/\].*//; s/"\([a-z0-9_.-]*\)[^"]*"/\1/g
    s/,/ /g; p; x; /\]/q; }' "$1"); do
    for f in conda-meta/"$name"-[0-9]*.json; do [ ! -s "$f" ] || set -- "$@" "$f"; done
  done
  if find . -maxdepth 0 -printf ''; then
    find bin lib include \( -name site-packages -o -name __pycache__ \) -prune -o -type f -printf '%s %p\n' -o \
      -type l -printf '%Y %p\n'
  else
    find bin lib include \( -name site-packages -o -name __pycache__ \) -prune -o -type f -exec stat -c '%s %n' {} +
    find bin lib include \( -name site-packages -o -name __pycache__ \) -prune -o -type l -exec stat -c 'f %n' {} +
  fi | awk 'NR == FNR { at = index($0, " "); has[substr($0, at + 1)] = substr($0, 1, at - 1); next }
      !match($0, /"_path": *"(bin|lib|include)\/[^"\\]*"/) { next }
      { path = substr($0, RSTART, RLENGTH - 1); sub(/^"_path": *"/, "", path) }
      path ~ /\/(site-packages|__pycache__|tests?|idle_test|idlelib|turtledemo|config-3[^\/]*)\/|\.(a|pyc)$/ { next }
      !(path in has) || has[path] ~ /^[NL?]$/ { how[path] = "absent"; next }
      index($0, "\"softlink\"") || index($0, "\"text\"") || has[path] !~ /^[0-9]/ { right[path]; next }
      at = index($0, "\"size_in_bytes\":") {
        if (substr($0, at + 16) + 0 == has[path] + 0) right[path]; else how[path] = "size"
      }
      END {
        for (path in how) if (!(path in right)) { n++; if (first == "" || path < first) first = path }
        if (n) printf "%s|%s\n", how[first], first
      }' - RS='}' "$@"
}
env_files() {
  printf '##env %s\n' "$1"
  [ -L "$1" ] && printf 'target=%s\n' "$(readlink "$1")"
  [ -x "$1/bin/python" ] && echo python=1
  g=$(gone "$1")
  printf 'gone=%s\n' "${g:-$(base "$1")}"
  for f in "$1"/conda-meta/python-[0-9]*.json; do [ -e "$f" ] && printf 'conda=%s\n' "${f##*/}"; done
  while read -r key eq v; do case $key in version|version_info) printf 'venv=%s\n' "$v" ;; esac; done <"$1/pyvenv.cfg"
  for s in "$1"/lib/python3.*/site-packages; do
    [ -d "$s" ] || continue
    s=${s%/site-packages}; printf 'lib=%s\n' "${s##*/python}"
    (cd "$s/site-packages" && printf '%s\n' *.dist-info/METADATA *.egg-info)
    (cd "$s/site-packages" && torn)
    [ -f "$s/site-packages/torch/version.py" ] && sed 's/^/torch|/' "$s/site-packages/torch/version.py"
  done
}
"""


GONE = {"python": "its Python is gone", "library": "its Python's standard library is gone",
        "record": "conda's record of its Python is gone"}  # what `gone` says in one word

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")  # as their specification has them
_VERSION = re.compile(r"[A-Za-z0-9.!+_*-]+")
PATH_SHOWN = 120  # characters of a file's path that are told


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


def lacks(said: str) -> str | None:
    """What `gone` and `base` said, in words; None where they found nothing."""
    how, bar, file = said.strip().partition("|")
    if not bar:
        return GONE.get(how)
    return f"its Python's file {file[:PATH_SHOWN]} {'is gone' if how == 'absent' else 'was changed'}"


def read(text: str) -> list[dict[str, Any]]:
    """Each env that `env_files` printed: `{path, target, python, gone, packages, duplicates, torn, torch}`."""
    return [_one(block) for block in re.split(r"^##env ", text, flags=re.MULTILINE)[1:]]


def _one(block: str) -> dict[str, Any]:
    path, _, rest = block.partition("\n")
    fields = _sh.pairs(rest)
    python = _python(fields)
    packages: dict[str, str] = {}
    twice, lib, source = set(), "", []
    torn: dict[str, str] = {}
    wanted = ".".join(python.split(".")[:2]) if python else fields.get("lib", "")
    for line in rest.split("\n"):
        if line.startswith("lib="):
            lib = line[4:]
        elif lib != wanted:  # the site-packages of a Python that this env no longer runs
            continue
        elif line.startswith("torch|"):
            source.append(line[6:])
        elif line.startswith("torn|"):
            owner, how, file = [*line.split("|", 3), "", ""][1:4]
            if found := package(owner):
                torn[found[0]] = f"{file[:PATH_SHOWN]} is gone" if how == "absent" else \
                    f"{file[:PATH_SHOWN]} was changed"
        elif found := package(line):
            if packages.get(found[0], found[1]) != found[1]:
                twice.add(found[0])
            packages[found[0]] = found[1]
    return {"path": path.strip(), "target": fields.get("target"), "python": python,
            "gone": lacks(fields.get("gone", "")), "packages": dict(sorted(packages.items())),
            "duplicates": sorted(twice), "torn": dict(sorted(torn.items())), "torch": torch("\n".join(source))}


def _python(fields: dict[str, str]) -> str | None:
    """The env's Python: by conda's record, by pyvenv.cfg, else the 3.x that its lib folder names; None without one."""
    if "python" not in fields:
        return None
    record = re.match(r"python-([0-9]+\.[0-9]+[0-9a-z_.]*)-", fields.get("conda", ""))
    venv = re.match(r"\d+\.\d+(\.\d+)?", fields.get("venv", ""))
    lib = re.fullmatch(r"[0-9]+\.[0-9]+t?", fields.get("lib", ""), re.ASCII)
    return record[1] if record else venv[0] if venv else lib[0] if lib else None
