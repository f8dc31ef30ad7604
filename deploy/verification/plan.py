"""The verification: done again where what was proved has changed. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_rig.deploy.env.proof import fingerprint
from qwen_rig.facts.records import VerificationRecord
from qwen_rig.plan.context import Context
from qwen_rig.plan.env import envs_dir, records
from qwen_rig.plan.model import Action, Step
from qwen_rig.plan.planner import OURS, Parts, Planner, Rule, fact, new_env


def step(ctx: Context, before: Sequence[Step]) -> Step:
    """Done where there is no record, where its fingerprint differs, where it failed, or when asked for."""
    env_changes = new_env(before)
    made, wanted, title = records(ctx).verification, fingerprint(ctx), "Verification"
    if ctx.knobs.verification == "never":
        return Step(title, "-", "-", Action.NA, "verification=never")
    if env_changes or not made:
        return Step(title, "none", "result", Action.ADD, "this env has not been tested yet",
                    known_after="env" if env_changes else "")
    said = summary(made)
    if ctx.knobs.verification == "always":
        return Step(title, said, "on record", Action.CHANGE, "verification=always")
    if made.fingerprint != wanted:
        return Step(title, said, "on record", Action.CHANGE, "env, driver, GPU or kernel has changed since")
    if made.overall == "fail":
        return Step(title, said, "pass", Action.CHANGE, "it failed")
    return Step(title, said, said, Action.NONE, "nothing has changed since", won=f"proof: {said}")


def record_file(ctx: Context, before: Sequence[Step]) -> str:
    """The name that the record has in .rig once these steps and this one are done."""
    made = records(ctx).verification
    return made.file if made and not step(ctx, before).action.changes else VerificationRecord.file


def summary(made: VerificationRecord) -> str:
    """`9 pass, 5 not run` of a verification record."""
    counts: dict[str, int] = {}
    for check in made.checks:
        counts[check.status] = counts.get(check.status, 0) + 1
    order = ("fail", "pass", "not_run")
    return ", ".join(f"{counts[s]} {s.replace('_', ' ')}" for s in order if s in counts) or "empty"


def explain(ctx: Context) -> Parts:
    """What was proved, and what is there now."""
    made = records(ctx).verification
    read_by = f"probe.HostState (.rig/{(made or VerificationRecord).file})"
    return [fact("proved before", made.overall if made else None, read_by),
            fact("for", made.fingerprint if made else None, read_by),
            fact("now", fingerprint(ctx), "probe.HostState (env, driver, GPUs, kernel, attention)"),
            fact("env", envs_dir(ctx), "conda.CondaInstalls")], [
        Rule("done again when its fingerprint differs, or when asked for", OURS)]


def _known_after_reboot(ctx: Context, step: Step) -> bool:
    return step.action.changes


PLANNER = Planner(step, explain, knobs=("verification", "verification_gpu"), known_after_reboot=_known_after_reboot,
                  needs=("driver", "reboot", "env"))
