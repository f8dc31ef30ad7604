"""Ten hosts without a way out, served from one bundle through their SSH connections, and a bare one whose driver and
compilers come that way too. The cables are listened on.

Emulated, as everywhere on the testbed: GPUs, NVIDIA's packages, and conda with its installer. Real: sshd and its
forwarding, every packet, apt and Debian's packages, uv, pip, the wheels and the env's Python.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import HANG_S, until

from .conftest import REPO, Lab, Run

pytestmark = pytest.mark.testbed
HOSTS = [f"closed-{number:02}" for number in range(1, 11)]
BARE = ["bare-1", "bare-2"]  # the second gets a driver and no compilers: gcc takes its time
ALL = [*HOSTS, *BARE]
WHEELS = {"attrs", "click", "idna", "packaging", "six", "tabulate", "uv"}


class Eyes:
    """What a local user of a host sees while a run is at work there, of processes and files; root, of the tunnel's."""

    USER = """while [ ! -e /run/closed-eyes ]; do
  cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'
  find /tmp /dev/shm /var/cache/qwen-rig -type f -size -64k -readable -exec cat {} + 2>/dev/null
  sleep 0.1
done | tr -cd '\\n\\40-\\176' | grep -E 'https://127|password' | sort -u"""
    ROOT = """while [ ! -e /run/closed-eyes ]; do
  cat /var/lib/qwen-rig/tunnels/*/netrc 2>/dev/null
  sleep 0.1
done | sort -u"""

    def __init__(self, bed: Any, name: str) -> None:
        self.bed, self.name = bed, name
        self.saw = self.token = ""
        self.watching = [threading.Thread(target=self.look, args=each, daemon=True) for each in (
            ("saw", "nosudo", self.USER), ("token", "root", self.ROOT))]
        for each in self.watching:
            each.start()

    def look(self, kept: str, user: str, script: str) -> None:
        setattr(self, kept, self.bed.exec_(self.name, ["sh", "-c", script], user=user, timeout=10 * HANG_S).stdout)

    def close(self) -> None:
        self.bed.exec_(self.name, ["touch", "/run/closed-eyes"], check=True)
        for each in self.watching:
            each.join()
        self.bed.exec_(self.name, ["rm", "/run/closed-eyes"], check=True)


@dataclass
class Outcome:
    """The bundle, one run from it, and a second one; what was on the cables and asked of the services meanwhile."""

    lab: Lab
    folder: Path
    made: subprocess.CompletedProcess[str]
    first: Run
    second: Run
    execs: dict[str, int]
    eyes: Eyes
    packets: dict[str, dict[str, int]]
    requests: list[Any]


def bundle(lab: Lab, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """`qwen-rig bundle`, from the bridge's services."""
    from testbed import interpreter

    knobs = {**lab.bed.services().knobs(), "stack": "standin", "python": interpreter.choose().minor}
    data = [word for name, value in knobs.items() for word in ("--data", f"{name}={value}")]
    return subprocess.run([sys.executable, "-m", "qwen_rig", "bundle", str(folder), *data, *more], cwd=REPO, text=True,
                          capture_output=True, timeout=HANG_S, stdin=subprocess.DEVNULL, env={**os.environ})


def archives(bed: Any) -> str:
    """The distribution's archives as these hosts' apt names them, for the knob."""
    from testbed import mirror

    return " ".join(f"{bed.services().base}/{source.name}" for source in mirror.distribution().sources)


def apt_from(bed: Any, name: str, server: str) -> None:
    """Let a host's apt name another server for the distribution's archives."""
    bed.exec_(name, ["sed", "-Ei", f"s#http://[^/]+/#http://{server}/#", "/etc/apt/sources.list"], check=True)


@pytest.fixture(scope="module")
def outcome(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    from testbed import HostSpec
    from testbed.wire import cut_off, tapped

    folder = tmp_path_factory.mktemp("closed")
    infos = bed.up([*(HostSpec(name, kind="container", driver="580.95.05:open") for name in HOSTS),
                    *(HostSpec(name, compilers=False) for name in BARE)])
    lab = Lab(bed, infos, folder)
    for name in ALL:
        cut_off(bed, name)
    for name in BARE:  # their archives are on the bridge: by its address, as this machine doesn't know its name
        apt_from(bed, name, bed.services().base.removeprefix("http://"))
    assert bed.exec_(HOSTS[0], ["curl", "-sS", "--max-time", "5", bed.services().pip_index]).returncode != 0
    made = bundle(lab, folder / "bundle")
    assert made.returncode == 0, made.stderr
    # No source is named: what the hosts get can have come from nowhere else.
    apt = {name: lab.data["defaults"][name] for name in ("source_nvidia_apt", "source_nvidia_apt_key")}
    for name in [key for key in lab.data["defaults"] if key.startswith("source_") and "sha256" not in key]:
        del lab.data["defaults"][name]
    lab.data["defaults"].update(bundle=str(folder / "bundle"), verification="never", compilers="never")
    for name in BARE:
        lab.data["hosts"][name].update(apt, compilers="auto" if name == BARE[0] else "never", source_apt=archives(bed))
    lab.write()
    with tapped(bed, ALL) as taps:
        eyes = Eyes(bed, HOSTS[0])
        first = lab.deploy("-y")
        eyes.close()
        counted = {name: bed.execs(name) for name in ALL}
        second = lab.deploy("-y")
    execs = {name: bed.execs(name) - counted[name] for name in ALL}
    yield Outcome(lab, folder / "bundle", made, first, second, execs, eyes,
                  {name: dict(tap.packets) for name, tap in taps.items()}, bed.requests())
    bed.down()


def test_they_converge_from_the_bundle_and_stay(outcome: Outcome) -> None:
    assert outcome.first.code == 0, outcome.first.stderr
    for name in ALL:
        made = outcome.lab.record(name, "env")
        assert (made["stack"], made["source"], made["installer"].split()[0]) == ("standin", "bundle", "uv")
    assert outcome.second.code == 0 and "No changes." in outcome.second.stderr, outcome.second.stderr
    assert outcome.execs == dict.fromkeys(ALL, 1)


def test_bare_ones_get_driver_and_compilers_that_way_too(outcome: Outcome) -> None:
    lab = outcome.lab
    assert f"{BARE[0]}: apt's packages come through this machine" in " ".join(outcome.first.stderr.split())
    for name in BARE:
        assert lab.on(name, "nvidia-smi --query-gpu=driver_version --format=csv,noheader").strip() == "580.95.05"
    assert lab.on(BARE[0], "dpkg-query -W -f '${Status}' g++").startswith("install ok")
    # Nothing of the detour is left in the host's own apt: its sources and lists name the archives themselves.
    own = lab.on(BARE[0], "cat /etc/apt/sources.list /etc/apt/sources.list.d/*; ls /var/lib/apt/lists; env APT_CONFIG= "
                       "apt-get indextargets --no-release-info --format '$(REPO_URI)' 'Created-By: Packages'")
    assert "127.0.0.1" not in own and "/nvidia/" in own
    debs = {row["path"]: row["count"] for row in outcome.requests if row["path"].endswith(".deb")}
    assert any("/nvidia/" in path for path in debs) and any("/g++" in path for path in debs)
    assert set(debs.values()) == {1}, "each package left its source once for both"


def test_an_archive_that_this_machine_cannot_reach_either_is_a_card_and_nothing_is_touched(outcome: Outcome) -> None:
    lab, name = outcome.lab, BARE[1]
    apt_from(lab.bed, name, "192.0.2.1:9")
    before = lab.fingerprint(name)
    unnamed = lab.deploy("-y", "--limit", name, "--data", "compilers=auto")
    named = archives(lab.bed).replace(lab.bed.services().base, "http://192.0.2.1:9")
    assert unnamed.code == 1 and ("nothing was changed: the host's apt needs what no knob names: "
                                  f"{' '.join(sorted(named.split()))}") in " ".join(
                                      unnamed.stderr.replace("│", " ").split()), unnamed.stderr
    refused = lab.deploy("-y", "--limit", name, "--data", "compilers=auto", "--data", f"source_apt={named}",
                         http_proxy="http://127.0.0.1:9")
    said = " ".join(refused.stderr.replace("│", " ").split())
    assert refused.code == 1 and "Traceback" not in said
    assert "nothing was changed: the host's apt needs http://192.0.2.1:9/debian" in said, refused.stderr
    assert "which this machine can't reach either" in said and "compilers=never does without" in said
    assert lab.fingerprint(name) == before


def test_nothing_but_ssh_was_on_their_cables(outcome: Outcome) -> None:
    assert set(outcome.packets) == set(ALL)
    for name, packets in outcome.packets.items():
        assert set(packets) == {"tcp 22"}, f"{name}: {packets}"
        assert packets["tcp 22"] > 100


def test_each_wheel_left_its_source_once_for_all_ten(outcome: Outcome) -> None:
    addresses = {info.address for info in outcome.lab.hosts.values()}
    assert not [row for row in outcome.requests if row["client"] in addresses]
    left = {row["path"].rpartition("/")[2].split("-")[0]: row["count"] for row in outcome.requests
            if "/pypi/files/" in row["path"]}
    assert left == dict.fromkeys(WHEELS, 1)


def test_the_token_is_on_no_command_line_in_no_log_and_in_no_file_that_others_read(outcome: Outcome) -> None:
    eyes, name = outcome.eyes, outcome.eyes.name
    token, = {line.split()[-1] for line in eyes.token.splitlines()}
    logs = [path for path in outcome.folder.parent.rglob("*") if path.suffix in (".log", ".json")]
    said = outcome.first.stderr + outcome.first.stdout + "".join(path.read_text(errors="replace") for path in logs)
    assert len(token) >= 32 and token not in said
    assert "https://127.0.0.1:" in eyes.saw, "it saw the steps' programs at work"
    assert token not in eyes.saw
    search = ["grep", "-raslF", "--exclude-dir=proc", "--exclude-dir=sys", token, "/"]
    assert outcome.lab.bed.exec_(name, search).stdout == "", "nothing is left of it"
    listening = outcome.lab.on(name, "ss -Htln '( sport >= :20000 and sport < :32100 )'")
    assert listening == "", "the forward ended with the run"


CLIENTS = """trap no_tunnel EXIT
cd /root
proxies
env=/root/miniforge3/envs/qwen-train
try() {
  name=$1; shift
  case $asked in *$name*) if ("$@") >"$dir/said" 2>&1; then echo "$name used"; else echo "$name refused"; fi ;; esac
}
fetched() { "$env/bin/python" -c "import sys; sys.path.insert(0, '$env/.rig'); import flash_ready
flash_ready.opened('$address/simple/six/', 20).read()"; }
dir=$(mktemp -d)
try curl download "$address/simple/six/" "$dir/page"
try pip "$env/bin/python" -m pip download -q --retries 0 --no-deps -d "$dir" \
  --index-url "$address/simple/" six==1.17.0
try uv /root/.cache/qwen-rig/uv-*/bin/uv pip install -q --no-cache --python "$env/bin/python" --target "$dir/uv" \
  --index-url "$address/simple/" six==1.17.0
try conda /root/miniforge3/bin/conda create -y -q -p "$dir/env" --override-channels -c "$address/conda" pip
try python fetched
try apt through_apt
rm -rf "$dir"
"""
APT = "through_apt() { through && update; }\n"
USED = {"curl", "pip", "uv", "conda", "python", "apt"}


def test_who_takes_the_port_of_a_lost_connection_is_told_and_believed_nothing(outcome: Outcome,
                                                                              tmp_path: Path) -> None:
    """Each client of the tunnel, without a hash to check: it uses what the run serves, and nothing of the impostor's.
    Then the forward comes back on the same port: a job that outlived its connection goes on fetching."""
    import paramiko

    from qwen_rig.program import Program, load
    from qwen_rig.run.tunnel import Tunnels

    info, bed = outcome.lab.hosts[HOSTS[0]], outcome.lab.bed

    def connect() -> paramiko.SSHClient:
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect(info.address, info.port, info.user, key_filename=info.key, look_for_keys=False)
        return client

    host: Any = SimpleNamespace(name=info.name, connector=SimpleNamespace(client=connect()))
    tunnels = Tunnels()
    way = tunnels.way(host, str(outcome.folder))
    tunnels.desk(host, str(outcome.folder)).archive.allow(archives(bed).split(), named=True)
    apt_from(bed, info.name, bed.services().base.removeprefix("http://"))
    bed.exec_(info.name, ["sed", "-i", "/-security/!d", "/etc/apt/sources.list"], check=True)  # small lists
    program = Program(load("shell/network.sh", "shell/apt.sh").text + APT + CLIENTS)

    def outcomes(asked: str = " ".join(USED)) -> dict[str, str]:
        call = program(proxy="direct", secret_tunnel=way.secret, address=way.address, asked=asked, lock_s="60",
                       archives=f"{way.address}/apt")
        done = bed.exec_(info.name, ["sh", "-c", call.text], stdin=call.stdin(), check=True)
        return dict(line.split() for line in done.stdout.splitlines())

    eyes = Eyes(bed, info.name)
    assert outcomes() == dict.fromkeys(USED, "used"), "as it should be, all are served"
    eyes.close()
    assert way.secret.partition("\n")[0] in eyes.token and "/apt/" in eyes.saw
    assert way.secret.partition("\n")[0] not in eyes.saw
    other = bed.exec_(info.name, ["curl", "-ksSo/dev/null", "-w%{http_code}", f"{way.address}/simple/"], user="nosudo")
    assert other.stdout == "401", "another user of the host isn't"
    bed.exec_(info.name, ["pkill", "-f", "^sshd: root"])  # the session's end as a host sees it; the listener stays
    until(lambda: not host.connector.client.get_transport().is_active())
    with impostor(bed, info.name, way.address.rpartition(":")[2], tmp_path / "heard") as heard:
        assert outcomes() == dict.fromkeys(USED, "refused")
        said = heard.read_text()
        assert said.count("connected") >= len(USED) and "HEARD" not in said and "GET" not in said
    host.connector.client = connect()
    tunnels.again(host)
    assert tunnels.way(host, str(outcome.folder)) == way
    assert outcomes("curl") == {"curl": "used"}
    tunnels.close()
    assert outcomes("curl") == {"curl": "refused"}, "the run has ended"
    host.connector.client.close()


@contextmanager
def impostor(bed: Any, name: str, port: str, record: Path) -> Iterator[Path]:
    """Meanwhile a local user of the host listens on a port."""
    from testbed.host import UIDS, init_pid

    pid = init_pid(bed._host_folder(name))
    process = subprocess.Popen(["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-m", "tests.e2e.impostor",
                                str(UIDS["nosudo"]), port, str(record)], cwd=REPO, stdin=subprocess.DEVNULL)
    try:
        until(lambda: process.poll() is not None or (record.exists() and "listening" in record.read_text()))
        assert process.poll() is None
        yield record
    finally:
        process.kill()
        process.wait()


def test_a_bundle_made_again_fetches_nothing_and_a_spoilt_file_comes_anew(outcome: Outcome) -> None:
    spoilt = next((outcome.folder / "wheels").glob("six-*.whl"))
    good = spoilt.read_bytes()
    spoilt.write_bytes(b"x" * len(good))
    again = bundle(outcome.lab, outcome.folder)
    assert again.returncode == 0 and spoilt.read_bytes() == good
    counts = {row["path"].rpartition("/")[2].split("-")[0]: row["count"] for row in outcome.lab.bed.requests()
              if "/pypi/files/" in row["path"]}
    assert counts == {**dict.fromkeys(WHEELS, 1), "six": 2}


def test_a_bundle_that_lacks_something_is_refused_before_a_host_is_touched(outcome: Outcome, tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.mkdir()
    raw = json.loads((outcome.folder / "manifest.json").read_text())
    for path in raw["files"]:
        target = short / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(outcome.folder / path)
    raw["files"] = {path: row for path, row in raw["files"].items() if "/idna-" not in path}
    (short / "manifest.json").write_text(json.dumps(raw))
    limit = ("--limit", HOSTS[0], "--data", f"bundle={short}", "--data", "env_name=another")
    before = outcome.lab.fingerprint(HOSTS[0])
    refused = outcome.lab.deploy("-y", *limit)
    assert refused.code == 1 and "lacks idna 3.10" in " ".join(refused.stderr.split()), refused.stderr
    assert outcome.lab.fingerprint(HOSTS[0]) == before
    nowhere = outcome.lab.deploy("--dry", "--data", f"bundle={tmp_path}")
    assert nowhere.code == 1 and "the bundle has no manifest.json" in nowhere.stderr
    assert "Connecting" not in nowhere.stderr
