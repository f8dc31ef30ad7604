"""What has changed on a host since the last apply, and whether a saved plan still holds for it. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

from qwen_rig.facts.records import Records
from qwen_rig.facts.state import State
from qwen_rig.managed import GUARD, NOVA, REPOSITORY
from qwen_rig.plan.context import Context
from qwen_rig.plan.document import of_step
from qwen_rig.plan.env import records
from qwen_rig.plan.files import dumped
from qwen_rig.plan.model import Action, Drift, FileChange, Plan
from qwen_rig.redaction import redacted

OF_THE_ENV = ("env", "attention", "training")
FORM = 1  # of the snapshot; a record of another form is passed over


def snapshot(ctx: Context) -> dict[str, Any]:
    """The part of a host's state that only we, or somebody behind our back, can change. Plain data, no secrets."""
    state, driver, env, made = ctx.state, ctx.state.driver, ctx.state.env, _records(ctx)
    return {
        "form": FORM,
        "machine": ctx.machine.machine_id,
        "stack": ctx.stack.name,
        "kernel": ctx.machine.kernel,
        "gpus": sorted(gpu.uuid or gpu.pci_bus_id or "unknown" for gpu in state.gpus)
        or sorted(gpu.slot for gpu in state.pci_gpus),
        "driver": {"loaded_version": driver.loaded_version, "flavour": driver.flavour,
                   "installed_version": driver.installed_version, "installed_flavour": driver.installed_flavour},
        "toolkits": {row.path: row.release for row in state.cuda},
        "conda": {row.prefix: row.version for row in state.conda if row.sound},
        "env": {"path": env.path, "target": env.target, "python": env.python,
                "torch": asdict(env.torch) if env.torch else None, "packages": dict(env.packages)} if env else None,
        "files": {path: _text(state, path, digest) for path, digest in state.files.items()
                  if path in (*GUARD, REPOSITORY) or (digest and path in NOVA)},
        "training": made.training.raw if made.training else {},
        "attention": made.flash_attn.attention if made.flash_attn else None,
    }


def sound(raw: Mapping[str, Any]) -> bool:
    """Whether plain data has all that a comparison reads, each value of its type."""
    env = raw.get("env", "none")
    return (all(_maybe_text(raw, key) for key in ("machine", "kernel", "attention"))
            and isinstance(raw.get("gpus"), list) and all(isinstance(each, str) for each in raw["gpus"])
            and all(_texts(raw.get(key)) for key in ("driver", "toolkits", "conda", "files"))
            and {"loaded_version", "flavour", "installed_version", "installed_flavour"} <= raw["driver"].keys()
            and isinstance(raw.get("training"), dict) and (env is None or _sound_env(env)))


def _sound_env(env: Any) -> bool:
    return (isinstance(env, dict) and all(_maybe_text(env, key) for key in ("path", "target", "python"))
            and _texts(env.get("packages")) and (env.get("torch", "none") is None or _texts(env.get("torch"))))


def _maybe_text(raw: Mapping[str, Any], key: str) -> bool:
    return key in raw and (raw[key] is None or isinstance(raw[key], str))


def _texts(raw: Any) -> bool:
    return isinstance(raw, dict) and all(value is None or isinstance(value, str) for value in raw.values())


def _text(state: State, path: str, digest: str | None) -> str | None:
    """A file's text without logins, its digest where the text isn't there."""
    text = state.texts.get(path)
    return digest if text is None else redacted(text)


def _records(ctx: Context) -> Records:
    return records(ctx)


def fingerprint(ctx: Context) -> str:
    """Of the host as it is and of what is wanted of it: another value, and a saved plan no longer holds."""
    about = [snapshot(ctx), ctx.stack.lock_id, asdict(ctx.knobs), sorted(ctx.state.dpkg.items())]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]


def outdated(saved: Mapping[str, Any], plan: Plan, now: Mapping[str, Any]) -> list[str]:
    """What differs between a host's saved plan (docs/plan.schema.json) and its plan and snapshot now, a line each; []
    where the saved plan holds. The steps are compared for themselves, too: they rest on more than a snapshot tells.
    """
    lines = [f"{row.what}: {row.was} → {row.now}" for row in differences(saved["state"], now)]
    meant = {row["component"]: (row["title"], _does(row)) for row in saved["steps"]}
    found = {step.component: (step.title, _does(of_step(step))) for step in plan.steps}
    for component, (title, _) in {**meant, **found}.items():
        was, does = (each.get(component, (title, "nothing to do"))[1] for each in (meant, found))
        if was != does:
            lines.append(f"step {title} was: {was}, is now: {does}")
    if not lines and saved["fingerprint"] != plan.fingerprint:
        lines.append("its knobs, its stack's lock or its Debian packages are others, though each step is the same")
    return lines


def _does(step: Mapping[str, Any]) -> str:
    """What a step of a document changes: `add (none → gcc g++)`; `nothing to do` where it changes nothing."""
    if not Action(step["action"]).changes:
        return "nothing to do"
    said = "; ".join((f"{step['now']} → {step['wanted']}", *step["problems"]))
    return f"{step['action']} ({said})"


def drift(ctx: Context) -> tuple[Drift, ...]:
    """What differs between the last apply's snapshot and now; () where there is none to compare with.

    A machine of another id under the same name is not compared: it is another machine.
    """
    before = ctx.applied.snapshot if ctx.applied else None
    if not before or before.get("form") != FORM or not sound(before):
        return ()
    now = snapshot(ctx)
    if before["env"] and PurePosixPath(before["env"]["path"] or "").name != ctx.knobs.env_name:
        before = {**before, **{key: now[key] for key in OF_THE_ENV}}  # another one is wished for: that one hasn't gone
    return differences(before, now)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[Drift, ...]:
    """What differs between two snapshots, one Drift each."""
    if before["machine"] != now["machine"]:
        return (Drift("machine", before["machine"] or "no id", f"{now['machine'] or 'no id'}: another machine, or a "
                      "new installation"),)
    return tuple(_differences(before, now))


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Drift]:
    if before["gpus"] != now["gpus"] and (len(before["gpus"]) != len(now["gpus"]) or _uuids(before) == _uuids(now)):
        yield Drift("GPUs", ", ".join(before["gpus"]) or "none", ", ".join(now["gpus"]) or "none")
    if before["kernel"] != now["kernel"]:
        yield Drift("kernel", before["kernel"], now["kernel"])
    yield from _driver(before["driver"], now["driver"])
    yield from _each("CUDA toolkit", before["toolkits"], now["toolkits"])
    yield from _each("conda", before["conda"], now["conda"])
    yield from _env(before["env"], now["env"])
    if before["attention"] != now["attention"]:
        yield Drift("attention", _said(before["attention"]), _said(now["attention"]))
    for path in sorted({*before["files"], *now["files"]}):
        was, there = before["files"].get(path), now["files"].get(path)
        if was != there:
            yield Drift(path, *_file_words(was, there), FileChange(path, was, there or ""))
    if before["training"] != now["training"]:
        yield Drift("training.json", *_file_words(before["training"], now["training"]),
                    FileChange("training.json", dumped(before["training"]), dumped(now["training"])))


def _file_words(was: Any, there: Any) -> tuple[str, str]:
    return ("there" if was else "absent"), ("altered" if was else "there") if there else "gone"


def _uuids(snap: Mapping[str, Any]) -> bool:
    """Whether the cards are told by UUID (a driver ran) or by slot alone; one can't be compared with the other."""
    return any(name.startswith("GPU-") for name in snap["gpus"])


def _driver(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Drift]:
    for kind, version, flavour in (("NVIDIA driver, installed", "installed_version", "installed_flavour"),
                                   ("NVIDIA driver, loaded", "loaded_version", "flavour")):
        was = f"{before[version] or 'none'} {before[flavour] or ''}".strip()
        there = f"{now[version] or 'none'} {now[flavour] or ''}".strip()
        if was != there:
            yield Drift(kind, was, there)


def _env(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> Iterator[Drift]:
    if before is None or now is None:
        if before or now:
            yield Drift("env", before["path"] if before else "none", now["path"] if now else "gone")
        return
    if before["target"] != now["target"]:
        yield Drift("env link", _said(before["target"]), _said(now["target"]))
    if before["python"] != now["python"]:
        yield Drift("Python of the env", _said(before["python"]), _said(now["python"]))
    yield from _each("", before["packages"], now["packages"])
    builds = [f"{torch['version']}, CUDA {torch['cuda'] or 'none'}" if torch else "absent"
              for torch in (before["torch"], now["torch"])]
    if builds[0] != builds[1]:
        yield Drift("torch's build", builds[0], builds[1])


def _each(kind: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Drift]:
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            yield Drift(f"{kind} {name}".strip(), _said(before.get(name)), _said(now.get(name)))


def _said(value: Any) -> str:
    return str(value) if value else "absent"
