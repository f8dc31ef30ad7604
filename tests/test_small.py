"""Pure pieces: the key's fingerprint, the knobs' types, the files we manage."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from paramiko import SSHException
from pyinfra.api.connectors import get_all_connectors

from qwen_rig import knobs, ledger, managed
from qwen_rig.deploy import watched
from qwen_rig.deploy.planning import make_plan
from qwen_rig.errors import RigError
from qwen_rig.facts.machine import Os
from qwen_rig.program import Program
from qwen_rig.run import adapter
from qwen_rig.run.converge import run_script
from qwen_rig.run.run import Run
from testbed.wheels import Wheelhouse


@pytest.mark.parametrize(("name", "value", "said"), [
    ("nvidia_driver_branch", "five-eighty", "whole number"),
    ("allow_busy_gpu", "yes", "true or false"),
    ("stack", 3, "must be a text"),
    ("flash_attn", "always", "it takes auto, wheel, build, fa4, off"),
    ("python", "3.9", "it takes auto, 3.10, 3.11, 3.12, 3.13"),
    ("env_name", "a;rm -rf /", "letters, digits"),
    ("source_pip_index", "mirror/simple", "begin it with https://"),
])
def test_a_wrong_knob_is_one_line_that_says_what_it_takes(name: str, value: object, said: str) -> None:
    with pytest.raises(RigError, match=said) as caught:
        knobs.check(name, value, "lab.yml")
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "name", "value"), [
    ("stack=qwen3", "stack", "qwen3"),
    ("python=3.10", "python", "3.10"),
    ("timeout_env=900", "timeout_env", 900),
    ("verification_gpu=False", "verification_gpu", False),
    ("conda_prefix=None", "conda_prefix", None),
    ("proxy=http://proxy.test:3128/?a=b", "proxy", "http://proxy.test:3128/?a=b"),
])
def test_a_pair_of_the_command_line_is_a_knob_and_its_value(text: str, name: str, value: object) -> None:
    assert knobs.pair(text) == (name, value)


@pytest.mark.parametrize(("text", "said"), [
    ("stack", "'stack' is no KNOB=VALUE · --data"),
    ("stakc=qwen3", "there is no knob 'stakc' · --data · did you mean stack"),
    ("timeout_env=soon", "timeout_env must be a whole number above 0, not 'soon' · --data"),
])
def test_a_wrong_pair_is_one_line(text: str, said: str) -> None:
    with pytest.raises(RigError, match=said):
        knobs.pair(text)


def test_values_are_read_as_pyinfras_own_command_line_reads_them() -> None:
    texts = ["true", "FALSE", "3.10", "3.11", "580", "-1", "none", "null", "guide", "", '{"a": 1}', '[1, "b"]', "a=b",
             "~/own.yml", '"quoted"']
    code = "import json, sys; from pyinfra_cli.util import parse_cli_arg as p; print(json.dumps([p(sys.argv[1:])]))"
    told = subprocess.run([sys.executable, "-c", code, *texts], capture_output=True, text=True, check=True).stdout
    assert [knobs.parsed(text) for text in texts] == json.loads(told)[0]


def test_off_is_off_in_yaml_too() -> None:
    for name in ("mirrors", "proxy_script", "flash_attn"):
        assert knobs.check(name, yaml.safe_load(f"{name}: off")[name], "lab.yml") == "off"
    with pytest.raises(RigError, match="verification must be a text"):
        knobs.check("verification", False, "lab.yml")


def test_others_data_are_let_through_and_no_knob_or_key_of_pyinfras_is_taken_for_a_misspelt_one() -> None:
    connectors = {key for connector in get_all_connectors().values() for key in getattr(connector, "data_meta", {})}
    knobs.refuse_misspelt([*knobs.NAMES, *connectors, "_sudo", "x_stakc", "ssh_prot", "address", "colour"], "lab")
    assert "ssh_port" in connectors and not any(knobs.ours(name) for name in connectors if name[:5] != "fake_")
    for name in ("stakc", "envname", "data_dri"):
        with pytest.raises(RigError, match=f"there is no knob '{name}' · lab · did you mean "):
            knobs.refuse_misspelt([name], "lab")


def test_managed_files_are_watched() -> None:
    assert set(managed.guard_digests(nova=True)) <= set(watched())
    for os in (Os("debian", "12"), Os("ubuntu", "24.04")):
        assert set(managed.repository_files(os)) <= set(watched())


@pytest.mark.parametrize("package", [
    "nvidia-open", "nvidia-driver-580-server-open", "nvidia-kernel-open-dkms", "libnvidia-compute-580", "libcuda1",
    "libnvcuvid1", "libcudadebugger1", "cuda-drivers-580", "firmware-nvidia-gsp", "xserver-xorg-video-nvidia-580",
    "linux-modules-nvidia-580-open-generic", "linux-objects-nvidia-580-6.8.0-60-generic"])
def test_unattended_upgrades_leave_every_part_of_a_driver_alone_and_apt_pins_the_same(package: str) -> None:
    patterns = re.findall('"(.*)";', "".join(managed.GUARD.values()))
    [pins] = re.findall("Package: (.*)", managed.preferences_text("https://x.test/", driver=True))
    assert any(re.match(pattern, package) for pattern in patterns)  # as unattended-upgrades matches
    assert any(fnmatchcase(package, pin) for pin in pins.split())  # as apt_preferences(5) does
    for other in ("linux-image-6.8.0-1010-nvidia", "linux-headers-generic", "libc6", "curl"):
        assert not any(re.match(pattern, other) for pattern in patterns), other
        assert not any(fnmatchcase(other, pin) for pin in pins.split()), other


@pytest.mark.parametrize("error", [EOFError(), OSError("Socket is closed"), TimeoutError(), SSHException("dropped")])
def test_a_connection_that_breaks_while_a_command_is_sent_is_an_answer(
        monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """paramiko has an error of its own for each moment; pyinfra would print the traceback of any of them."""
    said: list[str] = []
    run, state = Run(make_plan, watched), SimpleNamespace()
    adapter.attach(state, run)  # type: ignore[arg-type]
    monkeypatch.setattr(run.report, "said", lambda host, lines: said.extend(lines))

    def breaks(*_: Any, **__: Any) -> None:
        raise error

    host: Any = SimpleNamespace(name="lab-1", connector=SimpleNamespace(), data={}, run_shell_command=breaks,
                                state=state)
    assert run_script(host, Program("true")(), 1) == (False, "")
    assert len(said) == 1 and said[0].startswith("connection lost: ") and len(said[0]) > len("connection lost: ")


def test_a_testbeds_index_hashes_a_new_file_for_many_hosts_at_once(tmp_path: Path) -> None:
    """Each thread keeps the digest; none takes away what another is about to put in place."""
    for number in range(20):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "six-1.0-py3-none-any.whl").write_bytes(b"x" * 3_000_000)
        house, together = Wheelhouse(folder), Barrier(8)

        def asked(_: int, house: Wheelhouse = house, together: Barrier = together) -> list[tuple[str, str]]:
            together.wait()
            return house.files("six")

        with ThreadPoolExecutor(8) as pool:
            assert len({tuple(found) for found in pool.map(asked, range(8))}) == 1 and house.files("six")


def test_a_record_that_can_not_be_kept_is_told_and_two_runs_lose_nothing_of_each_others(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also behind a line that a full disk has cut."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    history = tmp_path / "qwen-rig" / "history.jsonl"
    assert ledger.timed([("a", 1.0)]) == "" == ledger.timed([("b", 2.0)])
    history.write_bytes(history.read_bytes() + b'["cut')
    assert ledger.timed([("c", 3.0)]) == ""
    assert history.read_text().splitlines() == ['["a", 1.0]', '["b", 2.0]', '["cut', '["c", 3.0]']
    (tmp_path / "qwen-rig" / "hosts").touch()  # a file where a folder belongs, as good as a disk that takes none
    assert "qwen-rig/hosts" in ledger.remember("h", "a", "x", {}) and "qwen-rig/hosts" in ledger.forget("h", "a")
