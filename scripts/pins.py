"""Fill in what the data call not pinned: `python scripts/pins.py` (`make pins`), where conda-forge, PyTorch's index and
the Hugging Face Hub can be reached.

- locks/conda.yml: Python, pip and what they need, for every Python; each file is fetched, compared with the channel's
  own sum, and hashed here. conda solves: the one that --conda names, else the one in Miniforge's installer.
- STACK.torch.lock.txt, for each stack with a `torch_index` of a fixed release and no lock: that index's sums.
- `pinned` and `addresses` of each index of flash-attn wheels in sources.yml: by that index's sums, too.
- locks/hub-kernel.yml, named in sources.yml: the commit that the kernel's branch is at, and of each build's files the
  Hub's own sha256 where it lists one (the libraries), else that of the file as fetched.

What can't be fetched is told and left as it was; the exit status is then 1. What was pinned before is made anew.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from packaging.utils import parse_wheel_filename

from qwen_rig import atomic
from qwen_rig.catalog.datafile import load
from qwen_rig.catalog.hub_kernel import KernelLock
from qwen_rig.catalog.sources import HubKernel, OtherWheels, load_sources
from qwen_rig.catalog.stack_types import cuda_tag
from qwen_rig.errors import RigError
from qwen_rig.knobs import CHOICES
from qwen_rig.network import index as pages
from qwen_rig.network.collect import solved
from qwen_rig.network.fetch import Terms, fetch
from qwen_rig.network.web import Unreachable, get

DATA = Path(__file__).resolve().parent.parent / "qwen_rig" / "data"
SECONDS = 60
HEAD = ("# Python and pip of an env with all that they need, each file with its sha256. `make pins` writes it; "
        "don't edit.\n")


def main(words: list[str]) -> int:
    asked = parser().parse_args(words)
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for stack in (None, *unpinned_torch(asked.data)):
            try:
                print(f"pins: wrote {torch(asked, stack) if stack else conda(asked, Path(folder))}")
            except (RigError, Unreachable) as error:
                failed.append(f"pins: {error}")
    places = load_sources().flash_attn if (asked.data / "sources.yml").is_file() else None
    wanted: list[Callable[[], Path]] = [
        partial(wheels, asked, name, row) for name, row in places.others.items() if row.index] if places else []
    wanted += [partial(hub_kernel, asked, places.kernel)] if places else []
    for each in wanted:
        try:
            print(f"pins: wrote {each()}")
        except (RigError, Unreachable) as error:
            failed.append(f"pins: {error}")
    print("\n".join(failed), file=sys.stderr, end="\n" if failed else "")
    return 1 if failed else 0


def parser() -> argparse.ArgumentParser:
    sources = load_sources()
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--channel", default=sources.conda_channel, help="conda channel, a name or URL")
    made.add_argument("--conda", help="a conda that solves")
    made.add_argument("--pythons", nargs="+", default=list(CHOICES["python"]), metavar="PYTHON")
    made.add_argument("--torch-index", default=sources.torch_index.pytorch, help="the folder with cu128 and so on")
    made.add_argument("--wheels", metavar="PAGE", help="an index's page of flash-attn, in place of the data's")
    made.add_argument("--hub", default=sources.huggingface.url, help="the Hub, or a mirror of it")
    made.add_argument("--data", type=Path, default=DATA, help="the folder that holds locks and stacks")
    return made


def conda(asked: argparse.Namespace, folder: Path) -> Path:
    """Write locks/conda.yml anew, whole or not at all."""
    installer = folder / "miniforge.sh"
    if asked.conda is None:
        release = load_sources().miniforge
        fetch(f"{release.url}/Miniforge3-{release.version}-Linux-x86_64.sh", installer, release.sha256)
    pythons = {}
    for python in asked.pythons:
        rows = solved(asked.conda, installer, asked.channel, python)
        pythons[python] = [pinned(row, folder, asked.channel) for row in rows]
        print(f"pins: Python {python}: {len(pythons[python])} conda packages")
    made = {"channel": asked.channel, "source": f"fetched and hashed by scripts/pins.py, {date.today()}",
            "pythons": pythons}
    target = asked.data / "locks" / "conda.yml"
    atomic.write(target, HEAD + yaml.safe_dump(made, sort_keys=False, width=200))
    return Path(target)


def pinned(row: dict[str, Any], folder: Path, channel: str) -> dict[str, Any]:
    """One package of a channel, fetched: a channel's word alone is no pin."""
    file = folder / row["fn"]
    sha256 = fetch(row["url"], file, row["sha256"], Terms(channel))
    return {"path": f"{row['subdir']}/{row['fn']}", "sha256": sha256, "bytes": file.stat().st_size}


def unpinned_torch(data: Path) -> list[Path]:
    """The stack files that name a torch index of a fixed release, and no lock for it."""
    found = []
    for path in sorted((data / "stacks").glob("*.yml")):
        index = yaml.safe_load(path.read_text()).get("torch_index") or {}
        if index and not index["lock"] and not index["pre"]:  # a pre-release is another one every day
            found.append(path)
    return found


def torch(asked: argparse.Namespace, path: Path) -> Path:
    """Write a stack's hash lines of that index, and name them in the stack file."""
    stack = yaml.safe_load(path.read_text())
    tag = cuda_tag(stack["torch"]["cuda"])
    lines = []
    for name in stack["torch_index"]["packages"]:
        version = f"{stack['pins'][name]['version']}+{tag}"
        found = hashes(f"{asked.torch_index.rstrip('/')}/{tag}", name, version, stack["pythons"])
        lines.append(" \\\n".join([f"{name}=={version}", *(f"    --hash=sha256:{each}" for each in found)]))
    target = asked.data / "locks" / f"{stack['name']}.torch.lock.txt"
    said = f"# {asked.torch_index}/{tag}, by that index's own sums, {date.today()}. `make pins` writes it.\n"
    atomic.write(target, said + "\n".join(lines) + "\n")
    head, block, rest = path.read_text().partition("torch_index:")
    atomic.write(path, head + block + re.sub(r"(?m)^  lock: null$", f"  lock: {target.name}", rest, count=1))
    return Path(target)


def wheels(asked: argparse.Namespace, name: str, row: OtherWheels) -> Path:
    """Write the files of an index of flash-attn wheels into that row of sources.yml: their sha256 and addresses."""
    page = asked.wheels or row.url
    answer = get(page, SECONDS, pages.ACCEPT, own=page)
    begins = tuple(row.name(torch_, python) for torch_ in row.torch for python in asked.pythons)
    try:
        listed = pages.parse(answer.body, answer.kind, answer.url)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Unreachable(f"{page} is no page of an index") from None
    files = {file.name: file for file in listed
             if file.name.startswith(begins) and file.name.endswith("_x86_64.whl") and file.sha256}
    if not files:
        raise Unreachable(f"{page} has no {begins[0]}… with a sha256")
    target: Path = asked.data / "sources.yml"
    head, mark, rest = target.read_text().partition(f"    {name}:")
    for key, found in (("pinned", {each: file.sha256 for each, file in sorted(files.items())}),
                       ("addresses", {each: file.url for each, file in sorted(files.items())})):
        line = f"      {key}: {json.dumps(found)}"
        rest = re.sub(rf"(?m)^      {key}: \{{.*\}}$", lambda _, line=line: line, rest, count=1)  # type: ignore[misc]
    atomic.write(target, head + mark + rest)
    return target


def hub_kernel(asked: argparse.Namespace, row: HubKernel) -> Path:
    """Write the kernel's lock, whole or not at all, and name it in sources.yml."""
    api = f"{asked.hub.rstrip('/')}/api/kernels/{row.repo}"
    try:
        revision = _json(asked.hub, f"{api}/revision/{row.branch}")["sha"]
        builds = {}
        for build in (row.variant.format(cuda=cuda.replace(".", "")) for cuda in row.cuda):
            if listed := _json(asked.hub, f"{api}/tree/{revision}/build/{build}?recursive=true"):
                builds[build] = [_kernel_file(asked.hub, row.repo, revision, build, each) for each in listed
                                 if each["type"] == "file" and not each["path"].endswith(".pyc")]
                print(f"pins: {row.repo}, {build}: {len(builds[build])} files")
    except (KeyError, TypeError, AttributeError):
        raise Unreachable(f"{api} is no repository of the Hub with a branch {row.branch}") from None
    if not builds:
        raise Unreachable(f"{api} at {revision} has no build {row.variant}")
    made = {"repo": row.repo, "revision": revision, "builds": builds,
            "source": f"branch {row.branch}, asked and fetched by scripts/pins.py, {date.today()}"}
    text = yaml.safe_dump(made, sort_keys=False, width=200)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "hub-kernel.yml").write_text(text)
        load(Path(folder) / "hub-kernel.yml", KernelLock)  # as the product reads it: a path may be a place of a host
    target, named = asked.data / "locks" / "hub-kernel.yml", asked.data / "sources.yml"
    atomic.write(target, f"# A kernel's files, each with its sha256. `make pins` writes it; don't edit.\n{text}")
    head, mark, rest = named.read_text().partition(f"    repo: {row.repo}\n")
    atomic.write(named, head + mark + re.sub(r"(?m)^    lock: .*$", f"    lock: {target.name}", rest, count=1))
    return Path(target)


def _kernel_file(hub: str, repo: str, revision: str, build: str, listed: Mapping[str, Any]) -> dict[str, Any]:
    """One file of a build, as the lock has it; the Hub lists the sha256 of those that it keeps in LFS."""
    sha256 = listed["lfs"]["oid"] if listed.get("lfs") else None
    if sha256 is None:
        with tempfile.TemporaryDirectory() as folder:
            sha256 = fetch(f"{hub.rstrip('/')}/kernels/{repo}/resolve/{revision}/{quote(listed['path'])}",
                           Path(folder) / "file", None, Terms(hub))
    return {"path": listed["path"].removeprefix(f"build/{build}/"), "sha256": sha256, "bytes": listed["size"]}


def _json(hub: str, url: str) -> Any:
    """A page of the Hub's API; {} where there is none. Raises Unreachable where it is something else."""
    answer = get(url, SECONDS, "application/json", own=hub)
    if answer.status != 200:
        return {}
    try:
        return json.loads(answer.body)
    except ValueError:
        raise Unreachable(f"{url} is no page of the Hub's API") from None


def hashes(index: str, name: str, version: str, pythons: Iterable[str]) -> list[str]:
    """The sha256 of a release's wheels for these Pythons on linux x86_64."""
    answer = get(pages.page_url(index, name), SECONDS, pages.ACCEPT, own=index)
    found = set()
    for file in pages.parse(answer.body, answer.kind, answer.url):
        if file.name.endswith(".whl") and str(parse_wheel_filename(file.name)[1]) == version:
            tags = parse_wheel_filename(file.name)[3]
            if any(tags & set(pages.ranks(python)) for python in pythons):
                found.add(file.sha256)
    if not found or None in found:
        raise Unreachable(f"{index} has no {name} {version} with a sha256")
    return sorted(each for each in found if each)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
