"""flash-attn 4, a rung that is tried where the user asks for it (flash_attn=fa4): on which cards, with what. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from packaging.version import Version

from qwen_rig.catalog.datafile import DATA, MaybeTexts, Row, Sha256, Text, VersionText, Whole, load
from qwen_rig.catalog.flash_wheels import Candidate
from qwen_rig.catalog.hub_kernel import CHECK, has
from qwen_rig.catalog.lock import read_lock, select
from qwen_rig.catalog.rules import arch_of, covered
from qwen_rig.catalog.stack_types import Pin, Torch

FA4 = "fa4"  # the knob's word, and the rung's


@dataclass(frozen=True, kw_only=True)
class Flash4(Row):
    """The form of flash-attn-4.yml. `at_most`: the largest head_dim of cards that can't do with all; the keys above
    `wheel` are for `make lock`."""

    name: Text
    says: Text
    pythons: MaybeTexts
    pins: dict[Text, Pin]
    unpinned: MaybeTexts
    without: MaybeTexts
    lock: Text
    exclude_newer: Text
    wheel: Text
    sha256: Sha256
    bytes: Whole
    cuda: Text
    needs: dict[Text, VersionText]
    archs: MaybeTexts
    at_most: dict[Text, Whole]
    source: Text
    at_most_source: Text
    check_s: Whole
    check_source: Text

    @property
    def version(self) -> str:
        """Its release."""
        return next(iter(self.pins.values())).version


@cache
def flash4() -> Flash4:
    """flash-attn-4.yml. Raises RigError where the file is wrong."""
    return load(DATA / "flash-attn-4.yml", Flash4)


def candidate(pins: Mapping[str, Pin], torch: Torch | None, python: str,
              compute_capabilities: Sequence[Version | None], head_dims: Sequence[int],
              ) -> tuple[Candidate | None, list[str]]:
    """(flash-attn 4 as a rung, why it is out of the question)."""
    row = flash4()
    why = _misfits(row, pins, torch, python) + [
        line for cc in sorted({cc for cc in compute_capabilities if cc is not None})
        for line in _unfit(row, cc, head_dims)]
    if why:
        return None, [f"flash-attn 4: {line}" for line in why]
    return Candidate(row.wheel, "", row.sha256, row.bytes, FA4, own={
        "attention": "flash_attention_4", "package": row.name, "check": CHECK, "check_s": row.check_s,
        "requirement": f"{row.name}=={row.version} --hash=sha256:{row.sha256}",
        "companions": [{"name": name, "version": one.version, "hashes": list(one.hashes)}
                       for name, one in sorted(select(read_lock(DATA / "locks" / row.lock, {}), python).items())
                       if name != row.name]}), []


def _misfits(row: Flash4, pins: Mapping[str, Pin], torch: Torch | None, python: str) -> list[str]:
    """What of the stack it can't do with."""
    found = [] if has(pins, row.needs) else [
        "needs " + ", ".join(f"{name} {version} or newer" for name, version in row.needs.items())]
    if torch is None or torch.cuda.split(".")[0] != row.cuda:
        found.append(f"is for CUDA {row.cuda}, and the stack's torch for {torch.cuda if torch else 'none'}")
    return found if python in row.pythons else [*found, f"isn't locked for Python {python}"]


def _unfit(row: Flash4, cc: Version, head_dims: Sequence[int]) -> list[str]:
    """What of a card, or of the wished head dimensions on it, it can't do with."""
    if not covered(row.archs, cc):
        return [f"{arch_of(cc)}: it has a backward for {', '.join(row.archs)} only"]
    most = min((most for arch, most in row.at_most.items() if covered([arch], cc)), default=None)
    over = [str(dim) for dim in head_dims if most is not None and dim > most]
    return [f"{arch_of(cc)} has too little shared memory for head_dim {', '.join(over)} (at most {most}; "
            f"{row.at_most_source.partition(':')[0]})"] if over else []
