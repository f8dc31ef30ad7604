"""What one host makes and another could get: only inside a trust domain, whatever a host says of itself."""

from __future__ import annotations

import ast
import inspect
import json
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qwen_rig import knobs
from qwen_rig.catalog.rules import load_rules
from qwen_rig.certificate import judge, store
from qwen_rig.certificate.gates import load_gates
from qwen_rig.certificate.model import Certificate, Check, Number
from qwen_rig.cli import main
from qwen_rig.cloud import load_cloud
from qwen_rig.deploy import watched
from qwen_rig.deploy.flash_attn import fleet as _fleet
from qwen_rig.deploy.flash_attn.fleet import Built, build_once
from qwen_rig.deploy.flash_attn.plan import flash_spec
from qwen_rig.deploy.planning import make_plan
from qwen_rig.domain import Domain, Identity, domain_of
from qwen_rig.errors import RigError
from qwen_rig.facts.records import BuiltBy
from qwen_rig.flash import cache
from qwen_rig.flash.key import Key, Known
from qwen_rig.plan import Action, Context
from qwen_rig.run import adapter, transfer
from qwen_rig.run.run import Run
from tests import HANG_S
from tests.certificate.synthesized import UUID, h100
from tests.plan.states import context
from tests.plan.test_flash_fleet import nvcc
from tests.plan.test_plan import converged

REPO = Path(__file__).parents[2]
KEY = Key("flash-attn", "2.8.3", "2.8", "12.8", True, "3.10", "2.35", ("90",))
LAB, KEY_A, KEY_B = Domain("lab"), f"SHA256:{'a' * 43}", f"SHA256:{'b' * 43}"
ALONE = domain_of(None, Identity("lab", KEY_A))
STRANGERS = [  # to the domain of the host `lab` with the key A
    LAB, Domain(ALONE.id[:63]), *(domain_of(None, Identity(name, key)) for name, key in (
        ("lab", KEY_B), ("lab", None), ("Lab", KEY_A), ("lab/", KEY_A), ("domain-lab", KEY_A)))]


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))


# -- who shares ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [
    "", "off", "Off", "all", "auto", "true", "no", "Lab", "../x", "a/b", ".hidden", "a b", "lab\n", "é", "a" * 65, True,
    False, 7, ["lab"], {"lab": 1}, "$(id)", "-x"])
def test_nonsense_is_no_domain(value: object) -> None:
    with pytest.raises(RigError, match="trust_domain") as refused:
        knobs.check("trust_domain", value, "lab.yml")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", ["lab", "rack-7", "a.b_c", "7", "a" * 64])
def test_a_name_is_one(value: str) -> None:
    assert knobs.check("trust_domain", value) == value
    assert knobs.check("trust_domain", "None") is None and knobs.check("trust_domain", None) is None


@pytest.mark.parametrize("stranger", STRANGERS, ids=lambda domain: domain.id)
def test_no_two_domains_share_a_folder(stranger: Domain, tmp_path: Path) -> None:
    wheel = tmp_path / "flash_attn-2.8.3-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    kept = cache.keep(ALONE, KEY, wheel, {"host": "lab"})
    assert cache.find(ALONE, KEY) == kept and cache.known(ALONE) == (Known(KEY, kept.sha256, "lab"),)
    assert stranger != ALONE and cache.find(stranger, KEY) is None and cache.known(stranger) == ()
    assert "/" not in stranger.id and cache.folder(stranger).parent == cache.folder(ALONE).parent


def test_what_was_kept_without_a_domain_is_nobodys(tmp_path: Path) -> None:
    """As release 0.2.0 kept them: one folder higher."""
    wheel = tmp_path / "flash_attn-2.8.3-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    kept = cache.keep(LAB, KEY, wheel, {"host": "lab-01"})
    (cache.folder(LAB) / KEY.name).rename(cache.folder(LAB).parent / KEY.name)
    assert kept.path.name and all(cache.find(domain, KEY) is None for domain in (LAB, ALONE, *STRANGERS))


@pytest.mark.parametrize(("source", "rows"), [
    ("terraform, output: o", {"o": {"value": [
        {"name": "m-1", "address": "192.0.2.1", "trust_domain": "lab", "flash_attn": "off"}]}}),
    ("vast", [{"id": 1, "actual_status": "running", "ssh_host": "192.0.2.1", "ssh_port": 22, "trust_domain": "lab",
               "label": "trust_domain: lab", "extra_env": [["trust_domain", "lab"]]}])])
def test_no_row_of_a_cloud_puts_a_machine_into_a_domain(source: str, rows: Any, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "cloud.yml").write_text(f"sources:\n  s: {{source: {source}, file: rows.json}}\n")
    (_, data), = next(iter(load_cloud(tmp_path / "cloud.yml", tmp_path / "known").groups.values()))
    assert not set(data) & knobs.NAMES


# -- builds of one run ---------------------------------------------------------------------------------


def test_hosts_of_two_domains_neither_wait_for_each_other_nor_share(tmp_path: Path) -> None:
    """All want the same; the first host of each domain is held until that of the other one has begun to build."""
    state: Any = SimpleNamespace()
    run = Run(make_plan, watched)
    adapter.attach(state, run)
    of = {"a": ALONE, "b": domain_of(None, Identity("b", KEY_B)), "lab-1": LAB, "lab-2": LAB}
    state.inventory = SimpleNamespace(get_active_hosts=list)
    hosts: Any = {name: SimpleNamespace(name=name, state=state, data={}) for name in of}
    run.memory.domains.update(of)
    together, built, got = threading.Barrier(3), list[str](), dict[str, Built]()

    def build(name: str) -> Built:
        built.append(name)
        together.wait(HANG_S)  # three builds are at work at once: one of each domain
        wheel = tmp_path / name / "flash_attn-2.8.3-py3-none-any.whl"
        wheel.parent.mkdir()
        wheel.write_bytes(name.encode())
        return Built(wheel, {"domain": "domain-lab", "host": "lab-1"})  # a host's own word, which does not count

    def attempt(name: str) -> None:
        got[name] = build_once(hosts[name], of[name], KEY, lambda: build(name), "next")

    threads = [threading.Thread(target=attempt, args=(name,), daemon=True) for name in of]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_S)
    assert len(built) == 3 and {"a", "b"} < set(built)
    for name, made in got.items():
        assert made.wheel and of[made.host] == of[name] and made.record["domain"] == of[name].id
        assert made.wheel.read_bytes().decode() == made.host and made.wheel.is_relative_to(cache.folder(of[name]))


def test_what_a_strangers_cards_are_adds_nothing_to_a_build() -> None:
    from packaging.version import Version

    run = Run(make_plan, watched)
    run.memory.capabilities.update({"a": (Version("9.0"),), "b": (Version("8.0"), Version("12.0"))})
    run.memory.domains.update({"a": ALONE, "b": LAB})
    assert (_fleet.archs(run, ALONE), _fleet.archs(run, LAB)) == (("90",), ("80", "120"))


@pytest.mark.parametrize(("wheel", "sha256"), [
    ("/root/../../etc/x", "0" * 64), ("a.whl/..", "0" * 64), ("/root/.whl", "0" * 64), ("/root/-x.whl", "0" * 64),
    ("/root/a b.whl", "0" * 64), ("/root/a\x1b[2J.whl", "0" * 64), ("/root/a.whl", "../../../../../x"),
    ("/root/a.whl", "0" * 63), ("/root/a.whl", "g" * 64), ("/root/" + "a" * 300 + ".whl", "0" * 64)])
def test_a_host_names_no_place_here(wheel: str, sha256: str, tmp_path: Path) -> None:
    asked: list[str] = []
    host: Any = SimpleNamespace(name="rented", get_file=lambda *words: asked.append(words[0]))
    with pytest.raises(RigError, match="names no wheel, or no sha256"):
        transfer.bring(host, ALONE, wheel, sha256)
    assert not asked and not list(tmp_path.iterdir())


def test_files_go_between_hosts_by_one_door_and_every_cache_has_a_domain() -> None:
    """pyinfra's file transfer is called in run/transfer.py alone; what that brings is kept under a domain."""
    users, bringing = set(), set()
    for folder in ("qwen_rig", "deploy", "facts"):
        for path in (REPO / folder).rglob("*.py"):
            name = str(path.relative_to(REPO))
            linked = any(part.is_symlink() for part in (path, *path.parents))
            if linked or name.startswith("qwen_rig/host/"):
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute):
                    users |= {name} if node.attr in ("get_file", "put_file") else set()
                    bringing |= {name} if node.attr == "bring" else set()
    assert users == {"qwen_rig/run/transfer.py"} and bringing == {"deploy/flash_attn/apply.py"}
    for function in (cache.folder, cache.find, cache.known, cache.keep):
        assert next(iter(inspect.signature(function).parameters)) == "domain", function
    assert list(inspect.signature(transfer.bring).parameters)[:2] == ["host", "domain"]


# -- the plan ------------------------------------------------------------------------------------------


def taken(built: BuiltBy | None, **wanted: Any) -> Context:
    """A converged host whose flash-attn came from the controller's cache, by its record."""
    ctx = nvcc(context(converged("guide"), "guide", **wanted), "12.8")
    generation, = ctx.state.generations
    made = replace(generation.records.flash_attn, rung="fleet", attention="flash_attention_2", built=built,
                   fingerprint=flash_spec(ctx).fingerprint)
    generation = replace(generation, records=replace(generation.records, flash_attn=made))
    return replace(ctx, state=replace(ctx.state, generations=(generation,)), identity=Identity("lab-01", KEY_A))


OWN = domain_of(None, Identity("lab-01", KEY_A)).id


@pytest.mark.parametrize(("built", "domain", "action"), [
    (BuiltBy("lab-02", "domain-lab"), "lab", Action.NONE), (BuiltBy("lab-01", OWN), None, Action.NONE),
    (BuiltBy("lab-02", "domain-lab"), None, Action.CHANGE), (BuiltBy("lab-02", "domain-lab"), "rack", Action.CHANGE),
    (BuiltBy("lab-01", domain_of(None, Identity("lab-01", KEY_B)).id), None, Action.CHANGE),
    # of release 0.2.0, which kept no domain
    (BuiltBy("lab-02"), "lab", Action.NONE), (BuiltBy("lab-01"), None, Action.NONE),
    (BuiltBy("lab-02"), None, Action.CHANGE), (None, None, Action.CHANGE)])
def test_a_wheel_from_outside_is_named_and_replaced(built: BuiltBy | None, domain: str | None, action: Action) -> None:
    ctx = taken(built, trust_domain=domain)
    step = make_plan(ctx).step("flash_attn")
    assert step.action is action, step
    if action is Action.CHANGE:
        assert "envs/qwen-train was built on " in step.why and "outside this host's trust domain" in step.why
    elif built and domain:
        assert f"built on {built.host}, domain lab" in step.why


def test_the_pinned_wheel_goes_ahead_of_one_that_was_built() -> None:
    ctx = nvcc(context(converged("guide"), "guide", flash_attn="auto", trust_domain="lab", env_name="new"), "12.8")
    spec = flash_spec(ctx)
    assert spec.wheels and spec.wheels[0].sha256
    ctx = replace(ctx, shared_wheels=(Known(spec.builds[0].key, "5" * 64, "lab-02"),))
    rungs = make_plan(ctx).step("flash_attn").wanted.split(", else ")
    assert rungs[:2] == ["wheel flash_attn-2.8.3", "the one built on lab-02, domain lab"] and rungs[-1] == "SDPA"


# -- certificates --------------------------------------------------------------------------------------


def measured(host: Identity, batch: float, began: int = 1_795_000_000, **more: Any) -> Certificate:
    check = Check("largest_batch", "", "pass", numbers=(Number("largest batch", batch, "samples"),))
    return Certificate(UUID, "H100", host.name, began, 1.0, "pass", False, {}, (check,), host_key=host.key, **more)


HONEST, MEMORY = Identity("lab-01", KEY_A), {UUID: 81559}


@pytest.mark.parametrize("liar", [Identity("rented-7", KEY_B), Identity("lab-01", KEY_B), Identity("lab-01 ", KEY_A),
                                  Identity("rented-7", KEY_A), Identity("../lab-01", KEY_B)], ids=repr)
def test_who_claims_another_hosts_card_changes_nothing_of_its_certificate(liar: Identity) -> None:
    """Same card, same second: each counts for the host that it was taken of."""
    first = store.keep(measured(HONEST, 8))
    assert first is not None
    text = first.read_text()
    for began in (1_795_000_000, 1_895_000_000):
        store.keep(measured(liar, 16, began))
    assert first.read_text() == text and len(store.history(UUID)) == 3
    for who, batch in ((HONEST, 8), (liar, 16)):
        found, last = store.largest_batch(who, MEMORY), store.last(UUID, who)
        assert found is not None and found.batch == batch
        assert last is not None and last.identity == who
    assert store.largest_batch(Identity("lab-02", KEY_A), MEMORY) is None


@pytest.mark.parametrize("batch", [4096, 45, -1, 8.5, 1e308])
def test_a_batch_that_the_memory_cannot_hold_is_believed_of_no_certificate(batch: float) -> None:
    store.keep(measured(HONEST, 8))
    store.keep(measured(HONEST, batch, 1_895_000_000))
    found = store.largest_batch(HONEST, MEMORY)
    assert found is not None and found.batch == 8


@pytest.mark.parametrize("batch", [4096, -1, 8.5, "8", True, None, [8]])
def test_an_impossible_batch_is_refused_in_one_line(batch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                    ) -> None:
    made = h100()
    made["cards"][0]["checks"]["largest_batch"]["data"]["batch"] = batch
    (tmp_path / "measured.json").write_text(json.dumps(made))
    assert main(["certificate", "read", str(tmp_path / "measured.json"), "--host", "lab-01"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "was not measured on NVIDIA H100" in said, said
    assert store.cards() == []


def test_a_number_without_end_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = h100()
    made["cards"][0]["checks"]["largest_batch"]["data"]["batch"] = 10**400
    (tmp_path / "measured.json").write_text(json.dumps(made))
    assert main(["certificate", "read", str(tmp_path / "measured.json"), "--host", "lab-01"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "out of range" in said, said


def test_measurements_that_name_their_host_themselves_set_no_batch() -> None:
    made, = judge.certificates(h100(), load_gates(), load_rules(), None)
    assert made.stated and made.host == "h100"
    store.keep(made)
    assert store.largest_batch(Identity("h100"), MEMORY) is None
    named, = judge.certificates(h100(), load_gates(), load_rules(), None, Identity("h100"))
    store.keep(named)
    found = store.largest_batch(Identity("h100", KEY_A), MEMORY)
    assert found is not None and found.batch == 32 and len(store.history(UUID)) == 2


def test_a_card_that_two_hosts_claim_is_shown_by_host(capsys: pytest.CaptureFixture[str]) -> None:
    store.keep(measured(HONEST, 8))
    store.keep(measured(Identity("rented-7", KEY_B), 16))
    assert main(["certificate", "show", UUID]) == 1
    assert "2 hosts have certificates of" in capsys.readouterr().err
    assert main(["certificate", "show", "rented-7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["host_key"] == KEY_B
    assert main(["certificate", "list"]) == 0
    assert capsys.readouterr().out.count(UUID) == 2
