"""The records in an env's `.rig`: JSON that programs on the host wrote, in the shape that this project gives them.

A record tells what was done, not what is. One of another shape counts as absent (facts.state). Pure: knows no pyinfra.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from qwen_rig.catalog.marks import Before
from qwen_rig.frozen import frozen


@frozen
class EnvRecord:
    """env.json, of the build of the env. `refused`: `label:why` of each source that didn't serve the lock, with `;`
    between; `installer`, `source`: what fetched the packages, and the label of the source; `previous`: what the env's
    link pointed at before, "" where it pointed nowhere; None: not told."""

    stack: str | None = None
    lock_sha256: str | None = None
    hf_endpoint: str | None = None
    refused: str = ""
    installer: str | None = None
    source: str | None = None
    previous: str | None = None


@frozen
class Tried:
    """One rung of flash-attn that was attempted. `why_not`: why it wasn't kept, None for the one that was; `last`: the
    last lines that it printed."""

    rung: str | None = None
    why_not: str | None = None
    last: tuple[str, ...] = ()
    sha256: str | None = None


@frozen
class BuiltBy:
    """Who built the wheel that was kept: the host's name, its trust domain (qwen_rig/domain.py's `id`; None where
    release 0.2.0 wrote it)."""

    host: str = ""
    domain: str | None = None


@frozen
class AttentionRecord:
    """flash_attn.json, of the attempt at flash-attn. `attention`: as attn_implementation names it ("sdpa"); `archs`:
    what the kept wheel has code for; `built`: who built it, where it came from the controller's cache; `minutes`: of
    the whole attempt; `proof`: figures of the check, as the check prints them; `head_dims`: what it was proven for,
    None where an older release wrote it; `speed`: its time and SDPA's for each of them, in words."""

    attention: str | None = None
    rung: str | None = None
    version: str | None = None
    sha256: str | None = None
    archs: tuple[str, ...] = ()
    why: str | None = None
    tried: tuple[Tried, ...] = ()
    rejected: tuple[str, ...] = ()
    proof: Mapping[str, Any] | None = None
    minutes: float = 0.0
    fingerprint: str | None = None
    built: BuiltBy | None = None
    head_dims: tuple[int, ...] | None = None
    speed: str = ""


@frozen
class Check:
    """One check of a verification. `status`: pass, fail or not_run; `measured`: whatever that check measures."""

    name: str = ""
    status: str = "?"
    why: str | None = None
    measured: Any = None


@frozen
class VerificationRecord:
    """verification.json, of the proof on the host. `overall`: pass, partial or fail; `fingerprint`: what it was about;
    `file`: the record's name in .rig (verify.json where release 0.1.0 wrote it)."""

    fingerprint: str | None = None
    overall: str | None = None
    file: str = "verification.json"
    checks: tuple[Check, ...] = ()

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.status == "fail")


@frozen
class TrainingRecord:
    """training.json, which users may edit: `raw` is the whole file. Launch files depend on the other two."""

    raw: Mapping[str, Any]
    bf16: bool
    fp16: bool


@frozen
class PrefetchRecord:
    """prefetch.json: the model that was fetched, at which commit, into which HF_HOME."""

    model: str
    home: str
    commit: str


def _unless_empty(raw: Any) -> Any:
    return None if raw == {} else raw


def _with_raw(raw: Any) -> Any:
    return {**raw, "raw": raw} if isinstance(raw, dict) and raw else _unless_empty(raw)


_Empty = Before(_unless_empty)


@frozen
class Records:
    """The records of one env; None where there is none, or one that can't be read."""

    env: Annotated[EnvRecord | None, _Empty] = None
    flash_attn: Annotated[AttentionRecord | None, _Empty] = None
    verification: Annotated[VerificationRecord | None, _Empty] = None
    training: Annotated[TrainingRecord | None, Before(_with_raw)] = None
    prefetch: Annotated[PrefetchRecord | None, _Empty] = None
