"""What looks closer at a line than an expression can: tables of codes, the packages of a traceback, mangled names.

A reader gets the scene (the line, its groups, the log around, what is known of the host) and returns words for the
row's texts, or None: the line tells nothing after all. The words `name` and `grade` replace the row's own. Pure.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from qwen_rig.doctor import resolver
from qwen_rig.doctor.forms import Code, names, table
from qwen_rig.doctor.log import Log
from qwen_rig.frozen import frozen

Words = dict[str, str]


@frozen
class Scene:
    """A line that a row's expression matches. `groups`: its named groups, '' where they matched nothing."""

    log: Log
    at: int
    groups: Mapping[str, str]
    known: Mapping[str, Any]


Reader = Callable[[Scene], Words | None]


def _coded(kind: str, scene: Scene) -> Words | None:
    """A table's words for the code that the line names by number, name or sentence."""
    said = scene.groups
    code = table(kind).find(said.get("number") or said.get("number2"), said.get("code"), said.get("sentence"))
    return None if code is None or code.harmless or code.told_by else _of(kind, code)


def _of(kind: str, code: Code) -> Words:
    number = f"{kind}-{code.number if code.number is not None else code.name}"
    return {"name": number, "number": str(code.number), "code": code.name, "means": code.means, "do": code.next,
            "grade": str(code.grade), "source": table(kind).source}


def xid(scene: Scene) -> Words | None:
    """An Xid; one that the catalogue doesn't have is said to be such."""
    if first := scene.groups.get("first"):
        return xid(replace(scene, groups={**scene.groups, "number": first, "first": ""}))
    if table("xid").find(scene.groups.get("number"), None, None) is None:
        number = scene.groups["number"]
        return {"name": f"xid-{number}", "number": number, "grade": "6", "source": table("xid").source,
                "means": "which NVIDIA's catalogue of 2025-10 doesn't describe",
                "do": "look it up in NVIDIA's current catalogue: docs.nvidia.com/deploy/xid-errors"}
    return _coded("xid", scene)


# What a shell says of a process that a signal ended (strsignal(3)).
_SIGNALS = {"Killed": "9", "Segmentation fault": "11", "Bus error": "7", "Aborted": "6", "Illegal instruction": "4"}


def exits(scene: Scene) -> Words | None:
    """How a process ended, by status or signal."""
    said = scene.groups
    word = _SIGNALS.get(said.get("word") or said.get("word2") or "", "")
    signal = said.get("signal") or said.get("signal2") or said.get("signal3") or word
    code = table("exits").find(f"-{signal}" if signal else said.get("number"), None, None)
    if code is None or code.harmless:
        return None
    return {**_of("exits", code), "name": f"exit-{code.name.lower()}"}


def _reads(kind: str) -> Reader:
    return lambda scene: _coded(kind, scene)


_FRAME = re.compile(r'File "(?P<file>[^"]+)", line \d+(?:, in (?P<function>\S+))?')
_WRAPPERS = re.compile(r"wrap(?:ped|per)?\w*|_?\w*_wrapper|inner\w*|decorat\w+|<frozen")  # who only hands a call on
_INSTALLED = re.compile(r"/(?:site|dist)-packages/(?P<top>[A-Za-z_][\w-]*)")


def distribution(module: str) -> str:
    """The package that brings a module."""
    top = module.split(".")[0]
    return names().distributions.get(top, top.replace("_", "-"))


def asker(scene: Scene) -> str:
    """Whose code the nearest frame above is: a package, or a file of the user's own; '' without a traceback."""
    for line in scene.log.before(scene.at):
        frame = _FRAME.search(line)
        if frame and not _WRAPPERS.match(frame["function"] or "") and not frame["file"].startswith("<"):
            installed = _INSTALLED.search(frame["file"])
            return distribution(installed["top"]) if installed else PurePosixPath(frame["file"]).name
        if line.startswith("Traceback "):
            break
    return ""


def installed(scene: Scene, package: str) -> str:
    """The package with the version that the host's env has of it, where that is known."""
    have = (scene.known.get("packages") or {}).get(package.lower().replace("_", "-"))
    return f"{package} {have}" if have else package


def import_name(scene: Scene) -> Words | None:
    """A name that a module doesn't have: two packages that don't go together, or a file that hides the package."""
    said = scene.groups
    package, who = distribution(said["module"]), asker(scene)
    file = said.get("file", "")
    own = file.endswith(".py") and "-packages/" not in file and "/lib/python" not in file
    if said.get("partial") or own:
        return {"name": "import-hidden-or-circular", "package": package, "what": said["what"],
                "cause": f"the name {said['what']} was asked of {said['module']} before that was read to its end, or "
                         f"of another file of that name ({file or 'a circular import'}) that hides the package",
                "do": f"see that no file or folder of your own is called {said['module'].split('.')[0]}; a circular "
                      "import in a package's own files: install that package anew, whole"}
    if who and who == package:
        return {"name": "package-half-installed", "package": installed(scene, package), "who": who,
                "cause": f"{installed(scene, package)} doesn't fit itself: its files are of two versions, or a package "
                         f"that it looks into lacks {said['what']}",
                "do": f"remove it and install it anew: pip uninstall -y {package}, then the version that is wanted"}
    return {"package": installed(scene, package), "asker": installed(scene, who) if who else "the code that imports it"}


_BASE = re.compile(r'File "(?P<prefix>/[^"]*)/lib/python3\.\d+/')


def _own_module(scene: Scene, module: str) -> Words:
    """A module of Python itself that isn't there: that Python is damaged, and no package mends it."""
    frames = (_BASE.match(line.strip()) for line in scene.log.before(scene.at))
    prefix = next((frame["prefix"] for frame in frames if frame), "")
    mended = "the same qwen-rig run again sees which file is gone and builds the env anew; a Python that isn't in " \
             "its env: install that Python anew"
    if prefix and "/envs/" not in prefix:
        mended = f"install the Python in {prefix} anew (of a conda that isn't the env's: give qwen-rig another " \
                 "conda_prefix, or move that folder away)"
    return {"name": "python-damaged", "do": mended,
            "cause": f"{module} is a module of Python itself, not of a package: "
                     f"{f'the Python in {prefix}' if prefix else 'that Python'} is damaged or was built without it; "
                     "no package brings it"}


def module_missing(scene: Scene) -> Words | None:
    """A module that isn't there: not installed, gone from its package, or left out of this Python."""
    module = scene.groups["module"]
    top, dot, _ = module.partition(".")
    who = asker(scene)
    note = names().renamed.get(f"module {module}") or names().renamed.get(f"module {top}")
    if note:
        return {"name": "module-gone", "cause": f"the module {module} is no longer there: {note}",
                "do": f"a version of {installed(scene, who) if who and '.py' not in who else 'the program'} that no "
                      "longer asks for it, or an older one of what had it"}
    if top in sys.stdlib_module_names:
        return _own_module(scene, module)
    if dot:
        package = distribution(top)
        return {"name": "module-not-in-package", "who": who,
                "cause": f"{installed(scene, package)} has no module {module}: it is of another version than "
                         f"{who or 'the program'} was written for",
                "do": f"install versions of {package} and {who or 'the program'} that go together"}
    return {"package": distribution(module), "who": who}


def keyword(scene: Scene) -> Words | None:
    """An argument that a function doesn't take: renamed, or of another version. None: it may be the user's own bug."""
    said = scene.groups
    function, argument = re.sub("^_?Unsloth", "", said["function"]), said["argument"]
    owner = next((name for stem, name in names().classes.items() if re.fullmatch(stem, function.split(".")[0])), "")
    who = asker(scene)
    theirs = who if who and not who.endswith(".py") else ""
    if not owner and not theirs:
        return None
    short = function.removesuffix(".__init__")
    new = names().renamed.get(f"{short} {argument}") or (names().renamed.get(f"argument {argument}") if owner else None)
    return {"function": short, "owner": installed(scene, owner) if owner else "the package that has it",
            "who": installed(scene, who) if who else "the script", "new": new or ""}


def attribute(scene: Scene) -> Words | None:
    """An attribute that a module doesn't have: renamed, or of another version."""
    module, what = scene.groups["module"], scene.groups["what"]
    if scene.groups.get("partial"):
        return {"name": "import-hidden-or-circular", "cause": f"{module} was used before it was read to its end, or "
                "another file of that name hides the package",
                "do": f"see that no file or folder of your own is called {module.split('.')[0]}"}
    who = asker(scene)
    new = names().renamed.get(f"{module} {what}")
    if not new and (not who or who.endswith(".py")) and module.split(".")[0] not in names().libraries:
        return None
    return {"package": installed(scene, distribution(module)), "who": installed(scene, who) if who else "the program",
            "new": new or ""}


def demangled(symbol: str) -> str:
    """A C++ symbol's nested name, as far as it can be read; any other as it is."""
    found = re.match(r"_Z(?:T[VISH])?NK?R?(?=\d)", symbol)
    if not found:
        return symbol
    parts, at = [], found.end()
    while length := re.match(r"\d+", symbol[at:]):
        at += length.end()
        parts.append(symbol[at:at + int(length[0])])
        at += int(length[0])
    return "::".join(parts)


def symbol(scene: Scene) -> Words | None:
    """A symbol that a library asks for and no other has: whose it is, and who asks."""
    said = scene.groups
    owner = next((name for stem, name in names().symbols.items() if said["symbol"].startswith(stem)), "")
    if not owner:
        return None
    path = _INSTALLED.search(said["file"])
    library, why, advice = owner.split(" | ")
    return {"what": demangled(said["symbol"]), "library": library, "why": why, "do": advice,
            "package": installed(scene, distribution(path["top"])) if path else "",
            "short": PurePosixPath(said["file"]).name}


def nvcc(scene: Scene) -> Words | None:
    """An architecture that nvcc doesn't know: nvcc is too old for it, or so new that it has left it out."""
    arch = scene.groups["arch"]
    if since := names().nvcc_since.get(arch):
        return {"name": "nvcc-too-old", "why": f"it is older than CUDA {since}, the first that does",
                "do": f"the nvcc of CUDA {since} or newer first: CUDA_HOME and PATH (cuda_toolkit=always installs one "
                      "on a host of the inventory)"}
    if until := names().nvcc_until.get(arch):
        return {"name": "nvcc-too-new", "why": f"CUDA {until} and newer have left it out",
                "do": f"leave that architecture out of the build's list (TORCH_CUDA_ARCH_LIST), or the nvcc of a CUDA "
                      f"before {until} for a card that needs it"}
    return {"name": "nvcc-unknown-arch", "why": "it is too old for it, or the name is none",
            "do": "`nvcc --list-gpu-arch` tells what it knows; see which nvcc CUDA_HOME and PATH lead to"}


def resolution(scene: Scene) -> Words | None:
    """What uv or pip says of requirements that exclude each other."""
    lines = [scene.log.core(each) for each in range(scene.at, min(scene.at + 60, len(scene.log.lines)))]
    return resolver.uv(lines) if scene.groups.get("uv") else resolver.pip(lines)


def no_version(scene: Scene) -> Words | None:
    """A requirement that the index can't meet: which versions it offered instead."""
    return resolver.offered(scene.groups["package"], scene.log.around(scene.at))


READERS: Mapping[str, Reader] = {
    "xid": xid, "exits": exits, "import_name": import_name, "module_missing": module_missing, "keyword": keyword,
    "attribute": attribute, "symbol": symbol, "resolution": resolution, "no_version": no_version, "nvcc": nvcc,
    **{kind: _reads(kind) for kind in ("cuda", "nvml", "nccl", "aer")},
}
