"""The kinds of bad input: what makes them, what reads them, and which are bad for certain."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from hypothesis import strategies as st

from qwen_rig import bundle, cli, knobs, render, say, strictjson
from qwen_rig.catalog import model_config
from qwen_rig.catalog.conda_lock import load_conda_lock
from qwen_rig.catalog.sources import MirrorsFile, load_mirrors
from qwen_rig.catalog.stack import load_stack
from qwen_rig.catalog.stack_file import WholeFile
from qwen_rig.certificate import model as certificate
from qwen_rig.cli import _saved
from qwen_rig.cloud import load_cloud
from qwen_rig.cloud.inventory import SOURCES
from qwen_rig.errors import RigError
from qwen_rig.facts.state import State
from qwen_rig.lab import load_hosts
from qwen_rig.plan.document import FORM
from qwen_rig.run import options

from . import forms
from .values import (
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

ROOT = Path(__file__).resolve().parents[1]
CLOUDS = [yaml.safe_load(path.read_text(encoding="utf-8"))
          for path in sorted((ROOT / "tests/inventories/cloud").glob("*.yaml"))]


@dataclass(frozen=True)
class Kind:
    """`read` takes a value and a folder to lay it in; `bad`: whether it must be refused; `weight`: its share."""

    name: str
    values: st.SearchStrategy[Any]
    read: Callable[[Any, Path], object]
    weight: int
    bad: Callable[[Any], bool] = lambda _: True


def never(_: Any) -> bool:
    """Not bad for certain: it may be taken, and must not end in a traceback."""
    return False


def laid(folder: Path, name: str, content: Any) -> Path:
    """That content as a file: YAML where the name says so, else JSON; bytes as they are."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".yml":
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
    else:
        path.write_text(json.dumps(content), encoding="utf-8")
    return path


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
WRITTEN_OUT: st.SearchStrategy[Any] = st.one_of(
    st.lists(st.none() | st.integers() | st.booleans() | st.just([]), min_size=1, max_size=2), st.none(), st.integers(),
    st.dictionaries(st.sampled_from(["all", "cloud", "a b"]), st.just("ssh me@192.0.2.1"), min_size=1))
ANSWERS = [case for case in CLOUDS if case["source"] not in ("ssh", "libcloud")]


def lab_key(pair: tuple[str, Any], folder: Path) -> object:
    """lab.yml with that key of a host."""
    return load_hosts(laid(folder, "lab.yml", {"hosts": {"a": {"address": "192.0.2.1", **dict([pair])}}}))


def cloud_key(pair: tuple[str, Any], folder: Path) -> object:
    """cloud.yml with that key of a source, whose answer is sound."""
    laid(folder, "v.json", [{"id": 1, "actual_status": "running", "ssh_host": "192.0.2.1", "ssh_port": 5}])
    source = {"source": "vast", "file": "v.json", **dict([pair])}
    if pair[0] == "command":
        del source["file"]
    return load_cloud(laid(folder, "cloud.yml", {"sources": {"v": source}}), folder / "known")


def written_out(pair: tuple[str, Any], folder: Path) -> object:
    """cloud.yml with those hosts in it."""
    source = {"source": pair[0], "hosts": pair[1]}
    return load_cloud(laid(folder, "cloud.yml", {"sources": {"v": source}}), folder / "known")


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


def mutants(*documents: Any) -> st.SearchStrategy[Any]:
    """One of these with any value in any place."""
    return st.builds(mutated, st.sampled_from(documents), st.integers(0, 9999), ODD.filter(lambda odd: odd == odd))


def answered(case: tuple[dict[str, Any], Any, bool], _: Path) -> object:
    """What a cloud answers."""
    source, data, private = case
    return list(SOURCES[source["source"]](data, "cloud.yml:1", {"private": private, **source.get("options", {})}))


ANSWERED = st.sampled_from(ANSWERS).flatmap(
    lambda case: st.tuples(st.just(case), mutants(json.loads(case["output"])), st.booleans()))

# -- files -----------------------------------------------------------------------------------------------

RAW = st.one_of(DEEP.map(str.encode), st.binary(max_size=60), st.text(max_size=60).map(lambda t: t.encode()),
                st.sampled_from([b"", b"\0", b"null", b"5", b"9" * 5000, b"&a [*a]", b"{a: 1, a: 2}", b'{"a":1,"a":2}',
                                 b"\xff\xfe", b'"\\ud800"', b"!!python/object:os.system x", b"a: !!int x",
                                 b"---\n---\n", b"a: &a [" + b"*a," * 3, b"[" * 10 + b"]" * 10, b"a: 1\n" * 200_000,
                                 b'"' + b"x" * 3_000_000 + b'"']))
READERS: dict[str, Callable[[Path], object]] = {
    "lab.yml": load_hosts, "cloud.yml": lambda path: load_cloud(path, path), "plan": _saved.load,
    "certificate": certificate.load, "config.json": model_config.read, "stack": lambda path: load_stack(str(path)),
    "conda_lock": lambda path: load_conda_lock(str(path)), "mirrors": lambda path: load_mirrors.__wrapped__(str(path)),
    "manifest": lambda path: bundle._load.__wrapped__(path.parent),
}


def any_bytes(case: tuple[str, bytes], folder: Path) -> object:
    """A file of those bytes."""
    return READERS[case[0]](laid(folder, "manifest.json" if case[0] == "manifest" else f"{case[0]}.yml", case[1]))


STEP = {"component": "env", "title": "Env", "action": "add", "now": "none", "wanted": "x", "problems": []}
PLAN = {"form": FORM, "made": "x", "inventory": "lab.yml", "limit": [], "data": [], "hosts": [
    {"host": "a", "fingerprint": "x", "steps": [STEP], "state": {
        "machine": None, "kernel": None, "attention": None, "gpus": [], "driver": {
            "loaded_version": None, "flavour": None, "installed_version": None, "installed_flavour": None},
        "toolkits": {}, "conda": {}, "files": {}, "training": {}, "env": None}}]}
MANIFEST = {"form": 1, "stack": "guide", "python": "3.10", "lock_sha256": None,
            "files": {"wheels/x-1-py3-none-any.whl": {"sha256": "0" * 64, "bytes": 0, "from": "x"}}}
STACK = yaml.safe_load((ROOT / "qwen_rig/data/stacks/standin.yml").read_text(encoding="utf-8"))
MIRRORS = {"mirrors": {"own": {"source": "https://h.example/doc", "pip_index": "https://h.example/simple/"}}}
NUMBER = {"label": "largest batch", "value": 5, "unit": "samples", "better": "higher"}
CHECK = {"name": "x", "title": "", "status": "fail", "measured": "", "expected": "", "source": "", "why": "",
         "numbers": [NUMBER], "facts": {"a": "b"}, "series": {"s": [[1, 2], [3, 4]]}}
CERTIFICATE = {"kind": "qwen-rig certificate", "format": 1, "uuid": "GPU-1", "name": "made up", "host": "a", "began": 1,
               "seconds": 1, "overall": "pass", "emulated": False, "environment": {"driver": "580"}, "checks": [CHECK]}


def manifest(data: Any, folder: Path) -> object:
    """A bundle with that manifest."""
    (folder / "bundle" / "wheels").mkdir(parents=True, exist_ok=True)
    (folder / "bundle" / "wheels" / "x-1-py3-none-any.whl").touch()
    laid(folder, "bundle/manifest.json", data)
    return bundle._load.__wrapped__(folder / "bundle")


def no_verdict(data: Any, _: Path) -> None:
    """A host's state: never refused, never a traceback."""
    State.of(data)


HOST = {"host": {"user": {"name": "root", "home": "/root"}, "arch": "x86_64", "time": 5}, "gpus": [{"uuid": "GPU-1"}],
        "driver": {"loaded_version": "580.1"}, "conda": [{"prefix": "/opt/c", "version": "26.1"}], "dpkg": {"a": "1"},
        "env": {"path": "/opt/conda/envs/x", "packages": {"six": ["1", "x"]}},
        "generations": [{"name": ".x-1", "path": "/x", "records": {"env": {"stack": "x"}, "training": {"bf16": True},
                                                                   "flash_attn": {"tried": [{"rung": "wheel"}]}}}],
        "files": {"/etc/x": None}, "texts": {"/etc/x": ""}, "problems": {}}

# -- command lines and the environment -------------------------------------------------------------------

DOORS: tuple[tuple[str, ...], ...] = (
    ("apply", "PATH"), ("bundle", "PATH"), ("certificate", "show", "PATH"), ("certificate", "read", "PATH"),
    ("doctor", "--log", "PATH"), ("fits", "--memory", "24576", "--model", "PATH"), ("init", "PATH"),
    ("host-keys", "list", "--file", "PATH"), ("bundle", "nosuch", "--data", "bundle=PATH"), ("apply", "~nobody/PATH"))
WHOLE = st.sampled_from(["²", "-1", "0", "1e3", "", "x", "9" * 400, "1.5", "٣", " 5 ", "0x10"])
OPTIONS = st.one_of(
    st.tuples(st.sampled_from([("fits", "--memory"), ("fits", "--memory=24576 --length")]), WHOLE).filter(
        lambda pair: pair[1].strip() not in ("5",)).map(lambda pair: [*" ".join(pair[0]).split(), pair[1]]),
    NAME.map(lambda name: ["fits", "--card", f"{name}x"]), NAME.map(lambda name: [f"{name}x"]),
    st.builds(lambda verb, name: [verb, f"--{name}x"], st.sampled_from(cli.VERBS), NAME),
    st.builds(lambda pair: ["bundle", "/nosuch-at-all", "--data", f"{pair[0]}={pair[1]}"],
              FLAT.filter(lambda pair: "\0" not in str(pair[1]))),
    NAME.map(lambda name: ["host-keys", f"{name}x"]), NAME.map(lambda name: ["explain", "a", f"{name}x"]),
    NAME.map(lambda name: ["host-keys", "accept", "m", f"SHA256:{name}"]), st.just(["host-keys", "accept"]))


def at_our_door(words: list[str], _: Path) -> None:
    """`qwen-rig WORDS` in this process. RigError where it ends with one line and status 1, as it should."""
    said: list[str] = []
    with mock.patch.object(say, "err", lambda text, **_: said.append(text)):
        status = cli.main(words)
    told = "".join(said).rstrip("\n")
    if "Traceback" in told or "mistake of qwen-rig's" in told:
        raise AssertionError(told)
    if status == 1:
        raise RigError(told, "", "" if "\n" in told else (" · " in told and "said") or "")


SOUND = {"inventory": str(ROOT / "inventories/lab.py"), "operations": ("deploy/5090.py",)}
OPTION = st.one_of(
    st.tuples(st.just("ssh_port"), BAD_PORT.filter(lambda port: type(port) is int)),
    st.tuples(st.just("ssh_user"), BAD_USER),
    st.tuples(st.just("ssh_key"), BAD_LOCAL),
    st.tuples(st.just("inventory"), BAD_LOCAL | NAME.map(lambda name: f"{name}x.py")),
    st.tuples(st.sampled_from(["parallel", "retry", "fail_percent"]), st.integers(max_value=-1)),
    st.tuples(st.just("data"), st.one_of(NAME, DEEP.map(lambda deep: f"x_y={deep}"), BAD_ADDRESS.map(
        lambda host: f"ssh_hostname={host}"), NAME.map(lambda name: f"stakc={name}")).map(lambda text: (text,))))


def of_the_users_own(pair: tuple[str, Any]) -> bool:
    """What is no JSON at all is a text, and the user's own."""
    return not (pair[0] == "data" and pair[1][0].startswith("x_y="))


def width(text: str, _: Path) -> None:
    """A terminal that says so of its width."""
    with mock.patch.dict(os.environ, COLUMNS=text.encode("utf-8", "replace").decode(), LINES="²"):
        assert render.NARROWEST <= render.out().width < 10_000
        render.console()


KINDS = (
    Kind("knobs, by type", KNOB, lambda pair, _: knobs.check(pair[0], pair[1], "lab.yml:3"), 500),
    Kind("--data, by type", FLAT, lambda pair, _: knobs.pair(f"{pair[0]}={pair[1]}"), 300),
    Kind("knobs, any value", st.tuples(st.sampled_from(sorted(knobs.NAMES)), ODD),
         lambda pair, _: knobs.check(pair[0], pair[1], "lab.yml:3"), 150, never),
    Kind("keys of lab.yml", LAB_KEY, lab_key, 250),
    Kind("names in lab.yml", BAD_HOST, lambda name, to: load_hosts(laid(to, "lab.yml", {"hosts": {name: {}}})), 60),
    Kind("keys of cloud.yml", CLOUD_KEY, cloud_key, 150),
    Kind("hosts of cloud.yml", st.tuples(st.sampled_from(["ssh", "ssh-config"]), WRITTEN_OUT), written_out, 60),
    Kind("clouds' answers", ANSWERED, answered, 350, never),
    Kind("pasted lines", st.text(max_size=60) | NAME.map(lambda name: f"ssh -p {name} root@h") | BAD_ADDRESS.map(
        "ssh {}".format), lambda line, _: list(SOURCES["ssh"]([line], "cloud.yml:1", {})), 60, never),
    Kind("files of any bytes", st.tuples(st.sampled_from(sorted(READERS)), RAW), any_bytes, 350),
    Kind("saved plans, any value", mutants(PLAN), lambda data, to: _saved.load(laid(to, "p.json", data)), 150, never),
    Kind("manifests, any value", mutants(MANIFEST), manifest, 100, never),
    Kind("certificates, any value", mutants(CERTIFICATE), lambda data, to: certificate.load(laid(to, "c.json", data)),
         60, never),
    Kind("stacks, any value", mutants(STACK), lambda data, to: load_stack(str(laid(to, "own.yml", data))), 40, never),
    Kind("stacks, by type", forms.spoilt(STACK, WholeFile), lambda data, to: load_stack(str(laid(to, "own.yml", data))),
         80),
    Kind("mirrors, by type", forms.spoilt(MIRRORS, MirrorsFile),
         lambda data, to: load_mirrors.__wrapped__(str(laid(to, "mirrors.yml", data))), 60),
    Kind("hosts' states", mutants(HOST), no_verdict, 100, never),
    Kind("paths on command lines", st.builds(lambda door, path: [word.replace("PATH", path) for word in door],
                                             st.sampled_from(DOORS), BAD_LOCAL), at_our_door, 120),
    Kind("our own options", OPTIONS, at_our_door, 120),
    Kind("pyinfra's options", OPTION, lambda pair, _: options.refuse_bad({**SOUND, **dict([pair])}), 150,
         of_the_users_own),
    Kind("COLUMNS", st.text(max_size=6).filter(lambda text: "\0" not in text)
         | st.sampled_from(["²", "0", "1", "9" * 11, "-5"]), width, 80, never),
    Kind("JSON of any depth", st.sampled_from([33, 40, 990, 5000, 200_000]),
         lambda n, _: strictjson.read("[" * n + "]" * n, "f.json", "mend it"), 5),
)
