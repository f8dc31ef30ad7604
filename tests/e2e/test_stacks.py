"""Stacks on a real host: a mirror that lies is refused by hash and costs the old env nothing; what no lock holds is
taken with consent only; an impossible stack is refused before anything is dialled."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from qwen_rig.catalog.stack import DATA

from .conftest import Lab, Run

pytestmark = pytest.mark.testbed
HOST = "stacks-01"
ENV = "/root/miniforge3/envs/qwen-train"
LOST_CACHES = "rm -rf /root/.cache/uv /root/.cache/pip"  # else the true files come from there
# What an env is: where its link points, what is in it, and that it works.
STATE = (f"readlink {ENV}; cd {ENV}/lib/python3*/site-packages && find . -name '*.py' -o -name RECORD -o -name METADATA"
         f" | sort | xargs sha256sum; {ENV}/bin/python -c 'import six, attrs; print(six.__version__)'")


def said(run: Run) -> list[str]:
    """What we ourselves said before the hosts were dialled."""
    return [line.removeprefix("qwen-rig: ") for line in run.stderr.splitlines() if line.startswith("qwen-rig: ")]


@pytest.fixture(scope="module")
def lab(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    from testbed import HostSpec

    made = Lab(bed, bed.up([HostSpec(HOST)]), tmp_path_factory.mktemp("stacks"))
    first = made.deploy("-y")
    assert first.code == 0, first.stderr
    return made


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A stack file of one's own, with its lock and sizes beside it."""
    for name in ("stacks/standin.yml", "locks/standin.lock.txt", "locks/standin.sizes.yml"):
        shutil.copy(DATA / name, tmp_path)
    return tmp_path / "standin.yml"


@pytest.fixture
def own(copied: Path) -> Path:
    """One without `six` in its lock: it's to come from an index of its own, unlocked."""
    path = copied
    raw = yaml.safe_load(path.read_text())
    del raw["pins"]["six"]
    raw["name"] = "own"
    raw["torch_index"] = {"packages": ["six"], "only": True, "pre": False, "lock": None, "why": "a test of consent"}
    path.write_text(yaml.safe_dump(raw))
    lock = path.with_name("standin.lock.txt")
    head, _, tail = lock.read_text().partition("six==")
    lock.write_text(head + tail[tail.index("\ntabulate==") + 1:])
    return path


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_another_file_under_the_same_name_is_refused_and_the_env_stays(lab: Lab, own: Path, installer: str) -> None:
    lab.on(HOST, LOST_CACHES)
    lying = f"source_pip_index={lab.bed.services().base}/lying-tabulate/pypi/simple/"
    before = lab.on(HOST, STATE)
    build = lab.deploy("-y", "--data", lying, "--data", f"installer={installer}", "--data", f"stack={own}", "--data",
                       "accept_unlocked_torch=true", "--data", f"source_torch_index={lab.bed.services().pip_index}")
    assert build.code == 1 and "Traceback" not in build.stderr
    assert "a file isn't the one that the lock names" in build.stderr
    assert lab.on(HOST, STATE) == before


def test_mending_from_a_lying_mirror_loses_nothing(lab: Lab) -> None:
    older = "; ".join(f"mv {name}-{there}.dist-info {name}-0.1.dist-info && "
                      f"sed -i 's/^Version: .*/Version: 0.1/' {name}-0.1.dist-info/METADATA"
                      for name, there in (("six", "1.17.0"), ("click", "8.1.8")))
    lab.on(HOST, f"{LOST_CACHES}; cd {ENV}/lib/python3*/site-packages && {older}")
    before = lab.on(HOST, STATE)
    refused = lab.deploy("-y", "--data", f"source_pip_index={lab.bed.services().base}/lying-six/pypi/simple/")
    assert refused.code == 1 and "a file isn't the one that the lock names" in refused.stderr, refused.stderr
    assert lab.on(HOST, STATE) == before
    assert lab.deploy("-y").code == 0
    assert "six-1.17.0.dist-info" in lab.on(HOST, f"ls {ENV}/lib/python3*/site-packages")
    assert "No changes." in lab.deploy("-y").stderr


def test_what_no_lock_holds_comes_with_consent_only_and_is_on_record(lab: Lab, own: Path) -> None:
    given = ("--data", f"stack={own}", "--data", f"source_torch_index={lab.bed.services().pip_index}")
    before = lab.fingerprint(HOST)
    refused = lab.deploy("-y", *given)
    assert refused.code == 1 and "Connecting to hosts" not in refused.stderr
    assert said(refused) == ["stack own would take six unchecked: a test of consent · host stacks-01 · "
                             "set accept_unlocked_torch=true to take them so"]
    assert lab.fingerprint(HOST) == before
    nowhere = f"{lab.bed.services().base}/nowhere"
    lacking = lab.deploy("-y", given[0], given[1], "--data", f"source_torch_index={nowhere}", "--data",
                         "accept_unlocked_torch=true")
    assert lacking.code == 1 and lab.fingerprint(HOST) == before
    assert f"1 of 1 packages can't be fetched from {nowhere}: six (404)" in " ".join(lacking.stderr.split())
    taken = lab.deploy("-y", *given, "--data", "accept_unlocked_torch=true")
    assert taken.code == 0, taken.stderr
    assert "six come unchecked from" in taken.stderr
    assert lab.record(HOST, "env")["unlocked"] == ["six"]
    assert "No changes." in lab.deploy("-y", *given, "--data", "accept_unlocked_torch=true").stderr


def test_a_wrong_hash_in_the_lock_is_refused_before_the_host_is_touched(lab: Lab, copied: Path) -> None:
    lock = copied.with_name("standin.lock.txt")
    head, _, tail = lock.read_text().partition("six==1.17.0")
    lock.write_text(head + "six==1.17.0" + re.sub(r"sha256:[0-9a-f]{64}", "sha256:" + "0" * 64, tail, count=2))
    before = lab.fingerprint(HOST), lab.on(HOST, STATE)
    refused = lab.deploy("-y", "--data", f"stack={copied}")
    assert refused.code == 1 and "Traceback" not in refused.stderr, refused.stderr
    said = " ".join(refused.stderr.split())
    assert "1 of 6 locked files can't be fetched" in said and "six 1.17.0 (other bytes than the lock's)" in said, said
    assert "make the lock again" in said
    assert (lab.fingerprint(HOST), lab.on(HOST, STATE)) == before
    lab.on(HOST, LOST_CACHES)


def test_uv_and_pip_install_the_same_set_of_the_same_files(lab: Lab) -> None:
    envs = {installer: f"by-{installer}" for installer in ("uv", "pip")}
    for installer, env in envs.items():
        made = lab.deploy("-y", "--data", f"installer={installer}", "--data", f"env_name={env}")
        assert made.code == 0, made.stderr
    by_uv, by_pip = (lab.installed(HOST, env) for env in envs.values())
    assert by_uv == by_pip, by_uv ^ by_pip
    assert "six-1.17.0" in by_uv and any(line.endswith(" ./six.py") for line in by_uv)
    told = "cat /root/miniforge3/envs/by-*/lib/python3*/site-packages/six-*.dist-info/INSTALLER"
    assert lab.on(HOST, told).split() == ["pip", "uv"], "each by its own"


def of_own(folder: Path, name: str, without: str) -> Path:
    """The stand-in as a stack of one's own of that name, without one of its packages."""
    folder.mkdir()
    for each in ("locks/standin.lock.txt", "locks/standin.sizes.yml"):
        shutil.copy(DATA / each, folder)
    raw = yaml.safe_load((DATA / "stacks" / "standin.yml").read_text())
    raw |= {"name": name, "pins": {key: pin for key, pin in raw["pins"].items() if key != without}}
    (folder / f"{name}.yml").write_text(yaml.safe_dump(raw))
    lock = folder / "standin.lock.txt"
    if without:
        rows = re.split(r"(?m)^(?=[a-z])", lock.read_text())
        lock.write_text("".join(row for row in rows if not row.startswith(f"{without}==")))
    return folder / f"{name}.yml"


def test_an_env_moves_to_another_stack_and_back_and_a_package_more_comes_in_place(lab: Lab, tmp_path: Path) -> None:
    """A plan like any other: told, done, undone to the very env before, and forward again without a byte fetched. A
    stack that has since got one package more is mended where it is."""
    name = "moving"
    env, given = f"/root/miniforge3/envs/{name}", ("--data", f"env_name={name}")
    less, more = of_own(tmp_path / "less", "less", "six"), of_own(tmp_path / "more", "less", "")
    link, has_six = f"readlink {env}", f"ls {env}/lib/python3*/site-packages | grep -c '^six.py$' || true"

    def moved(stack: Path | str, *words: str) -> str:
        run = lab.deploy("-y", *given, "--data", f"stack={stack}")
        told = " ".join(run.stderr.split())
        assert run.code == 0 and all(word in told for word in words), run.stderr
        return lab.on(HOST, link)

    first = moved("standin")
    tree = lab.on(HOST, f"cd {env}/ && find . -type f ! -name '*.pyc' -printf '%P %s %T@\n' | sort")
    planned = lab.rig("plan", "--json", "--limit", HOST, *given, "--data", f"stack={less}")
    (step,) = [row for row in json.loads(planned.stdout)["hosts"][0]["steps"] if row["component"] == "env"]
    assert step["action"] == "change" and "the lock of stack less is another; the old env is kept" in step["why"]
    assert lab.on(HOST, link) == first, "a plan moves nothing"
    second = moved(less)
    assert second != first and lab.on(HOST, has_six).strip() == "0"
    grown = moved(more, "six")
    assert grown == second and lab.on(HOST, has_six).strip() == "1", "one package more, in the same env"
    assert "No changes." in lab.deploy("-y", *given, "--data", f"stack={more}").stderr
    assert lab.rig("undo", "--yes", *given).code == 0 and lab.on(HOST, link) == first
    assert lab.on(HOST, f"cd {env}/ && find . -type f ! -name '*.pyc' -printf '%P %s %T@\n' | sort") == tree
    assert "No changes." in lab.deploy("-y", *given, "--data", "stack=standin").stderr
    requests = len(lab.bed.requests())
    assert moved(less, "is complete: tested again, then linked") == second
    assert not [row for row in lab.bed.requests()[requests:] if row["path"].endswith((".whl", ".conda"))]


# An env by hand as the guide's problems 2 and 3 leave it. Its files are made up: they hold what tells a package and a
# build (names of .dist-info, torch/version.py), no code.
BY_HAND = """cd /root/miniforge3/envs && cp -aL qwen-train by-hand && rm -rf by-hand/.rig
cd by-hand/lib/python3*/site-packages
rm -rf *.dist-info
for package in torch-2.7.1 transformers-4.40.0 trl-0.11.0 peft-0.13.0 accelerate-0.34.0 datasets-3.1.0; do
  mkdir $package.dist-info && echo "Version: ${package#*-}" >$package.dist-info/METADATA
done
mkdir torch && printf "__version__ = '2.7.1+cu126'\\ncuda: Optional[str] = '12.6'\\n" >torch/version.py"""


def test_a_careless_torch_and_an_old_transformers_are_named_from_the_files_of_a_real_host(lab: Lab) -> None:
    lab.on(HOST, BY_HAND)
    before = lab.fingerprint(HOST)
    told = lab.rig("plan", "--json", "--limit", HOST, "--data", "stack=guide", "--data", "env_name=by-hand")
    (host,) = json.loads(told.stdout)["hosts"]
    env = next(step for step in host["steps"] if step["component"] == "env")
    assert env["action"] == "change" and "built beside" in env["why"]
    assert env["problems"][0].startswith("torch 2.7.1+cu126 is built for CUDA 12.6, not 12.8, as a plain `pip install "
                                         "torch==2.7.1` brings it; it has no code for sm_120")
    assert {"torch 2.7.1 is older than the lock's 2.8.0", "transformers 4.40.0 is older than the lock's 4.46.0",
            "torchvision is missing; the lock has 0.23.0"} <= set(env["problems"])
    assert not any("trl" in line or "peft" in line for line in env["problems"]), "what is right isn't named"
    assert lab.fingerprint(HOST) == before
    lab.on(HOST, "rm -r /root/miniforge3/envs/by-hand")


@pytest.mark.parametrize(("file", "old", "new", "says"), [
    ("standin.yml", "import_gate:", "import_gat:", "import_gate is missing"),
    ("standin.yml", "version: 8.1.8,", "version: 8.1.999,", "pins.click wants 8.1.999, but the lock has 8.1.8"),
    ("standin.lock.txt", "click==8.1.8", "click==8.1.7", "pins.click wants 8.1.8, but the lock has 8.1.7"),
    ("standin.lock.txt", "click==8.1.8", "click>=8.1.8", "click has no exact version"),
    ("standin.lock.txt", "--hash=sha256:", "--hash=md5:", "attrs has --hash=md5, and only whole sha256 hashes"),
])
@pytest.mark.parametrize("door", ["pyinfra", "rig"])
def test_a_stack_file_of_ones_own_that_is_wrong_is_one_line_before_anything_is_dialled(
        tmp_path: Path, copied: Path, door: str, file: str, old: str, new: str, says: str) -> None:
    spoilt = copied.with_name(file)
    assert old in spoilt.read_text()
    spoilt.write_text(spoilt.read_text().replace(old, new))
    lab = nobody(tmp_path)
    run = (lab.deploy("--dry", "--data", f"stack={copied}") if door == "pyinfra"
           else lab.rig("plan", "--data", f"stack={copied}"))
    assert run.code == 1 and "Connecting to hosts" not in run.stderr and "Traceback" not in run.stderr
    line, = said(run) if door == "pyinfra" else run.stderr.splitlines()
    assert says in line and str(copied.parent) in line and line.count(" · ") >= 1


@pytest.mark.parametrize(("data", "groups", "where"), [
    ({"hosts": {"nobody": {"address": "192.0.2.1", "stack": "guide-literal"}}}, {}, "lab.yml:"),
    ({"defaults": {"stack": "guide-literal"}, "hosts": {"nobody": {"address": "192.0.2.1"}}}, {}, "lab.yml:"),
    ({"hosts": {"nobody": {"address": "192.0.2.1"}}}, {"lab.py": 'stack = "guide-literal"'}, "host nobody"),
])
def test_a_stack_is_chosen_in_the_inventory_or_per_group_too(tmp_path: Path, data: Any, groups: dict[str, str],
                                                             where: str) -> None:
    lab = nobody(tmp_path)
    lab.data = data
    lab.write()
    for name, text in groups.items():
        (tmp_path / name).write_text(text)
    run = lab.deploy("--dry", *(("--group-data", "group_data", "--group-data", str(tmp_path)) if groups else ()))
    assert run.code == 1 and "Connecting to hosts" not in run.stderr and "Traceback" not in run.stderr, run.stderr
    line, = said(run)
    assert line.startswith("torch 2.5.1 was never published for CUDA 12.8") and where in line, line


def test_a_misspelt_knob_of_a_group_is_refused_and_what_is_no_knob_at_all_is_not_ours(tmp_path: Path) -> None:
    lab = nobody(tmp_path)
    (tmp_path / "lab.py").write_text('colour = "blue"\nx_stack = 1\nstakc = "qwen3"\n')
    run = lab.deploy("--dry", "--group-data", "group_data", "--group-data", str(tmp_path))
    assert run.code == 1 and "Connecting to hosts" not in run.stderr and "Traceback" not in run.stderr, run.stderr
    assert said(run) == ["there is no knob 'stakc' · host nobody · did you mean stack?"]


def nobody(folder: Path) -> Lab:
    """An inventory of one host at TEST-NET-1, where nobody answers."""
    lab = Lab.__new__(Lab)
    lab.file, lab.folder = folder / "lab.yml", folder
    lab.data = {"hosts": {"nobody": {"address": "192.0.2.1"}}}
    lab.write()
    return lab


@pytest.mark.parametrize(("knob", "says"), [
    ("stack=guide-literal", "torch 2.5.1 was never published for CUDA 12.8: it exists for cu118, cu121, cu124 only, "
                            "and cu128 begins with torch 2.7"),
    ("stack=nightly", "stack nightly would take torch, torchvision, torchaudio unchecked"),
    ("stack=gide", "there is no stack 'gide'"),
    ("stack=nowhere/own.yml", "can't be read: No such file or directory"),
    ("stakc=qwen3", "there is no knob 'stakc' · --data · did you mean stack?"),
    ("colour=blue", "there is no knob 'colour' · --data · see group_data/all.py"),
    ("verification_gpu=perhaps", "verification_gpu must be true or false, not 'perhaps'"),
    ("timeout_env=long", "timeout_env must be a whole number above 0, not 'long'"),
])
def test_bad_input_is_one_line_before_anything_is_dialled(tmp_path: Path, knob: str, says: str) -> None:
    run = nobody(tmp_path).deploy("--dry", "--data", knob)
    assert run.code == 1 and "Connecting to hosts" not in run.stderr and "Traceback" not in run.stderr
    line, = said(run)
    assert says in line and line.count(" · ") >= 1


def test_an_impossible_stack_is_refused_before_the_inventory_is_even_read(tmp_path: Path) -> None:
    """So that it takes about as long as pyinfra's own start, whatever the inventory."""
    refused = nobody(tmp_path).deploy("--dry", "--data", "stack=guide-literal")
    assert refused.code == 1 and "torch 2.5.1" in refused.stderr and "cu128" in refused.stderr, refused.stderr
    assert "Loading config" in refused.stderr and "Loading inventory" not in refused.stderr, refused.stderr
