"""Which hosts may train together, by which network, and what each is given."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import yaml

from qwen_rig import launch as plan
from qwen_rig.domain import Domain, Identity
from qwen_rig.errors import RigError
from qwen_rig.launch import Member, together
from qwen_rig.training import training_settings

SETTINGS = training_settings(32607, "12.0")


def member(name: str, address: str, *addresses: tuple[str, str, int], **more: Any) -> Member:
    return replace(Member(name, address, "/opt/envs/qwen-train", (f"GPU-{name}",), torch="2.8.0",
                          addresses=addresses or (("eth0", address, 24),)), **more)


def test_hosts_of_several_trust_domains_are_told_what_they_let_each_other_do() -> None:
    own = [Domain(None, Identity(name)) for name in "ab"]
    for domains, said in ((tuple(own), "2 trust domains (a alone, b alone)"), ((Domain("lab"), Domain("lab")), ""),
                          ((Domain("lab"), own[1]), "2 trust domains (domain lab, b alone)")):
        made = together([replace(A, domain=domains[0]), replace(B, domain=domains[1])])
        assert said in plan.trusting(made) and bool(plan.trusting(made)) is bool(said)


A, B = member("a", "10.0.0.5"), member("b", "10.0.0.6")


@pytest.mark.parametrize(("members", "places"), [
    ((A, B), (("eth0", "10.0.0.5"), ("eth0", "10.0.0.6"))),
    # Routed networks: each has the address that we came by.
    ((A, member("c", "10.9.0.7")), (("eth0", "10.0.0.5"), ("eth0", "10.9.0.7"))),
    # Behind a cloud's translation: the inventory's addresses are nobody's own, and the network that all share counts;
    # Docker's, which all have too, doesn't.
    ((member("a", "203.0.113.1", ("docker0", "172.17.0.1", 16), ("ens3", "10.1.0.4", 20)),
      member("b", "203.0.113.2", ("docker0", "172.17.0.1", 16), ("enp1s0", "10.1.0.5", 20))),
     (("ens3", "10.1.0.4"), ("enp1s0", "10.1.0.5"))),
    # The knob stands above all: a second, faster network.
    ((replace(A, addresses=(("eth0", "10.0.0.5", 24), ("ib0", "192.168.9.5", 24)), wanted="192.168.9.5"),
      replace(B, addresses=(("eth0", "10.0.0.6", 24), ("ib0", "192.168.9.6", 24)), wanted="192.168.9.6")),
     (("ib0", "192.168.9.5"), ("ib0", "192.168.9.6"))),
])
def test_each_host_is_met_where_the_others_reach_it(members: tuple[Member, ...], places: Any) -> None:
    made = together(members)
    assert made.places == places and made.master == places[0][1]


@pytest.mark.parametrize(("members", "said"), [
    ((), "this is no host"),
    ((A,), "two hosts or more, and this is a"),
    ((A, replace(B, env=None)), "no env on b"),
    ((A, replace(B, cards=("GPU-1", "GPU-2"))), "different numbers of GPUs: a 1, b 2"),
    ((A, replace(B, torch="2.9.1")), "different versions of torch: a 2.8.0, b 2.9.1"),
    ((A, replace(B, port=29501)), "launch_port isn't the same on all: a 29500, b 29501"),
    ((member("a", "203.0.113.1", ("eth0", "10.1.0.4", 24)), member("b", "203.0.113.2", ("eth0", "10.2.0.4", 24))),
     "share no network"),
    ((member("a", "203.0.113.1", ("eth0", "172.17.0.2", 16)), member("b", "203.0.113.2", ("eth0", "172.17.0.2", 16))),
     "share no network"),
    ((A, replace(B, wanted="192.0.2.1")), "192.0.2.1 is no address of b's own, which are: 10.0.0.6 (eth0)"),
    ((A, replace(B, addresses=(), wanted="10.0.0.6")), "none that could be read"),
])
def test_hosts_that_cannot_train_together(members: tuple[Member, ...], said: str) -> None:
    with pytest.raises(RigError) as caught:
        together(members)
    assert said in str(caught.value) and "\n" not in str(caught.value) and caught.value.remedy


def test_files_agree_with_each_other_and_are_left_alone_when_right() -> None:
    made = together([A, B])
    for rank, name in enumerate("ab"):
        texts = plan.files(made, name, SETTINGS)
        config = yaml.safe_load(texts[plan.YAML])
        assert (config["machine_rank"], config["num_machines"], config["num_processes"]) == (rank, 2, 2)
        assert config["mixed_precision"] == "bf16" and config["main_process_ip"] == "10.0.0.5"
        assert f"--nnodes 2 --node-rank {rank}" in texts[plan.TORCHRUN]
        assert plan.stale(made, name, SETTINGS) == list(plan.WRITTEN)
        there = together([replace(m, files=plan.files(made, m.name, SETTINGS)) for m in (A, B)])
        assert plan.stale(there, name, SETTINGS) == []
        broken = together([replace(m, files={**plan.files(made, m.name, SETTINGS), plan.ENV: ""}) for m in (A, B)])
        assert plan.stale(broken, name, SETTINGS) == [plan.ENV]


def _recorded(status: str, **changed: Any) -> plan.Launch:
    """Both hosts with that on record, which was made when `changed` wasn't yet so."""
    record = json.dumps({"status": status, "fingerprint": together([A, B]).fingerprint})
    return together([replace(A, files={plan.RECORD: record}), replace(B, files={plan.RECORD: record}, **changed)])


def test_the_all_reduce_is_done_again_only_where_something_has_changed() -> None:
    assert plan.unchecked(together([A, B]), "auto") == "a: not done yet"
    assert plan.unchecked(together([A, B]), "never") == ""
    assert plan.unchecked(_recorded("pass"), "auto") == ""
    assert plan.unchecked(_recorded("pass"), "always") == "verification=always"
    assert plan.unchecked(_recorded("not_run"), "auto") == ""
    assert plan.unchecked(_recorded("fail"), "auto") == "a: it failed"
    for change in ({"cards": ("GPU-other",)}, {"about": "another driver"}, {"addresses": (("eth1", "10.0.0.6", 24),)}):
        assert "changed" in plan.unchecked(_recorded("pass", **change), "auto")
    spoilt = together([replace(A, files={plan.RECORD: "{"}), B])
    assert plan.unchecked(spoilt, "auto") == "a: not done yet"


def test_what_a_hosts_cards_need_of_nccl_is_in_its_own_files_and_check() -> None:
    made = together((replace(A, environment={"NCCL_P2P_DISABLE": "1"}), B))
    assert "export NCCL_P2P_DISABLE=1\n" in plan.files(made, "a", SETTINGS)[plan.ENV]
    assert "NCCL_P2P_DISABLE" not in plan.files(made, "b", SETTINGS)[plan.ENV]
    assert plan.spec(made, "a", True, 60)["environment"] == {"NCCL_P2P_DISABLE": "1"}
    assert "environment" not in plan.spec(made, "b", True, 60)
    assert made.fingerprint != together((A, B)).fingerprint, "it is checked again"
