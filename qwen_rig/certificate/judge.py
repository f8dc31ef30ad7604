"""What a host measured (qwen_rig/host/certify.py) × gates × rules × stack → one certificate a card. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from qwen_rig.catalog.rules import Rules
from qwen_rig.catalog.stack import Stack
from qwen_rig.certificate import judge_card, judge_work
from qwen_rig.certificate._verdict import Case, check
from qwen_rig.certificate.gates import Gate, Gates
from qwen_rig.certificate.model import Certificate, Check, duration, moment
from qwen_rig.domain import Identity
from qwen_rig.errors import RigError
from qwen_rig.facts.records import EnvRecord

MEASURED_FORMAT = 1  # qwen_rig/host/certify.py, FORMAT

# check → (whose raw result it reads, who judges it). gates.yml says in which order they are told.
JUDGES: dict[str, tuple[str, Callable[[Case, Gate], Check]]] = {
    **{name: (name, getattr(judge_card, name)) for name in ("identity", "driver", "kernel_log", "other_users", "ecc")},
    "pcie_errors": ("identity", judge_card.pcie_errors), "pcie": ("load", judge_card.pcie),
    "power_limit": ("identity", judge_card.power_limit), "throttle": ("load", judge_card.throttle),
    "temperature": ("load", judge_card.temperature),
    **{name: (name, getattr(judge_work, name)) for name in (
        "torch_build", "first_kernel", "precision", "matmul", "bandwidth", "transfer", "memory", "gated_delta",
        "training", "largest_batch", "peers", "all_reduce")},
    "sustained": ("load", judge_work.sustained), "sdpa": ("sdpa", judge_work.attention),
    "flash_attention": ("flash_attention", judge_work.attention), "save": ("training", judge_work.save),
    "resume": ("training", judge_work.resume),
}


def certificates(measured: Any, gates: Gates, rules: Rules, stack: Stack | None, host: Identity | None = None,
                 gpu: bool = True, where: str = "measurements",
                 built: EnvRecord | None = None) -> list[Certificate]:
    """A certificate for each card that the host measured; one without a UUID where it has none.

    `host` None: it is what the measurements call it, which is kept as their word. `stack` None: nothing is expected of
    torch and packages. `gpu` False: none is expected to answer, and what it can't
    do is `not run`. `built`: the record of the env on the host, whose lock the certificate names. Raises RigError where
    `measured` is not what qwen_rig/host/certify.py writes.
    """
    remedy = "run qwen_rig/host/certify.py there again"
    if not isinstance(measured, Mapping) or not isinstance(measured.get("cards"), list):
        raise RigError("these are no measurements of qwen_rig/host/certify.py", where, remedy)
    if measured.get("format") != MEASURED_FORMAT:
        raise RigError(f"these measurements have format {measured.get('format')!r}, and this qwen-rig reads "
                       f"{MEASURED_FORMAT}", where, remedy)
    try:
        made = [_certificate(Case(card, measured, gates, rules, stack, gpu, built), host or Identity(measured["host"]))
                for card in measured["cards"]]
        return made if host else [replace(each, stated=True) for each in made]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        raise RigError(f"these measurements are damaged ({type(error).__name__}: {error})", where, remedy) from None


def silent(measured: Any) -> list[str]:
    """GPUs on the host's PCI bus that nvidia-smi doesn't list, in words: none of these has a certificate."""
    found = measured.get("bus")
    data = found.get("data") if isinstance(found, Mapping) else None
    slots = data.get("silent") if isinstance(data, Mapping) else None
    return [f"GPU at {slot} doesn't answer nvidia-smi" for slot in slots] if isinstance(slots, list) else []


def _certificate(case: Case, host: Identity) -> Certificate:
    checks = tuple(_judged(case, gate) for gate in case.gates.checks.values())
    driver, torch = case.data("driver"), case.data("torch_build")
    emulated = bool(driver.get("emulated"))
    lock, stack = case.lock
    environment = {
        "driver": driver.get("version"), "cuda": torch.get("cuda"), "lock": lock, "stack": stack,
        "torch": torch.get("version"),
        "kernel": case.host["system"]["kernel"], "python": case.host["system"]["python"],
        "program": case.host["program"],
    }
    return Certificate(uuid=case.card["uuid"], name=case.card["name"] or "no GPU", host=str(host.name),
                       began=moment(case.host["began"]), seconds=duration(case.host["seconds"]),
                       overall=_overall(case, checks, emulated), emulated=emulated, environment=environment,
                       checks=checks, host_key=host.key)


def _judged(case: Case, gate: Gate) -> Check:
    source, judge = JUDGES[gate.name]
    found = case.found(source)
    if found["status"] == "measured":
        return judge(case, gate)
    why = str(found.get("why") or "no reason was given")
    torch_sees_none = not case.data("torch_build").get("gpus") and (case.stack is None or case.stack.torch is not None)
    if found["status"] == "not_run" and gate.name == "first_kernel" and case.gpu and torch_sees_none:
        return check(gate, "fail", "", "a GPU that torch can use", why)
    return check(gate, "fail" if found["status"] == "fail" else "not_run", "", "", why)


def _overall(case: Case, checks: tuple[Check, ...], emulated: bool) -> str:
    """fail; else partial, where something required was not run or nothing is real; else warn; else pass."""
    states = {check.status for check in checks}
    unproved = any(check.status == "not_run" and case.gates.checks[check.name].required for check in checks)
    if "fail" in states:
        return "fail"
    if unproved or emulated or case.card["uuid"] is None:
        return "partial"
    return "warn" if "warn" in states else "pass"
