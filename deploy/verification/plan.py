"""The verification: done again where what was proved has changed. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_rig.deploy.env.proof import fingerprint
from qwen_rig.facts.records import VerifyRecord
from qwen_rig.plan.context import Context
from qwen_rig.plan.env import envs_dir, records
from qwen_rig.plan.model import Action, Step
from qwen_rig.plan.planner import OURS, Parts, Planner, Rule, fact, new_env


def step(ctx: Context, before: Sequence[Step]) -> Step:
    """Done where there is no record, where its fingerprint differs, where it failed, or when asked for."""
    env_changes = new_env(before)
    made, wanted, title = records(ctx).verify, fingerprint(ctx), "Verification"
    if ctx.knobs.verify == "never":
        return Step(title, "-", "-", Action.NA, "verify=never")
    if env_changes or not made:
        return Step(title, "none", "result", Action.ADD, "nothing has proved this env yet",
                    known_after="env" if env_changes else "")
    said = summary(made)
    if ctx.knobs.verify == "always":
        return Step(title, said, "on record", Action.CHANGE, "verify=always")
    if made.fingerprint != wanted:
        return Step(title, said, "on record", Action.CHANGE, "env, driver, GPU or kernel has changed since")
    if made.overall == "fail":
        return Step(title, said, "pass", Action.CHANGE, "it failed")
    return Step(title, said, said, Action.NONE, "nothing has changed since")


def summary(made: VerifyRecord) -> str:
    """`9 pass, 5 not run` of a verification record."""
    counts: dict[str, int] = {}
    for check in made.checks:
        counts[check.status] = counts.get(check.status, 0) + 1
    order = ("fail", "pass", "not_run")
    return ", ".join(f"{counts[s]} {s.replace('_', ' ')}" for s in order if s in counts) or "empty"


def explain(ctx: Context) -> Parts:
    """What was proved, and what is there now."""
    made = records(ctx).verify
    return [fact("proved before", made.overall if made else None, "probe.HostState (.rig/verify.json)"),
            fact("for", made.fingerprint if made else None, "probe.HostState (.rig/verify.json)"),
            fact("now", fingerprint(ctx), "probe.HostState (env, driver, GPUs, kernel, attention)"),
            fact("env", envs_dir(ctx), "conda.CondaInstalls")], [
        Rule("done again when its fingerprint differs, or when asked for", OURS)]


def _known_after_reboot(ctx: Context, step: Step) -> bool:
    return step.action.changes


PLANNER = Planner(step, explain, knobs=("verify", "verify_gpu"), known_after_reboot=_known_after_reboot)
