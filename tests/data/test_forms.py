"""Every kind of mistake in every data file is one RigError line that names file, line and key."""

from __future__ import annotations

import copy
import datetime
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import yaml

from qwen_rig import hosttext, knobs
from qwen_rig.catalog import limits, lock, models, rules_file, sources, yamlfile
from qwen_rig.catalog.advisories import AdvisoriesFile
from qwen_rig.catalog.datafile import DATA, load
from qwen_rig.catalog.flash4 import Flash4
from qwen_rig.catalog.flash_build import FlashFile
from qwen_rig.catalog.stack import known_stacks, load_stack
from qwen_rig.catalog.stack_file import read_stack
from qwen_rig.certificate.gates import GatesFile, SeenFile
from qwen_rig.cloud import load_cloud
from qwen_rig.doctor import forms as doctor
from qwen_rig.doctor.languages import LanguagesFile
from qwen_rig.errors import RigError
from qwen_rig.lab import load_hosts
from qwen_rig.plan.place import DisksFile

Loc = tuple[Any, ...]


@dataclass(frozen=True)
class Form:
    """A file of ours, and what reads one like it."""

    path: Path
    read: Callable[[Path], Any]

    @cached_property
    def data(self) -> Any:
        """What it holds; of the long tables of cards, codes and signatures, a few."""
        data = yaml.load(self.path.read_text(), yaml.CSafeLoader)
        if self.path.name == "gpus.yml":
            data.update(chips=dict(list(data["chips"].items())[:2]), memory_mib={"2b85": 32607})
        for name in {"signatures", "codes"} & set(data):
            data[name] = data[name][:5]
        return data


FORMS = {
    **{f"stacks/{name}": Form(DATA / "stacks" / f"{name}.yml", read_stack) for name in known_stacks()},
    **{f"doctor/{name}": Form(DATA / "doctor" / f"{name}.yml", lambda path: load(path, doctor.SignaturesFile))
       for name in doctor.FILES},
    **{f"doctor/codes/{name}": Form(DATA / "doctor" / "codes" / f"{name}.yml", doctor.load_table)
       for name in doctor.TABLES},
    **{f"doctor/{name}": Form(DATA / "doctor" / f"{name}.yml", lambda path, form=form: load(path, form))
       for name, form in {"voices": doctor.VoicesFile, "names": doctor.NamesFile, "languages": LanguagesFile}.items()},
    **{name: Form(DATA / f"{name}.yml", lambda path, form=form: load(path, form)) for name, form in {
        "advisories": AdvisoriesFile, "disks": DisksFile, "flash": FlashFile, "flash-attn-4": Flash4,
        "gates": GatesFile, "gpus": rules_file.GpusFile, "models": models.ModelsFile, "network": limits.LimitsFile,
        "rules": rules_file.RulesFile, "seen": SeenFile, "sources": sources.Sources}.items()},
    "sizes": Form(DATA / "locks" / "standin.sizes.yml", lock.read_sizes),
}
OTHERS: tuple[Any, ...] = ("words", "", 7, 7.5, -1, True, False, None, [], {}, [3], {"x": 3}, [[]], {3: 4}, {"": ""},
                           float("nan"), 10**400, datetime.date(2026, 1, 2), b"\xff")
MOST = 40  # of the places of one file, always the same ones, and 3 times as many changes


def places(data: Any, at: Loc = ()) -> Iterator[tuple[Loc, Any]]:
    """(place, value) of all that a file holds."""
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield (*at, key), value
        yield from places(value, (*at, key))


def holder(data: Any, at: Loc) -> Any:
    """The mapping or list around a place."""
    for part in at[:-1]:
        data = data[part]
    return data


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "own.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def said(read: Callable[[Path], Any], path: Path) -> str | None:
    """The one line; None where the file is taken. Any other exception is the test's failure."""
    try:
        read(path)
    except RigError as error:
        line = str(error)
        assert "\n" not in line and "\r" not in line and hosttext.lines(str(path)) in error.where, line
        assert error.what and len(line) < 1000, line
        return line
    return None


def spoilt(form: Form, folder: Path, change: Callable[[Any, Loc], None], at: Loc) -> str | None:
    """What is said of the file with one place changed."""
    data = copy.deepcopy(form.data)
    change(data, at)
    return said(form.read, written(folder, dumped(data)))


def dumped(data: Any) -> str:
    return str(yaml.dump(data, Dumper=yaml.CSafeDumper, allow_unicode=True, sort_keys=False))


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    return FORMS[request.param]


def some(form: Form) -> list[tuple[Loc, Any]]:
    found = list(places(form.data))
    return random.Random(0).sample(found, min(MOST, len(found)))


def test_as_it_stands_it_is_taken(form: Form) -> None:
    assert said(form.read, form.path) is None


def test_a_key_that_is_missing_or_misspelt_is_named_with_its_line(form: Form, tmp_path: Path) -> None:
    def without(data: Any, at: Loc) -> None:
        del holder(data, at)[at[-1]]

    def misspelt(data: Any, at: Loc) -> None:
        around = holder(data, at)
        pairs = [(f"{key}x" if key == at[-1] else key, value) for key, value in around.items()]
        around.clear()
        around.update(pairs)

    missing = unknown = 0
    for at, _ in some(form):
        if isinstance(at[-1], str):
            name = yamlfile.key_name(at)
            line = spoilt(form, tmp_path, without, at)
            if line and f"{name} is missing" in line:
                missing += 1
            line = spoilt(form, tmp_path, misspelt, at)
            if line and ("unknown key" in line or " is missing" in line):
                unknown += 1
                assert at[-1] in line, line  # the key itself, or what was meant
                assert f"own.yml:{line.split('own.yml:')[1].split(' ')[0]}" in line if len(at) > 1 else True
    assert unknown or form.path.name == "standin.sizes.yml"
    assert missing or form.path.name == "standin.sizes.yml"


def test_a_value_of_another_kind_is_refused_by_line_and_key_or_means_the_same(form: Form, tmp_path: Path) -> None:
    def put(data: Any, at: Loc) -> None:
        holder(data, at)[at[-1]] = other

    refused = 0
    for at, value in some(form):
        for other in random.Random(str(at)).sample(OTHERS, 3):
            line = spoilt(form, tmp_path, put, at)
            if line is None:
                assert taken(value, other), (at, value, other)
            else:
                refused += 1
                assert any(str(part) in line for part in at if isinstance(part, str)), (at, other, line)
    assert refused


def taken(value: Any, other: Any) -> bool:
    """Whether `other` may well stand for `value`: of the same kind, absent, or a whole number for a fraction. Free
    places (a signature's signs) take anything."""
    if other is None or type(value) is type(other) or value is None or isinstance(other, str):
        return True
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return isinstance(other, (int, float)) and not isinstance(other, bool)
    return isinstance(value, (str, bool, list)) and isinstance(other, (str, bool, int, float, list, dict, bytes,
                                                                      datetime.date))


def test_no_number_is_taken_for_a_text_and_no_bool_for_a_number(tmp_path: Path) -> None:
    shutil.copy(DATA / "stacks" / "guide.yml", tmp_path / "guide.yml")
    text = (tmp_path / "guide.yml").read_text()
    for old, new, words in (
            ("release: 2.8.0", "release: 2.8", "torch.release must be a text, not 2.8"),
            ("env_mib: 7600", "env_mib: true", "disk.env_mib must be a whole number, not True"),
            ("env_mib: 7600", "env_mib: 7600.0", "disk.env_mib must be a whole number, not 7600.0"),
            ("env_mib: 7600", "env_mib: '7600'", "disk.env_mib must be a whole number, not '7600'"),
            ("cxx11abi: true\n  glibc: \"2.28\"", "cxx11abi: 1\n  glibc: \"2.28\"",
             "torch.cxx11abi must be true or false, not 1"),
            ("    why: unpinned it falls", "    wyh: unpinned it falls",
             "deviations[1].why is missing · PATH:58 · wyh stands there in line 60: check its spelling"),
            ("exclude_newer: \"2026-09-15T00:00:00Z\"", "exclude_newer: 2026-09-15",
             "exclude_newer must be a text, not datetime.date(2026, 9, 15) · PATH:32 · quote it"),
            ("unpinned:", "unpined:", "unknown key unpined · PATH:28 · did you mean unpinned?"),
            ("  bytes: 256026321", "  byte: 256026321", "unknown key flash_attn.wheels.cp310.byte · PATH:"),
            ("torch_index:\n  packages: [torch, torchvision, torchaudio]", "torch_index:\n  packages: []",
             "torch_index.packages is empty · PATH:48 · name torch and what must fit it")):
        assert old in text
        path = written(tmp_path, text.replace(old, new))
        with pytest.raises(RigError) as caught:
            load_stack(str(path))
        assert words.replace("PATH", str(path)) in str(caught.value)


BROKEN: dict[str, str | bytes] = {
    "a key twice": "source: x\nsource: y\n",
    "a key twice, inside": "a: {b: 1, b: 2}\n",
    "deep flow": "a: " + "[" * 5000 + "]" * 5000,
    "not so deep flow": "a: " + "[" * 200 + "]" * 200,
    "deep blocks": "- " * 5000,
    "deep mappings": "{a: " * 3000,
    "deep by aliases": "x: &c0 []\n" + "".join(f"y{i}: &c{i + 1} [*c{i}]\n" for i in range(200)),
    "many by aliases": "x: &b0 [1, 2]\n" + "".join(f"y{i}: &b{i + 1} [{', '.join([f'*b{i}'] * 10)}]\n"
                                                  for i in range(12)),
    "merges of merges": "x: &m0 {a: 1}\n" + "".join(f"y{i}: &m{i + 1} {{<<: [*m{i}, *m{i}], b{i}: 1}}\n"
                                                   for i in range(40)),
    "itself": "a: &a [*a]\n",
    "an alias of nothing": "a: *nobody\n",
    "10 MB": b"a: b\n" * 2_000_000,
    "10 MB of one line": b"[" * 10_000_000,
    "NUL": "a: \0\n",
    "not UTF-8": b"a: \xff\n",
    "UTF-16": "a: b\n".encode("utf-16"),
    "half a character": "a: ü\n".encode()[:-2],
    "a control character": 'a: "\x07"\n',
    "a surrogate": 'a: "\\ud800"\n',
    "a tab": "\ta: 1\n",
    "open brackets": "a: [1, 2\n",
    "two documents": "a: 1\n---\nb: 2\n",
    "empty": "",
    "a comment": "# nothing\n",
    "null": "~\n",
    "a list": "- 1\n",
    "a text": "words\n",
    "a number": "3\n",
    "a key that is a list": "? [a]\n: 1\n",
    "a key that is a number": "3: 4\n",
    "a tag of Python's": "a: !!python/object/apply:os.system [true]\n",
    "a tag of nobody's": "a: !mine 3\n",
    "a set": "a: !!set {b}\n",
    "no bool": "a: !!bool words\n",
    "no date": "a: 2026-02-31\n",
    "an integer of 5000 digits": "a: " + "9" * 5000,
    "a hexadecimal of 5000 digits": "a: 0x" + "f" * 5000,
    "a merge of a text": "a: {<<: words}\n",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_what_is_no_file_of_ours_is_one_line(text: str | bytes, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    for form in (FORMS["rules"], FORMS["stacks/guide"], FORMS["seen"], FORMS["sizes"], FORMS["doctor/host"]):
        assert said(form.read, path)
    for load_inventory in (load_hosts, lambda path: load_cloud(path, tmp_path / "known")):
        assert said(load_inventory, path)
    with pytest.raises(RigError) as caught:
        knobs.check("mirrors", str(path))
    assert str(path) in str(caught.value)


def test_what_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere.yml", tmp_path / ("x" * 300), tmp_path / "a\0b.yml"):
        for form in (FORMS["rules"], FORMS["stacks/guide"]):
            assert "can't be read" in str(said(form.read, path))
    os.symlink("loop.yml", tmp_path / "loop.yml")
    assert "can't be read" in str(said(FORMS["rules"].read, tmp_path / "loop.yml"))


INVENTORY = {"defaults": {"user": "me", "port": 22, "host_keys": "strict", "stack": "guide", "reboot": "never",
                          "timeout_apt": 60, "mirrors": {"lan": {"pip_index": "https://lan.test/simple"}},
                          "x_more": {"any": [1, {2: 3}]}},
             "hosts": {"a": {"address": "192.0.2.1"}, "b": {"address": "192.0.2.2", "host_key_alias": "b"}}}
CLOUD = {"defaults": {"user": "me"},
         "sources": {"v": {"source": "ssh", "hosts": {"a": "ssh -p 9 root@192.0.2.1"}, "group": "g", "label": "*",
                           "state": "*", "tags": {}}}}


@pytest.mark.parametrize(("whole", "read"), [
    (INVENTORY, load_hosts), (CLOUD, lambda path: load_cloud(path, path.parent / "known"))], ids=["lab", "cloud"])
def test_an_inventory_with_any_value_of_any_kind_is_taken_or_one_line(whole: Any, read: Callable[[Path], Any],
                                                                     tmp_path: Path) -> None:
    assert said(read, written(tmp_path, dumped(whole))) is None
    lines = []
    for at, _ in places(whole):
        for other in OTHERS:
            data = copy.deepcopy(whole)
            holder(data, at)[at[-1]] = other
            lines.append(said(read, written(tmp_path, dumped(data))))
    told = [line for line in lines if line]
    assert len(told) > len(lines) / 2
    assert all("own.yml:" in line for line in told)


def test_dates_anchors_and_merge_keys_are_read_as_yaml_has_them(tmp_path: Path) -> None:
    path = written(tmp_path, "defaults: &d\n  user: me\n  x_when: 2026-01-02\nhosts:\n  a: &a\n    <<: *d\n"
                             "    address: 192.0.2.1\n  b:\n    <<: [*a, {port: 2222}]\n    address: 192.0.2.2\n")
    (_, a), (_, b) = load_hosts(path)
    assert a["x_when"] == datetime.date(2026, 1, 2) and (b["ssh_port"], b["ssh_hostname"]) == (2222, "192.0.2.2")
    file = yamlfile.read(path)
    assert file.where(("hosts", "b", "user")) == f"{path}:2" and file.where(("hosts", "b")) == f"{path}:8"


def test_what_our_reader_makes_of_a_file_is_what_pyyaml_makes_of_it() -> None:
    for path in DATA.rglob("*.yml"):
        assert yamlfile.read(path).data == yaml.load(path.read_text(), yaml.CSafeLoader)
