"""Whether a stack's CUDA and its torch build can exist: what the tables of rules.yml have against them. Pure.

A release or a build that the tables don't know is taken at the stack's word.
"""

from __future__ import annotations

from collections.abc import Sequence

from packaging.version import Version

from qwen_rig.catalog.rules import load_rules
from qwen_rig.catalog.stack_types import Torch
from qwen_rig.catalog.yamlfile import YamlFile


def check(file: YamlFile, cuda: str, torch: Torch | None, installed: Sequence[tuple[str, str]]) -> None:
    """Raises RigError where no driver is known for a stack's CUDA, or its torch contradicts the rules or its lock.
    `installed`: (where it stands, version) of each torch that the stack would install."""
    known = load_rules().cuda
    if cuda not in known:
        raise file.error(f"{'torch.' if torch else ''}cuda can't be {cuda!r}: no driver is known for it",
                         ("torch", "cuda") if torch else ("cuda",), f"it takes {', '.join(known)}")
    if torch is None or torch.release is None:
        return
    if not Version(torch.release).is_prerelease:  # nightly builds have their own CUDA and architectures
        _published(file, torch, torch.release)
    for place, version in installed:
        if _public(version) != _public(torch.release):
            raise file.error(f"torch.release is {torch.release}, but {place} is {version}", ("torch", "release"),
                             f"give both the same version, then make lock STACK={file.path}")


def _published(file: YamlFile, torch: Torch, release: str) -> None:
    rules, tag = load_rules(), torch.cuda_tag
    builds = rules.torch_builds(release)
    if builds and tag not in builds:
        raise file.error(f"torch {release} was never published for CUDA {torch.cuda}{rules.what_exists(release, tag)}",
                         ("torch", "release"), "take a torch.release and a torch.cuda that go together")
    build = f"{Version(release).major}.{Version(release).minor} {tag}"
    archs = rules.archs.get(build)
    if archs and set(archs) != set(torch.archs):
        raise file.error(f"torch.archs isn't what torch {build} has code for", ("torch", "archs"),
                         f"make it [{', '.join(archs)}]")


def _public(version: str) -> Version:
    """Without the local part: 2.8.0+cu128 is release 2.8.0."""
    return Version(Version(version).public)
