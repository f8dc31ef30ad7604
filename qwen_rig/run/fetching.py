"""A run's files brought here: in parts, each asked for anew after a break, whole and checked or not at all; and what is
done on the host before: merging, evaluating."""

from __future__ import annotations

import base64
import binascii
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from qwen_rig.errors import RigError
from qwen_rig.finetune import curve, record, words
from qwen_rig.finetune.fetched import File, Target, listed
from qwen_rig.finetune.record import Record
from qwen_rig.finetune.told import Told
from qwen_rig.plan import Action, Step
from qwen_rig.units import size, span

from . import beforehand
from .adapter import LOST, Host
from .finetune import ask, look, take_in
from .job import BACKOFF_S, attend
from .limits import Hopeless
from .programs import env_path, program
from .run import Run

T = TypeVar("T")
PART = 3 << 20  # bytes of one answer; in base64 a third more, within bounds.yml's answer
MOVES = 3  # times that the checkpoint which is fetched may go, as the run trains on
MERGE_S, EVAL_S = 3600, 4 * 3600
MERGE = ("train_merge.py", "train_files.py")
EVAL = ("train_eval.py", "train_files.py", "train_qwen.py")


class Gone(Exception):
    """The checkpoint is no longer there: a newer one is."""


def patiently(host: Host, act: Callable[[], T], what: str) -> T:
    """What `act` gives, the connection made again where it breaks, as long as the knob timeout_reconnect says. Raises
    RigError."""
    run, patience = Run.of(host), beforehand.knobs(host).timeout_reconnect
    end: float | None = None
    pause = float(BACKOFF_S[0])
    while True:
        try:
            if end is None or run.links.reconnected(host):
                return act()
        except Hopeless:
            raise
        except LOST:
            pass
        if end is None:
            end = time.monotonic() + patience
            run.report.progress(host.name, "connection lost, connecting again")
        elif time.monotonic() > end:
            raise RigError(f"{what}: connection lost, and not back within {span(patience)}", "",
                           "the same command goes on where it was")
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, BACKOFF_S[1])


def fetch(host: Host, kept: Record, target: Target, merged: bool) -> dict[str, Any]:
    """Bring the run's result, or what its last whole checkpoint holds, into a folder here."""
    for _ in range(MOVES):
        found = _looked(host, kept)
        kept = take_in(kept, found)
        folder, files, step = _merged(host, kept, found) if merged else _source(kept, found)
        target.begin(files, step, found.state == "finished")
        try:
            for number, file in enumerate(files, 1):
                _bring(host, kept, f"{folder}/{file.name}", file, target, f"{number}/{len(files)}")
        except Gone:
            continue
        target.end(files, step, found.state == "finished")
        total = sum(file.bytes for file in files)
        Run.of(host).report.outcomes[host.name] = (
            "✓ fetched", f"{kept.name}, step {step}: {len(files)} files, {size(total)}, in {target.folder}")
        return {"form": words.FORM, "run": kept.name, "step": step, "state": found.state, "folder": str(target.folder),
                "files": {file.name: {"bytes": file.bytes, "sha256": file.sha256} for file in files}}
    raise RigError(f"the checkpoints of {kept.name} are replaced faster than they can be copied", "",
                   "stop the run, or save less often: --save_steps")


def _looked(host: Host, kept: Record) -> Told:
    """The run as its host tells of it. Raises RigError where that host knows none."""
    found = patiently(host, lambda: look(host, kept), f"asking for {kept.name}")
    if found is None:
        raise RigError(f"the host has no run {kept.name}", "", "was its disk replaced?")
    return found


def _source(kept: Record, found: Told) -> tuple[str, list[File], int | None]:
    """(folder there, its files, step): of the result of a run that has finished, else of the last whole checkpoint."""
    files = listed(found.files, kept.host)
    place = f"{kept.folder}/out" + (f"/{found.folder}" if found.folder else "")
    step = found.end.get("step") if found.state == "finished" else found.checkpoint
    return place, files, step if isinstance(step, int) else None


def _adapter(kept: Record, found: Told) -> tuple[str, int]:
    """(the folder there of what has been trained, its step). Raises RigError where there is none yet."""
    place, _, step = _source(kept, found)
    return place, step or 0


def _merged(host: Host, kept: Record, found: Told) -> tuple[str, list[File], int | None]:
    """The same of the merged model, which is made there where it isn't of that step."""
    place, step = _adapter(kept, found)
    if found.merged.get("step") != step:
        done(host, MERGE, [kept.folder, place, str(step)], MERGE_S, f"merges {kept.name}, step {step}")
        found = _looked(host, kept)
    files = found.merged.get("files")
    return f"{kept.folder}/merged", listed(files if isinstance(files, dict) else {}, kept.host), step


def done(host: Host, names: tuple[str, ...], arguments: Sequence[str], seconds: int, what: str) -> None:
    """Run one of host/'s programs there as a job. Raises RigError with its last words where it fails."""
    run = Run.of(host)
    made = program(run.memory.context(host), names, arguments, seconds).job
    run.report.started(host.name, Step(what, "-", "-", Action.ADD, "", component=made.step), changes=False)
    outcome = attend(host, made)
    if not outcome.ok:
        last = next((line for line in reversed(outcome.lines) if line.strip()), f"it ended with {outcome.code}")
        raise RigError(f"{what} failed: {last[:300]}", "", f"its log on the host: {outcome.log}" if outcome.log else "")


def _bring(host: Host, kept: Record, path: str, file: File, target: Target, which: str) -> None:
    """One file, from where it broke off. Raises Gone, RigError."""
    if target.has(file):
        return
    at, said = target.come(file), 0.0
    while at < file.bytes:
        most = min(PART, file.bytes - at)
        printed = patiently(host, lambda at=at, most=most: ask(  # type: ignore[misc]
            host, kept.env["path"], kept.folder, "part", path, str(at), str(most)), f"fetching {file.name}")
        try:
            data = base64.b64decode("".join(str(printed).split()), validate=True)
        except (binascii.Error, ValueError):
            raise RigError(f"a part of {file.name} arrived damaged", "",
                           "the same command goes on where it was") from None
        if not data:
            raise Gone
        if len(data) > most:
            raise RigError(f"the host sends more of {file.name} than was asked for", kept.host, "don't trust that host")
        target.add(file, at, data)
        at += len(data)
        if time.monotonic() - said > 1 or at == file.bytes:
            said = time.monotonic()
            Run.of(host).report.progress(host.name, f"{which} {file.name}: {size(at)} of {size(file.bytes)}")
    target.settle(file)


def evaluate(host: Host, kept: Record, prompts: Sequence[str], tokens: int, samples: int) -> Record:
    """The loss on the eval split, and both models' answers, made on the host and put on record."""
    found = _looked(host, kept)
    place, step = _adapter(kept, found)
    ctx = Run.of(host).memory.context(host)
    spec = {"step": step, "prompts": list(prompts), "tokens": tokens, "samples": samples,
            "training": f"{env_path(ctx)}/.rig/training.json"}
    done(host, EVAL, [kept.folder, place, json.dumps(spec)], EVAL_S, f"evaluates {kept.name}, step {step}")
    made = evaluation(_looked(host, kept).evaluation)
    if not made:
        raise RigError("the evaluation left no record", kept.host, "run the same command again")
    loss = f"loss {made['loss']:.3f}" + (f", before {made['loss_base']:.3f}" if made["loss_base"] is not None else "")
    Run.of(host).report.outcomes[host.name] = ("✓ evaluated", f"{kept.name}, step {step}: {loss}")
    return record.changed(kept, evaluation=made)


def evaluation(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a host tells of an evaluation, each part of its type; {} where it has no loss."""
    def number(name: str) -> float | None:
        value: Any = found.get(name)
        plain = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < curve.MOST
        return float(value) if plain else None  # NaN and infinity compare false: JSON has neither

    answers = found.get("answers")
    rows = [{name: row[name][:4000] if isinstance(row.get(name), str) else None
             for name in ("prompt", "base", "adapter")} for row in (answers if isinstance(answers, list) else [])[:20]
            if isinstance(row, dict)]
    if (loss := number("loss")) is None:
        return {}
    return {"loss": loss, "loss_base": number("loss_base"), "step": number("step"), "samples": number("samples"),
            "split": "train" if found.get("split") == "train" else "eval", "answers": rows}
