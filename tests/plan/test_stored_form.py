"""What hosts, ledgers and saved plans hold of a state keeps its form, from one release of this tool to the next.

A verification's and flash-attn's fingerprint lie on hosts, a snapshot in the controller's ledger. Each value below was
computed while a state was still a dict of strings. Where one changes, every converged host does that step again (a
fingerprint), or is said to have drifted (the snapshot). A new lock of a stack changes them rightly; nothing else may.
(0.3.0: guide's lock has bitsandbytes; training.json has trust_remote_code false, which is not compared.)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from qwen_rig.deploy.env.proof import fingerprint
from qwen_rig.deploy.flash_attn.plan import flash_spec
from qwen_rig.deploy.planning import make_plan
from qwen_rig.deploy.training.plan import settings
from qwen_rig.plan import Applied
from qwen_rig.plan.drift import snapshot

from .states import RTX4090, RTX5090, bare, context, with_driver
from .test_plan import converged

SMI = [{"index": n, "name": "NVIDIA GeForce RTX 5090", "uuid": f"GPU-{n}", "pci_bus_id": f"00000000:0{n + 1}:00.0",
        "memory_mib": 32607, "compute_capability": "12.0", "mig": None} for n in range(2)]


def two_cards() -> dict[str, Any]:
    state = with_driver(bare(RTX5090, RTX5090, compilers={"gcc": "12.2.0", "g++": "12.2.0"}, machine="0a1b"),
                        "580.95.05", "open")
    state["gpus"] = SMI[::-1]
    state["cuda"] = [{"path": "/usr/local/cuda-12.8", "release": "12.8", "version": "12.8.93"}]
    state["files"], state["texts"] = {"/etc/apt/sources.list.d/qwen-rig-nvidia.sources": "x"}, {}
    return state


def proven() -> dict[str, Any]:
    """As a host is left by a run that kept a wheel."""
    state = converged("guide")
    state["gpus"] = SMI[:1]
    wheel = {"rung": "wheel", "wheel": "a.whl", "version": "2.8.3", "archs": ["sm_120"], "sha256": "0" * 64,
             "minutes": 1.5, "proof": {"status": "pass", "why": None, "cases": [], "worst": 0.003, "tolerance": 0.02}}
    state["generations"][0]["records"]["flash_attn"] |= wheel | {
        "attention": "flash_attention_2", "why": "a.whl works", "tried": [{**wheel, "why_not": None}], "rejected": [],
        "build": None, "time": 1}
    return state


STATES: dict[str, Callable[[], dict[str, Any]]] = {
    "bare": lambda: bare(RTX4090), "two cards": two_cards, "converged": lambda: converged("guide"), "proven": proven}


def stored(name: str) -> dict[str, str]:
    ctx = context(STATES[name](), "guide")
    return {"verify": fingerprint(ctx), "flash_attn": flash_spec(ctx).fingerprint, "snapshot": short(snapshot(ctx)),
            "training.json": short(settings(ctx))}


def short(thing: Any) -> str:
    """Of its very bytes: the order of keys counts, too."""
    return hashlib.sha256(json.dumps(thing).encode()).hexdigest()[:16]


THEN = {
    "bare": {"verify": "3964e6bf671d808e", "flash_attn": "13f3385e7da352b2", "snapshot": "37666859a7c9dcf2",
        "training.json": "44eba1da0a2be5f2"},
    "two cards": {"verify": "97c7ddb691d38606", "flash_attn": "470c8e337111d1da", "snapshot": "5f2aa7f0c341fd2f",
        "training.json": "aa2cfc11af246c56"},
    "converged": {"verify": "4440211921450c59", "flash_attn": "ed0c11ec43b6a506", "snapshot": "97c18a5e76b24c0a",
        "training.json": "82e0d2eaf4471150"},
    "proven": {"verify": "4489ff8b419df269", "flash_attn": "158a2519659432f1", "snapshot": "6bf3395d93834ac4",
        "training.json": "c4d6e4d77ac5c3f4"},
}


@pytest.mark.parametrize("name", STATES)
def test_what_was_stored_then_is_what_is_stored_now(name: str) -> None:
    assert stored(name) == THEN[name]


@pytest.mark.parametrize("name", STATES)
def test_a_ledger_of_then_tells_of_no_drift_now(name: str) -> None:
    ctx = context(STATES[name](), "guide")
    left = Applied("2026-11-24T10:02:00+00:00", json.loads(json.dumps(snapshot(ctx))))
    assert make_plan(replace(ctx, applied=left)).drift == ()
