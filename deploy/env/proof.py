"""What a proof of the env is about, and what the last one said can't be done in it. Pure."""

from __future__ import annotations

from qwen_rig.deploy.env import diagnosis
from qwen_rig.plan.context import Context
from qwen_rig.plan.digest import digest
from qwen_rig.plan.env import records


def fingerprint(ctx: Context) -> str:
    """What a verification is about: env, driver, GPUs, kernel, attention. Another value, and it must be redone.
    Records on hosts hold it: its form must not change."""
    env, made = ctx.state.env, records(ctx).flash_attn
    return digest([
        ctx.stack.lock_id, sorted(env.packages.items()) if env else None, ctx.state.driver.loaded_version,
        sorted(gpu.uuid or "" for gpu in ctx.state.gpus), ctx.machine.kernel, made.attention if made else None,
        ctx.knobs.verification_gpu,
    ])


def failed_checks(ctx: Context) -> list[str]:
    """What the last verification said can't be done in the env, while that verification still stands."""
    verified = records(ctx).verification
    return diagnosis.proofs(ctx, verified) if verified and verified.fingerprint == fingerprint(ctx) else []
