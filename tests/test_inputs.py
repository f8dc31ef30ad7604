"""Bad input, made from the types of what is read and thrown at the real readers: each ends in one line that says what,
where and what to do; none is taken silently, none ends in a traceback, and nobody is dialled."""

from __future__ import annotations

import copy
import json
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen_rig import bundle, cli, knobs, render, strictjson
from qwen_rig.catalog import model_config
from qwen_rig.catalog.conda_lock import load_conda_lock
from qwen_rig.catalog.sources import load_mirrors
from qwen_rig.catalog.stack import load_stack
from qwen_rig.certificate import model as certificate
from qwen_rig.cli import _saved
from qwen_rig.cloud import load_cloud
from qwen_rig.cloud.inventory import SOURCES
from qwen_rig.errors import RigError
from qwen_rig.lab import load_hosts
from qwen_rig.run import options
from tests.bad_values import (
    BAD_ADDRESS,
    BAD_LOCAL,
    BAD_PORT,
    BAD_USER,
    BAD_WORD,
    BLANK,
    CONTROL,
    DEEP,
    FLAT,
    KNOB,
    NAME,
    ODD,
    SHELL,
    spoilt,
)

ROOT = Path(__file__).parents[1]
CLOUDS = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "tests/inventories/cloud").glob("*.yaml"))]
THROWN = Counter[str]()
LEAST = 1500


def thrown(count: int) -> Callable[[Any], Any]:
    """So many inputs, the same each time."""
    return settings(max_examples=count, derandomize=True, database=None, deadline=None,
                    suppress_health_check=list(HealthCheck))


def judge(kind: str, act: Callable[[], object], bad: bool = True) -> None:
    """One input: what it is read by raises RigError of one line with a remedy, or (where it isn't `bad` for certain)
    takes it. All else is a traceback."""
    THROWN[kind] += 1
    try:
        act()
    except RigError as error:
        assert "\n" not in str(error) and error.what and (error.where or error.remedy), str(error)
        assert error.remedy or not bad, str(error)
        return
    assert not bad, "silently taken"


@pytest.fixture(autouse=True)
def nobody_is_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    def dialled(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("somebody was dialled")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, dialled)
    monkeypatch.setattr(socket, "getaddrinfo", dialled)


@thrown(500)
@given(KNOB)
def test_a_knob_in_the_inventory(pair: tuple[str, Any]) -> None:
    judge("knobs, by type", lambda: knobs.check(*pair, "lab.yml:3"))


@thrown(300)
@given(FLAT)
def test_a_knob_on_the_command_line(pair: tuple[str, Any]) -> None:
    judge("--data, by type", lambda: knobs.pair(f"{pair[0]}={pair[1]}"))


@thrown(150)
@given(st.sampled_from(sorted(knobs.NAMES)), ODD)
def test_a_knob_of_any_kind(name: str, value: Any) -> None:
    judge("knobs, any value", lambda: knobs.check(name, value, "lab.yml:3"), bad=False)


# -- inventories -----------------------------------------------------------------------------------------

LAB_KEY = st.one_of(
    st.tuples(st.just("address"), BAD_ADDRESS | st.integers() | st.just([])), st.tuples(st.just("port"), BAD_PORT),
    st.tuples(st.just("user"), BAD_USER | st.integers()), st.tuples(st.just("key"), BAD_LOCAL | st.just("")),
    st.tuples(st.just("known_hosts"), BAD_LOCAL), st.tuples(st.just("host_keys"), BAD_WORD | st.booleans()),
    st.tuples(st.just("host_key_alias"), spoilt(NAME, CONTROL, BLANK, SHELL)),
    st.tuples(st.sampled_from(["password_env", "sudo_password_env"]), NAME | st.just("RIG_NOT_SET_AT_ALL")),
    st.tuples(st.sampled_from(["ssh_hostname", "pasword", "stakc"]), NAME),
    KNOB.filter(lambda pair: pair[1] == pair[1]))
BAD_HOST = st.one_of(spoilt(NAME, CONTROL, BLANK, SHELL), st.integers(), st.booleans(),
                     st.sampled_from(["all", "lab", "@local", "-x", "1.2.3", "a..b"]))


@thrown(250)
@given(LAB_KEY)
def test_a_key_of_lab_yml(tmp_path_factory: pytest.TempPathFactory, pair: tuple[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "lab.yml"
    path.write_text(yaml.safe_dump({"hosts": {"a": {"address": "192.0.2.1", **dict([pair])}}}))
    judge("keys of lab.yml", lambda: load_hosts(path))


@thrown(60)
@given(BAD_HOST)
def test_a_hosts_name(tmp_path_factory: pytest.TempPathFactory, name: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "lab.yml"
    path.write_text(yaml.safe_dump({"hosts": {name: {}}}))
    judge("names in lab.yml", lambda: load_hosts(path))


CLOUD_KEY = st.one_of(
    st.tuples(st.just("private"), st.sampled_from(["no", "yes", 1, 0, None, []])),
    st.tuples(st.just("group"), st.one_of(st.sampled_from(["all", "cloud", "my group", "", 5, None]),
                                          spoilt(NAME, CONTROL, BLANK, SHELL))),
    st.tuples(st.sampled_from(["label", "state", "output", "provider"]), st.integers() | st.none() | st.just([])),
    st.tuples(st.just("tags"), st.sampled_from([5, "x", [1], {"a": []}, None])),
    st.tuples(st.just("source"), BAD_WORD | st.none() | st.integers()),
    st.tuples(st.just("file"), BAD_LOCAL | st.just(5)),
    st.tuples(st.just("command"), st.sampled_from(["x", [], [5], ["a\0"], ["no-such-tool"], {}])), LAB_KEY.filter(
        lambda pair: pair[0] not in ("port", "address", "host_key_alias") and pair[1] == pair[1]))


@thrown(150)
@given(CLOUD_KEY)
def test_a_key_of_cloud_yml(tmp_path_factory: pytest.TempPathFactory, pair: tuple[str, Any]) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "v.json").write_text('[{"id": 1, "actual_status": "running", "ssh_host": "192.0.2.1", "ssh_port": 5}]')
    source = {"source": "vast", "file": "v.json", **dict([pair])}
    if pair[0] == "command":
        del source["file"]
    (folder / "cloud.yml").write_text(yaml.safe_dump({"sources": {"v": source}}))
    judge("keys of cloud.yml", lambda: load_cloud(folder / "cloud.yml", folder / "known"))


@thrown(60)
@given(st.sampled_from(["ssh", "ssh-config"]), st.one_of(
    st.lists(st.none() | st.integers() | st.booleans() | st.just([]), min_size=1, max_size=2), st.none(), st.integers(),
    st.dictionaries(st.sampled_from(["all", "cloud", "a b"]), st.just("ssh me@192.0.2.1"), min_size=1)))
def test_hosts_written_out_in_cloud_yml(tmp_path_factory: pytest.TempPathFactory, source: str, hosts: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "cloud.yml"
    path.write_text(yaml.safe_dump({"sources": {"v": {"source": source, "hosts": hosts}}}))
    judge("hosts of cloud.yml", lambda: load_cloud(path, path.with_name("known")))


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in plain data."""
    found: list[tuple[Any, Any]] = []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in pairs:
        found += [(value, key), *places(each)]
    return found


def mutated(value: Any, at: int, odd: Any) -> Any:
    """The same data with another value in one place."""
    made = {"": copy.deepcopy(value)}
    where = places(made)
    container, key = where[at % len(where)]
    container[key] = odd
    return made[""]


@thrown(350)
@given(st.sampled_from([case for case in CLOUDS if case["source"] not in ("ssh", "libcloud")]), st.integers(0, 999),
       ODD, st.booleans())
def test_what_a_cloud_answers(case: dict[str, Any], at: int, odd: Any, private: bool) -> None:
    data = mutated(json.loads(case["output"]), at, odd)
    wanted = {"private": private, **case.get("options", {})}
    judge("clouds' answers", lambda: list(SOURCES[case["source"]](data, "cloud.yml:1", wanted)), bad=False)


@thrown(60)
@given(st.text(max_size=60) | NAME.map(lambda name: f"ssh -p {name} root@h") | BAD_ADDRESS.map("ssh {}".format))
def test_a_pasted_line(line: str) -> None:
    judge("pasted lines", lambda: list(SOURCES["ssh"]([line], "cloud.yml:1", {})), bad=False)


# -- files -----------------------------------------------------------------------------------------------

RAW = st.one_of(DEEP.map(str.encode), st.binary(max_size=60), st.text(max_size=60).map(lambda t: t.encode()),
                st.sampled_from([b"", b"\0", b"null", b"5", b"9" * 5000, b"&a [*a]", b"{a: 1, a: 2}", b'{"a":1,"a":2}',
                                 b"\xff\xfe", b'"\\ud800"', b"!!python/object:os.system x", b"a: !!int x",
                                 b"---\n---\n", b"a: &a [" + b"*a," * 3, b"[" * 10 + b"]" * 10]))
READERS: dict[str, Callable[[Path], object]] = {
    "lab.yml": load_hosts, "cloud.yml": lambda path: load_cloud(path, path), "plan": _saved.load,
    "certificate": certificate.load, "config.json": model_config.read, "stack": lambda path: load_stack(str(path)),
    "conda_lock": lambda path: load_conda_lock(str(path)), "mirrors": lambda path: load_mirrors.__wrapped__(str(path)),
    "manifest": lambda path: bundle._load.__wrapped__(path.parent),
}


@thrown(350)
@given(st.sampled_from(sorted(READERS)), RAW)
def test_a_file_of_any_bytes(tmp_path_factory: pytest.TempPathFactory, name: str, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / ("manifest.json" if name == "manifest" else f"{name}.yml")
    path.write_bytes(raw)
    judge(f"files: {name}", lambda: READERS[name](path))


STEP = {"component": "env", "title": "Env", "action": "add", "now": "none", "wanted": "x", "problems": []}
PLAN = {"form": _saved.FORM, "made": "x", "inventory": "lab.yml", "limit": [], "data": [], "hosts": [
    {"host": "a", "fingerprint": "x", "steps": [STEP], "state": {
        "machine": None, "kernel": None, "attention": None, "gpus": [], "driver": {
            "loaded_version": None, "flavour": None, "installed_version": None, "installed_flavour": None},
        "toolkits": {}, "conda": {}, "files": {}, "training": {}, "env": None}}]}
MANIFEST = {"form": 1, "stack": "guide", "python": "3.10", "lock_sha256": None,
            "files": {"wheels/x-1-py3-none-any.whl": {"sha256": "0" * 64, "bytes": 0, "from": "x"}}}


@thrown(150)
@given(st.integers(0, 999), ODD)
def test_a_saved_plan_with_another_value(tmp_path_factory: pytest.TempPathFactory, at: int, odd: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "plan.json"
    path.write_text(json.dumps(mutated(PLAN, at, odd)))
    judge("saved plans", lambda: _saved.load(path), bad=False)


@thrown(100)
@given(st.integers(0, 999), ODD)
def test_a_manifest_with_another_value(tmp_path_factory: pytest.TempPathFactory, at: int, odd: Any) -> None:
    folder = tmp_path_factory.getbasetemp() / "bundle"
    (folder / "wheels").mkdir(parents=True, exist_ok=True)
    (folder / "wheels" / "x-1-py3-none-any.whl").touch()
    (folder / "manifest.json").write_text(json.dumps(mutated(MANIFEST, at, odd)))
    judge("manifests", lambda: bundle._load.__wrapped__(folder), bad=False)


@thrown(40)
@given(st.integers(0, 9999), ODD.filter(lambda odd: odd == odd))
def test_a_stack_with_another_value(tmp_path_factory: pytest.TempPathFactory, at: int, odd: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "own.yml"
    said = yaml.load((ROOT / "qwen_rig/data/stacks/standin.yml").read_text(), yaml.CSafeLoader)
    path.write_text(yaml.safe_dump(mutated(said, at, odd)))
    judge("stacks", lambda: load_stack(str(path)), bad=False)


# -- command lines ---------------------------------------------------------------------------------------

DOORS: tuple[tuple[str, ...], ...] = (
    ("apply", "PATH"), ("bundle", "PATH"), ("certificate", "show", "PATH"), ("certificate", "read", "PATH"),
    ("doctor", "--log", "PATH"), ("fits", "--memory", "24576", "--model", "PATH"), ("init", "PATH"),
    ("host-keys", "list", "--file", "PATH"), ("bundle", "nosuch", "--data", "bundle=PATH"), ("apply", "~nobody/PATH"))


@thrown(120)
@given(st.sampled_from(DOORS), BAD_LOCAL)
def test_a_path_on_the_command_line(capsys: pytest.CaptureFixture[str], door: tuple[str, ...], path: str) -> None:
    THROWN["paths on command lines"] += 1
    assert cli.main([word.replace("PATH", path) for word in door]) == 1
    told = capsys.readouterr()
    assert len(told.err.splitlines()) == 1 and not told.out, told
    assert "Traceback" not in told.err and "mistake of qwen-rig's" not in told.err, told.err


OPTION = st.one_of(
    st.tuples(st.just("ssh_port"), BAD_PORT.filter(lambda port: type(port) is int)),
    st.tuples(st.just("ssh_user"), BAD_USER),
    st.tuples(st.just("ssh_key"), BAD_LOCAL),
    st.tuples(st.just("inventory"), BAD_LOCAL | NAME.map(lambda name: f"{name}x.py")),
    st.tuples(st.sampled_from(["parallel", "retry", "fail_percent"]), st.integers(max_value=-1)),
    st.tuples(st.just("data"), st.one_of(NAME, DEEP.map(lambda deep: f"x_y={deep}"), BAD_ADDRESS.map(
        lambda host: f"ssh_hostname={host}"), NAME.map(lambda name: f"stakc={name}")).map(lambda text: (text,))))


@thrown(150)
@given(OPTION)
def test_an_option_of_pyinfras_own(pair: tuple[str, Any]) -> None:
    sound = {"inventory": str(ROOT / "inventories/lab.py"), "operations": ("deploy/5090.py",)}
    own = pair[0] == "data" and pair[1][0].startswith("x_y=")  # what is no JSON at all is a text, and the user's own
    judge("pyinfra's options", lambda: options.refuse_bad({**sound, **dict([pair])}), bad=not own)


@thrown(80)
@given(st.text(max_size=6).filter(lambda text: "\0" not in text) | st.sampled_from(["²", "0", "1", "9" * 11, "-5"]))
def test_any_width_of_a_terminal(text: str) -> None:
    THROWN["COLUMNS"] += 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", text.encode("utf-8", "replace").decode())
        patch.setenv("LINES", "²")
        assert render.NARROWEST <= render.out().width < 10_000
        render.console()


def test_json_of_any_depth_is_read_or_refused() -> None:
    for count in (1, 40, 990, 5000, 200_000):
        judge("files: JSON", lambda n=count: strictjson.read("[" * n + "]" * n, "f.json", "mend it"), bad=count > 32)


def test_there_were_enough() -> None:
    if len(THROWN) > 15:  # not where single tests are picked
        assert sum(THROWN.values()) >= LEAST, THROWN
