"""Write a stack's lock and sizes from its pins: `python scripts/lock.py STACK` (`make lock STACK=guide`).

STACK is a name, or the path of your own stack file, whose lock and sizes are then written beside it.
The resolver is uv, given the stack's pins, linux x86_64, the stack's Pythons, and a date after which nothing counts, so
that the same stack file always gives the same bytes. Written, by the names that the stack file has for them: the lock
(requirements with markers and hashes, as pip and uv take them; no addresses in it) and the sizes (bytes to download).
Two are no stacks: STACK=build locks what source distributions are built with (qwen_rig/data/build.yml), and
STACK=flash-attn-4 what that rung needs (qwen_rig/data/flash-attn-4.yml). What a stack's own source distributions
declare for their build must be in the first, or in the stack's own `build_lock`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement as Line
from packaging.utils import canonicalize_name, parse_wheel_filename

from qwen_rig import atomic
from qwen_rig.catalog.lock import Requirement, read_lock, select
from qwen_rig.catalog.stack import COMMON_BUILD_LOCK
from qwen_rig.network.fetch import Terms, fetch
from qwen_rig.network.index import ranks

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]

DATA = Path(__file__).resolve().parent.parent / "qwen_rig" / "data"
PLATFORM = "implementation_name == 'cpython' and platform_machine == 'x86_64' and sys_platform == 'linux'"


TOOLS = ("build", "flash-attn-4")


class Unresolved(Exception):
    """The resolver found no set of versions, or reached no index; its own words."""


def main(stack: str) -> None:
    own = "/" in stack or stack.endswith((".yml", ".yaml"))
    path = DATA / f"{stack}.yml" if stack in TOOLS else Path(stack) if own else DATA / "stacks" / f"{stack}.yml"
    if not path.is_file():
        sys.exit(f"lock: there is no stack {stack} ({path}): make lock STACK=name, or STACK=path/of/your.yml")
    wanted = yaml.safe_load(path.read_text())
    if stack in TOOLS:
        atomic.write(DATA / "locks" / wanted["lock"], build_lock(wanted, stack))
        return print(f"lock: wrote {DATA / 'locks' / wanted['lock']}")
    if wanted.get("refused"):
        sys.exit(f"lock: stack {stack} is refused ({wanted['refused']['reason']}): there is nothing to lock")
    with tempfile.TemporaryDirectory() as folder:
        try:
            requirements, lock = resolve(Path(folder), wanted)
        except Unresolved as error:
            sys.exit(f"lock: the pins of {path} exclude each other: {error}")
    built = sorted({p["name"] for p in lock["package"] if "registry" in p["source"] and not p.get("wheels")})
    if built != sorted(wanted["sdists"]):
        sys.exit(f"lock: sdists in {path} must be {built}: these are published as source only")
    locks = path.parent if own else DATA / "locks"
    check_build(path, wanted, lock, locks)
    atomic.write(locks / wanted["lock"], header(wanted) + requirements)
    atomic.write(locks / wanted["sizes"], sizes(lock, wanted))
    print(f"lock: wrote {locks / wanted['lock']} and {locks / wanted['sizes']}")


def resolve(folder: Path, wanted: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Resolve in a throwaway project. Returns the requirements text and uv's own lock, parsed."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin") or shutil.which("uv")
    if uv is None:
        sys.exit("lock: uv isn't installed; `make setup` installs it")
    names = [f"{name}=={pin['version']}" for name, pin in wanted["pins"].items()] + wanted["unpinned"]
    least, newest = wanted["pythons"][0], wanted["pythons"][-1].split(".")
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "rig-lock"\nversion = "0"\n'
        f'requires-python = ">={least},<{newest[0]}.{int(newest[1]) + 1}"\n'
        f"dependencies = {names!r}\n[tool.uv]\npackage = false\nenvironments = [\"{PLATFORM}\"]\n"
        f"override-dependencies = {left_out(wanted)!r}\n")
    locked = subprocess.run([uv, "lock", "--no-config", "--quiet", "--exclude-newer", wanted["exclude_newer"]],
                            cwd=folder, check=False, capture_output=True, text=True)
    if locked.returncode:
        raise Unresolved(" ".join(locked.stderr.split()))
    text = subprocess.run(
        [uv, "export", "--no-config", "--frozen", "--no-emit-project", "--no-annotate", "--no-header", "--quiet"],
        cwd=folder, check=True, capture_output=True, text=True).stdout
    # The whole lock is for one platform, as its header says: repeated in each marker it would only hide the rest.
    text = text.replace(f" ; {PLATFORM}", "").replace(f" and {PLATFORM}", "")
    return text, tomllib.loads((folder / "uv.lock").read_text())


def build_lock(wanted: Mapping[str, Any], name: str) -> str:
    """The text of a lock of build tools."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            requirements = resolve(Path(folder), wanted)[0]
        except Unresolved as error:
            sys.exit(f"lock: what {name} is built with can't be fetched: {error}")
    says = wanted.get("says", "What source distributions are built with on a host")
    return (f"# {says} ({name}); nothing published after {wanted['exclude_newer']}.\n"
            f"# Written by `make lock STACK={name}`; don't edit.\n{requirements}")


def check_build(path: Path, wanted: Mapping[str, Any], lock: Mapping[str, Any], locks: Path) -> None:
    """See to it that all that the stack's source distributions declare for their build is in its build lock: in the
    common one, or in one of its own that is written here. Ends the program where the stack file doesn't name that."""
    needed = sorted({line for package in lock["package"] if package["name"] in wanted["sdists"]
                     for line in declared(package["sdist"])})
    common = read_lock(DATA / "locks" / COMMON_BUILD_LOCK, {})
    if all(satisfied(line, select(common, python)) for line in needed for python in wanted["pythons"]):
        return
    name = f"{wanted['name']}.build.lock.txt"
    tools = {"pythons": wanted["pythons"], "pins": {}, "unpinned": [*needed, "setuptools", "wheel"],
             "exclude_newer": wanted["exclude_newer"]}
    atomic.write(locks / name, build_lock(tools, wanted["name"]))
    if wanted.get("build_lock") != name:
        sys.exit(f"lock: build_lock in {path} must be {name}: it holds {', '.join(needed)}")


def declared(sdist: Mapping[str, Any]) -> list[str]:
    """The requirements in the `build-system` table of a source distribution; setuptools where it has none (PEP 518)."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sdist.tar.gz"
        # The index that the maintainer's own uv asked may be a private one.
        fetch(sdist["url"], file, sdist["hash"].removeprefix("sha256:"), Terms(sdist["url"].rpartition("/")[0]))
        with tarfile.open(file) as archive:
            tops = [member for member in archive.getmembers() if re.fullmatch(r"[^/]+/pyproject\.toml", member.name)]
            text = archive.extractfile(tops[0]) if tops else None
            table = tomllib.loads(text.read().decode()).get("build-system", {}) if text else {}
    return [str(line) for line in table.get("requires", ["setuptools"])]


def satisfied(line: str, held: Mapping[str, Requirement]) -> bool:
    """Whether a build requirement is met by the tools that a lock holds."""
    wanted = Line(line)
    if wanted.marker and not wanted.marker.evaluate():
        return True
    found = held.get(canonicalize_name(wanted.name))
    return found is not None and wanted.specifier.contains(found.version, prereleases=True)


def left_out(wanted: Mapping[str, Any]) -> list[str]:
    """Packages that the lock leaves out although others ask for them: only an index of their own has them, or they are
    the stack's."""
    own = wanted.get("torch_index") or {}
    names = [*(own["packages"] if own.get("only") else []), *wanted.get("without", [])]
    return [f"{name}; sys_platform == 'never'" for name in names]


def header(wanted: Mapping[str, Any]) -> str:
    return (f"# Lock of stack {wanted['name']} for CPython {wanted['pythons'][0]} to {wanted['pythons'][-1]} "
            f"on linux x86_64; nothing published after {wanted['exclude_newer']}.\n"
            f"# Written by `make lock STACK={wanted['name']}`; don't edit.\n{torch_note(wanted)}")


def torch_note(wanted: Mapping[str, Any]) -> str:
    """What the lock says of torch from an index of its own."""
    own = wanted.get("torch_index")
    if not own:
        return ""
    names = ", ".join(own["packages"])
    held = f"hash lines are in {own['lock']}" if own["lock"] else f"{own['why']}: asks for accept_unlocked_torch"
    what = f"{names} aren't in here" if own["only"] else f"The hashes of {names} are the package index's"
    return f"# {what}. With source_torch_index: {held}.\n"


def sizes(lock: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """`name==version: bytes` of the file that pip takes, by the oldest Python for which there is one."""
    found = {}
    for package in lock["package"]:
        if "registry" not in package["source"]:
            continue
        size = next((size for python in wanted["pythons"] if (size := wheel_size(package, python))), None)
        found[f"{package['name']}=={package['version']}"] = size or package["sdist"]["size"]
    text = "".join(f"{name}: {size}\n" for name, size in sorted(found.items()))
    return ("# Bytes to download: of the wheel for the oldest Python that has one, else of the source. "
            f"By scripts/lock.py.\n{text}")


def wheel_size(package: Mapping[str, Any], python: str) -> int | None:
    """Bytes of the wheel that pip prefers on that Python, or None where none fits."""
    best: tuple[int, int] | None = None
    for wheel in package.get("wheels", []):
        name = re.sub(r".*/", "", wheel["url"]).replace("%2B", "+")
        for tag in parse_wheel_filename(name)[3]:
            if (rank := ranks(python).get(tag)) is not None and (best is None or rank < best[0]):
                best = (rank, wheel["size"])
    return best[1] if best else None


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/lock.py STACK")
    main(sys.argv[1])
