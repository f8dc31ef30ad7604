"""Bad hosts: each ends as one card that says what and what to do, is left as it was, and stops nobody else.

All of them are met in one run, as in life; each case is then its own test.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests import HANG_S, until

from .conftest import Lab, Run

pytestmark = pytest.mark.testbed


@dataclass(frozen=True)
class Case:
    """What is wrong with a host, and what its card must say."""

    says: str
    spec: dict[str, Any]
    data: dict[str, Any]
    untouched: bool = True


CASES = {
    "no-gpu": Case("no NVIDIA GPU", {"gpu": None}, {}),
    "gtx1080": Case("GTX 1080 (sm_61): torch 2.8.0 has code for", {"gpu": "gtx1080"}, {"stack": "guide"}),
    "container": Case("host's driver 550.90.07 can't serve cu128 on sm_120",
                      {"kind": "container", "driver": "550.90.07:proprietary"}, {}),
    "small": Case("GiB free, and stack guide takes", {"root_mib": 2048}, {"stack": "guide"}),
    "locked": Case("apt is locked: unattended-upgr (pid", {}, {"timeout_apt_lock": 4}),
    "gone": Case("(source-404)", {}, {"source_nvidia_apt": "broken"}),
    "hangs": Case("did not come within", {}, {"source_nvidia_apt": "hang", "timeout_fetch": 5}),
    "lacking": Case("1 of 6 locked files can't be fetched from", {}, {"source_pip_index": "lacking-six"}),
    "key": Case("could not connect", {}, {}),
    "down": Case("could not connect", {}, {}),
    "cable": Case("connection lost", {}, {"timeout_reconnect": 5}, untouched=False),
}


@dataclass
class Outcome:
    """The one run, and the hosts before and after it."""

    lab: Lab
    run: Run
    before: dict[str, str]
    after: dict[str, str]


@pytest.fixture(scope="module")
def outcome(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    from testbed import HostSpec

    folder = tmp_path_factory.mktemp("bad")
    infos = bed.up([HostSpec("good"), *(HostSpec(name, **case.spec) for name, case in CASES.items())])
    lab, served = Lab(bed, infos, folder), bed.services()
    for name, case in CASES.items():
        urls = {"source_nvidia_apt": getattr(served, case.data["source_nvidia_apt"]) + "/nvidia"} \
            if "source_nvidia_apt" in case.data else {}
        if "source_pip_index" in case.data:
            urls = {"source_pip_index": f"{served.base}/{case.data['source_pip_index']}/pypi/simple/"}
        lab.data["hosts"][name].update({**case.data, **urls})
    stranger = folder / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(stranger)], check=True)
    lab.data["hosts"]["key"]["key"] = str(stranger)
    lab.write()
    quiet = [name for name, case in CASES.items() if case.untouched]
    before = {name: lab.fingerprint(name) for name in quiet}
    bed.kill("down")
    lab.on("cable", STOPS)
    ended = threading.Event()
    pull = threading.Thread(target=_pull, args=(bed, ended), daemon=True)
    with bed.holding_apt_lock("locked"):
        pull.start()
        run = lab.deploy("-y")
    ended.set()
    pull.join(HANG_S)
    bed.boot("down")
    bed.cable("cable", up=True)
    yield Outcome(lab, run, before, {name: lab.fingerprint(name) for name in quiet})
    bed.down()


# While the driver's packages are configured, the installation stops until the test lets it go on.
STOPS = """set -e
mkdir /opt/own && ln -s "$(readlink -f /usr/sbin/depmod)" /opt/own/depmod
rm /usr/sbin/depmod && cat >/usr/sbin/depmod <<'.' && chmod +x /usr/sbin/depmod
#!/bin/sh
: >/var/tmp/there
until [ -e /var/tmp/go ]; do sleep 0.1; done
exec /opt/own/depmod "$@"
.
"""


def _pull(bed: Any, ended: threading.Event) -> None:
    """Pull the host's cable while it installs packages, in the middle of a step; there the work goes on."""
    until(lambda: bed.exec_("cable", ["test", "-e", "/var/tmp/there"]).returncode == 0 or ended.is_set())
    bed.cable("cable", up=False)
    bed.exec_("cable", ["touch", "/var/tmp/go"], check=True)


def _card(text: str, host: str) -> str:
    """A host's card, out of what the run printed; its words joined again over the frame's line ends."""
    begin = text.index(f"─ ✗ {host} ─")
    body = text[begin:text.index("╰", begin)]
    return " ".join(line.strip("│ ") for line in body.splitlines())


@pytest.mark.parametrize("name", CASES)
def test_its_card_says_what_and_what_to_do(outcome: Outcome, name: str) -> None:
    found = _card(outcome.run.stderr, name)
    assert CASES[name].says in found, found
    assert "→ " in found, "a card has a next step"
    assert outcome.run.stderr.count(f"─ ✗ {name} ─") == 1, "one card a host"
    assert outcome.run.code == 1


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.untouched])
def test_it_is_left_as_it_was(outcome: Outcome, name: str) -> None:
    assert outcome.after[name] == outcome.before[name]


def test_the_others_finish_and_the_exit_code_tells(outcome: Outcome) -> None:
    assert outcome.run.code == 1
    assert "Traceback" not in outcome.run.stderr
    assert outcome.lab.record("good", "verification")["overall"] in ("pass", "partial")


def test_an_env_that_cannot_be_mended_is_left_as_it_was(outcome: Outcome) -> None:
    """Two packages are gone from it, and the index has only one of them."""
    lab, site = outcome.lab, "/root/miniforge3/envs/qwen-train/lib/python3.*/site-packages"
    lab.on("good", f"rm -r {site}/six.py {site}/six-* {site}/idna {site}/idna-*")
    before = lab.fingerprint("good")
    assert f"{site.rpartition('/')[2]}/attrs/__init__.py" in before, "its files are looked at"
    index = f"source_pip_index={lab.bed.services().base}/lacking-six/pypi/simple/"
    run = lab.deploy("-y", "--limit", "good", "--data", index)
    assert run.code == 1 and "1 of 2 locked files can't be fetched from" in _card(run.stderr, "good"), run.stderr
    assert lab.fingerprint("good") == before
    assert lab.deploy("-y", "--limit", "good").code == 0


def test_the_pulled_cable_is_mended_by_running_again(outcome: Outcome) -> None:
    again = outcome.lab.deploy("-y", "--limit", "cable")
    assert again.code == 0, again.stderr
    assert "No changes." in outcome.lab.deploy("-y", "--limit", "cable").stderr
