"""Whether a stack's CUDA and its torch build can exist: what the tables of rules.yml have against them. Pure.

A release or a build that the tables don't know is taken at the stack's word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.version import Version

from qwen_rig.catalog.rules import load_rules
from qwen_rig.errors import RigError

if TYPE_CHECKING:
    from qwen_rig.catalog.stack import Stack, Torch


def check(stack: Stack) -> None:
    """Raises RigError where no driver is known for the stack's CUDA, or its torch contradicts the rules or its lock."""
    rules, torch = load_rules(), stack.torch
    if stack.cuda not in rules.cuda:
        raise RigError(f"{'torch.' if torch else ''}cuda can't be {stack.cuda!r}: no driver is known for it",
                       str(stack.path), f"it takes {', '.join(rules.cuda)}")
    if torch is None or torch.release is None:
        return
    if not Version(torch.release).is_prerelease:  # nightly builds have their own CUDA and architectures
        _published(stack, torch, torch.release)
    for place, version in _installed(stack):
        if _public(version) != _public(torch.release):
            raise RigError(f"torch.release is {torch.release}, but {place} is {version}", str(stack.path),
                           f"give both the same version, then make lock STACK={stack.path}")


def what_exists(release: str, cuda_tag: str) -> str:
    """`: it exists for cu118 only, and cu128 begins with torch 2.7`, as the rules know it; "" where they don't."""
    rules, told = load_rules(), ""
    if builds := rules.torch_builds(release):
        told += f": it exists for {', '.join(builds)} only"
    first = rules.first_torch(cuda_tag)
    if first and Version(first) > Version(release):
        told += f", and {cuda_tag} begins with torch {first}"
    return told


def _published(stack: Stack, torch: Torch, release: str) -> None:
    rules, tag = load_rules(), stack.cuda_tag
    builds = rules.torch_builds(release)
    if builds and tag not in builds:
        raise RigError(f"torch {release} was never published for CUDA {torch.cuda}{what_exists(release, tag)}",
                       str(stack.path), "take a torch.release and a torch.cuda that go together")
    build = f"{Version(release).major}.{Version(release).minor} {tag}"
    archs = rules.archs.get(build)
    if archs and set(archs) != set(torch.archs):
        raise RigError(f"torch.archs isn't what torch {build} has code for", str(stack.path),
                       f"make it [{', '.join(archs)}]")


def _installed(stack: Stack) -> list[tuple[str, str]]:
    """(where it stands, version) of each torch that the stack would install, as far as it says."""
    if pin := stack.pins.get("torch"):
        return [("pins.torch", pin.version)]
    entries = (*stack.entries, *(stack.torch_index.entries if stack.torch_index else ()))
    return [("the lock's torch", entry.requirement.version) for entry in entries if entry.name == "torch"]


def _public(version: str) -> Version:
    """Without the local part: 2.8.0+cu128 is release 2.8.0."""
    return Version(Version(version).public)
