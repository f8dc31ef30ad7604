"""only_steps and skip_steps: what is left out changes nothing, and what another step would miss refuses the host."""

from __future__ import annotations

from itertools import combinations

import pytest

from qwen_rig import knobs
from qwen_rig.deploy import ORDER, refuse_unknown_steps
from qwen_rig.deploy.planning import make_plan, planners
from qwen_rig.errors import RigError

from .states import RTX5090, bare, context, with_driver

STATES = {"bare": bare(RTX5090), "driver": with_driver(bare(RTX5090), "580.95.05", "open")}


@pytest.mark.parametrize("state", STATES)
def test_whatever_is_chosen_the_rest_changes_nothing_and_nobody_misses_a_step(state: str) -> None:
    whole = {step.component for step in make_plan(context(STATES[state])).changes}
    for left_out in [set(each) for n in (1, 2, len(ORDER) - 1) for each in combinations(ORDER, n)]:
        kept = [name for name in ORDER if name not in left_out]
        for chosen in ({"only_steps": ",".join(kept)}, {"skip_steps": " ".join(sorted(left_out))}):
            plan = make_plan(context(STATES[state], **chosen))
            done = {step.component for step in plan.changes}
            assert not done & left_out, (chosen, done)
            missed = {(name, by) for by in done for name in planners()[by].needs if name in left_out & whole}
            told = [refusal for refusal in plan.refusals if "is left out" in refusal.what]
            assert {(name, by) for name, by in missed if not any(
                f"step {name} " in each.what and by in each.what for each in told)} == set(), (chosen, told)
            assert len(told) == len({name for name, _ in missed}), (chosen, told)


def test_what_is_left_out_says_by_which_knob_and_what_it_would_have_done() -> None:
    plan = make_plan(context(STATES["bare"], skip_steps="driver,guard,reboot,verification"))
    assert not plan.refusals and not plan.reboots
    step = plan.step("driver")
    assert (step.action.value, step.why) == ("n/a", "left out by skip_steps: none → 580 open") and step.bytes == 0
    refused = make_plan(context(STATES["bare"], only_steps="env")).refusals
    assert [each.what for each in refused] == ["step conda is left out and not done yet, and env needs it"]
    assert "do conda as well, or leave out env too" in refused[0].remedy


@pytest.mark.parametrize(("given", "says"), [
    ({"only_steps": "drivr"}, "only_steps: there is no step 'drivr' · here · did you mean driver?"),
    ({"skip_steps": "env,x"}, "skip_steps: there is no step 'x' · here · the steps are repository, driver"),
    ({"skip_steps": ",".join(ORDER)}, "leave no step to do"), ({"only_steps": "env", "skip_steps": "env"}, "no step")])
def test_a_name_that_is_no_step_is_one_line(given: dict[str, str], says: str) -> None:
    with pytest.raises(RigError) as told:
        refuse_unknown_steps(knobs.read(given, "here"), "here")
    assert says in str(told.value) and "\n" not in str(told.value)


def test_a_list_of_yaml_is_taken_and_each_need_is_a_step_before() -> None:
    assert knobs.read({"skip_steps": ["driver", "reboot"]}, "here").skip_steps == "driver reboot"
    for name, planner in planners().items():
        assert all(ORDER.index(need) < ORDER.index(name) for need in planner.needs)
