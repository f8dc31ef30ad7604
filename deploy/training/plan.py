"""training.json and what stands beside it: the settings for the card that is here. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from qwen_rig.deploy.env.plan import Mend
from qwen_rig.deploy.flash_attn.plan import decision
from qwen_rig.deploy.flash_attn.plan import environment as attention_environment
from qwen_rig.deploy.verification.plan import record_file
from qwen_rig.fits import LENGTH, largest, need
from qwen_rig.frozen import frozen
from qwen_rig.plan.context import Context, gib
from qwen_rig.plan.env import env_record, envs_dir, holder, records
from qwen_rig.plan.files import as_json
from qwen_rig.plan.model import Action, Payload, Refusal, Step
from qwen_rig.plan.place import hf_home
from qwen_rig.plan.planner import Parts, Planner, Rule, fact, gpus, new_env
from qwen_rig.training import accelerate_config, accelerate_text, training_settings
from qwen_rig.training import fitting as fit_of


@frozen
class TrainingPayload(Payload):
    """training.json as it should be; the env's folder; the largest models that fit, in words, "" if none is known; the
    name of the verification's record."""

    settings: Mapping[str, Any]
    env: str
    fits: str
    verification: str

    def next_commands(self, login: str, host: str) -> list[str]:
        return [f"{login} cat {self.env}/.rig/{self.verification}",
                f"{login} {self.env}/bin/python {self.env}/.rig/train_qwen.py --help",
                *([f"qwen-rig fits {host}      # {self.fits} (estimates)"] if self.fits else [])]


def settings(ctx: Context) -> dict[str, Any]:
    """training.json as it should be: the guide's settings, scaled to the smallest card that is really here; and what
    accelerate.yaml beside it says."""
    cards = [gpu for gpu in ctx.fit if gpu.mig] or [gpu for gpu in ctx.fit if gpu.memory_mib]
    smallest = min(cards, key=lambda gpu: gpu.memory_mib or 0, default=None)
    weakest = min((gpu.compute_capability for gpu in ctx.fit if gpu.compute_capability), default=None)
    made = records(ctx).flash_attn
    settings = training_settings(
        memory_mib=smallest.memory_mib if smallest else None, compute_capability=str(weakest) if weakest else None,
        attention=(made.attention if made else None) or "sdpa", gpu_name=smallest.name if smallest else None,
        largest=None if any(gpu.mig for gpu in ctx.fit) else ctx.largest, model=ctx.model, cards=len(ctx.fit))
    # The endpoint that was measured best when the env was built; the user's own stands above it.
    endpoint = ctx.knobs.source_huggingface or env_record(ctx).hf_endpoint
    environment = {**ctx.environment, **attention_environment(ctx, made)}
    return {**settings, "attention_from": decision(made), "hf_home": hf_home(ctx),
            "hf_endpoint": endpoint, **({"environment": environment} if environment else {}),
            "accelerate": accelerate_config(settings, len(ctx.fit))}


def fitting(ctx: Context) -> str:
    """The largest models that fit the smallest card, "" where none does or its memory isn't known."""
    sizes = [gpu.memory_mib for gpu in ctx.fit if gpu.memory_mib]
    if not sizes or any(gpu.mig for gpu in ctx.fit):
        return ""
    found = {name: largest(min(sizes), ctx.stack.model, method) for name, method in
             (("LoRA", "lora"), ("QLoRA", "qlora"))}
    return ", ".join(f"{name} up to {model.removeprefix('Qwen/')}" for name, model in found.items() if model)


def _beside(ctx: Context, want: dict[str, Any]) -> list[str]:
    """What is missing beside training.json, or (accelerate.yaml, which is made from it) isn't as it should be."""
    generation = holder(ctx)
    there = generation.beside if generation else None
    if there is None:
        return []
    text = hashlib.sha256(accelerate_text(want).encode()).hexdigest()
    said = [] if there.accelerate == text else ["accelerate.yaml"]
    return said + ([] if there.train_qwen else ["train_qwen.py"])


def _same(want: Mapping[str, Any], have: Mapping[str, Any]) -> list[str]:
    """The keys in which they differ. Another certificate that measured the same is no difference, nor is another
    attempt at flash-attn that ended the same but took longer, nor release 0.2.0's consent to a model's own code."""
    passing = {"batch_source": "date", "attention_from": "minutes"}

    def plain(row: Mapping[str, Any], key: str) -> Any:
        value = row.get(key)
        return {k: v for k, v in value.items() if k != passing.get(key)} if isinstance(value, dict) else value

    return sorted(key for key in want if key != "trust_remote_code" and plain(want, key) != plain(have, key))


def step(ctx: Context, before: Sequence[Step]) -> Step:
    """Written where it is missing or differs; anew after a new env."""
    env_changes = new_env(before)
    want, made = settings(ctx), records(ctx).training
    have = made.raw if made else {}
    path = f"{envs_dir(ctx)}/{ctx.knobs.env_name}/.rig/training.json"
    payload = TrainingPayload(want, f"{envs_dir(ctx)}/{ctx.knobs.env_name}", fitting(ctx), record_file(ctx, before))
    said = f"batch {want['per_device_train_batch_size']} × {want['gradient_accumulation_steps']}"
    if env_changes or not have:
        return Step("training.json", "none", said, Action.ADD,
                    f"{_whose(want)}{f'; fits {payload.fits} (estimates: rig fits)' if payload.fits else ''}",
                    known_after="env" if env_changes else "", payload=payload, files=as_json(path, None, want))
    changed, beside = _same(want, have), _beside(ctx, want)
    if any(isinstance(one.payload, Mend) and one.action.changes for one in before):
        beside = list(dict.fromkeys((*beside, "train_qwen.py")))  # the env moves to this release, and so does that
    if not changed and not beside:
        return Step("training.json", said, said, Action.NONE, _whose(want), payload=payload)
    if not changed:
        return Step("training.json", said, said, Action.CHANGE,
                    f"{', '.join(beside)} beside it isn't as it should be", payload=payload)
    why = f"differs in: {', '.join(changed)}" + (f"; {_whose(want)}" if "batch_source" in changed else "")
    return Step("training.json", "other", said, Action.CHANGE, why, payload=payload,
                files=as_json(path, have, want))


def _whose(want: Mapping[str, Any]) -> str:
    """Whose settings they are: the guide's, held to what was measured where it was."""
    source = want["batch_source"]
    whose = f"{want['model_name_or_path']} by {'QLoRA' if want['load_in_4bit'] else 'LoRA'} on {want['for']}" \
        if "model_name_or_path" in want else f"the guide's settings for {want['for']}"
    return whose + (
        f"; measured {source['date']}: {source['largest']} samples fit" if source["measured"] else "")


def explain(ctx: Context) -> Parts:
    """The cards, and how the batch is split."""
    made = records(ctx).flash_attn
    return [*gpus(ctx), fact("attention", made.attention if made else None,
                               "probe.HostState (.rig/flash_attn.json)")], [
        Rule(f"effective batch {ctx.rules.effective_batch}, split by "
             f"{f'what {ctx.model.name} takes (rig fits)' if ctx.model else 'memory'} of the smallest card",
             "qwen_rig/data/models.yml" if ctx.model else ctx.rules.source("batch")),
        Rule(f"bf16 and tf32 from compute capability {ctx.rules.bf16_from} on", "NVIDIA Ampere tuning guide")]


def _known_after_reboot(ctx: Context, step: Step) -> bool:
    return step.action.changes and any(gpu.memory_mib is None for gpu in ctx.gpus)


def refusals(ctx: Context, steps: Sequence[Step]) -> list[Refusal]:
    """A wanted model that these cards can't train: none of them has enough memory, or not the number format."""
    model, cards = ctx.model, [gpu for gpu in ctx.fit if gpu.memory_mib and not gpu.mig]
    if model is None or not cards:
        return []
    weakest = min((gpu.compute_capability for gpu in ctx.fit if gpu.compute_capability), default=None)
    if weakest and weakest < ctx.rules.bf16_from and "fp16" not in model.ways.precisions:
        return [Refusal(f"{model.name} gives NaN in float16, and compute capability {weakest} has no bfloat16",
                        "take a Qwen3 (model=Qwen/Qwen3-8B), or a card from Ampere on")]
    smallest = min(gpu.memory_mib or 0 for gpu in cards)
    if fit_of(model, smallest, ctx.largest, len(ctx.fit)):
        return []
    least = need(model, "qlora", 1, LENGTH, True).total
    smaller = largest(smallest, model.family, "qlora") or largest(smallest, "Qwen3", "qlora")
    return [Refusal(f"{model.name} takes {gib(least)} by QLoRA, and {len(ctx.fit)} × {gib(smallest)} is here",
                    f"take model={smaller}" if smaller else "take a card with more memory")]


PLANNER = Planner(step, explain, knobs=("model",), refusals=refusals, known_after_reboot=_known_after_reboot,
                  needs=("env",))
