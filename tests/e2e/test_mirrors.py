"""Mirrors on real hosts: the fast and honest one is chosen, and one that lies is refused and the next one used; and a
host like AutoDL's, whose proxy script is for GitHub alone."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
import yaml

from .conftest import Lab, Run

pytestmark = pytest.mark.testbed

# What each host may choose from. Its default index is the client's own, which no testbed host can reach.
MIRRORS = {
    "choice": {"trickle": "slow", "liar": "lying", "honest": ""},
    "deceived": {"half-liar": "lying-six", "trickle": "slow"},  # the measured file is sound, another one isn't
}


TURBO = """echo used >>/root/turbo-was-read
export http_proxy=http://{0}:{1} https_proxy=http://{0}:{1}
"""


class Turbo(BaseHTTPRequestHandler):
    """AutoDL's proxy as a stand-in: what is asked of github.com comes from the bridge; nothing else is let through."""

    asked: ClassVar[list[str]] = []
    base = ""

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if not self.path.startswith("http://github.com/"):
            self.send_error(403)
            return
        with urllib.request.urlopen(self.base + self.path.removeprefix("http://github.com")) as answer:
            body = answer.read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@dataclass
class Outcome:
    """The hosts after one run, and what the services were asked."""

    lab: Lab
    run: Run
    requests: list[Any]

    def asked(self, host: str, mirror: str) -> set[str]:
        """The wheels that a host asked of a mirror, by project."""
        address, begin = self.lab.hosts[host].address, f"/{mirror}/pypi/files/" if mirror else "/pypi/files/"
        return {row["path"].removeprefix(begin).split("-")[0] for row in self.requests
                if row["client"] == address and row["path"].startswith(begin)}


@pytest.fixture(scope="module")
def outcome(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    from testbed import HostSpec

    folder = tmp_path_factory.mktemp("mirrors")
    infos = bed.up([*(HostSpec(name, kind="container", driver="580.95.05:open") for name in MIRRORS),
                    HostSpec("autodl", kind="container", driver="580.95.05:open", data="/root/autodl-tmp")])
    lab = Lab(bed, infos, folder, source_pip_index=None, verification="never", compilers="never")
    base = bed.services().base
    for host, mirrors in MIRRORS.items():
        block = {name: {"pip_index": "/".join(filter(None, (base, fault, "pypi/simple"))), "source": "the testbed"}
                 for name, fault in mirrors.items()}
        if host == "deceived":  # its Miniforge comes from mirrors too: the faster one lies
            lab.data["hosts"][host]["source_miniforge"] = None
            for name, fault in (("half-liar", "lying"), ("trickle", "slow")):
                block[name]["miniforge"] = f"{base}/{fault}/miniforge"
        (folder / f"{host}.yml").write_text(yaml.safe_dump({"mirrors": block}))
        lab.data["hosts"][host]["mirrors"] = str(folder / f"{host}.yml")
    bridge = str(urlsplit(base).hostname)
    Turbo.base = base
    proxy = ThreadingHTTPServer((bridge, 0), Turbo)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    bed.exec_("autodl", ["tee", "/etc/network_turbo"], stdin=TURBO.format(bridge, proxy.server_port), check=True)
    # github.com has no address on this host: what comes from there came through the proxy.
    lab.data["hosts"]["autodl"].update(
        source_pip_index=bed.services().pip_index, data_dir="/root/autodl-tmp",  # group_data/autodl.py's
        source_miniforge="http://github.com/miniforge", source_flash_attn="http://github.com/flash-attn")
    lab.write()
    run = lab.deploy("-y")
    yield Outcome(lab, run, bed.requests())
    proxy.shutdown()
    proxy.server_close()
    bed.down()


def test_the_honest_fast_mirror_is_chosen(outcome: Outcome) -> None:
    assert outcome.run.code == 0, outcome.run.stderr
    made = outcome.lab.record("choice", "env")
    assert (made["source"], made["refused"]) == ("honest", "")
    assert outcome.asked("choice", "slow") == outcome.asked("choice", "lying") == {"click"}, "measured, nothing more"
    assert {"uv", "six", "idna"} <= outcome.asked("choice", "")
    said = " ".join(outcome.run.stderr.split())
    assert "mirror liar (" in said and "is not used: its file isn't the locked one" in said


def test_other_bytes_under_a_locked_name_are_refused_and_the_next_mirror_used(outcome: Outcome) -> None:
    made = outcome.lab.record("deceived", "env")
    assert (made["source"], made["refused"]) == ("trickle", "half-liar:other bytes than the lock names;")
    assert "six" in outcome.asked("deceived", "lying-six"), "it was offered, and refused"
    assert "source half-liar refused" in " ".join(outcome.run.stderr.split())
    python = "/root/miniforge3/envs/qwen-train/bin/python"
    assert outcome.lab.on("deceived", f"{python} -c 'import six; print(six.__version__)'").strip() == "1.17.0"


def test_an_installer_of_other_bytes_is_refused_and_the_next_mirrors_run(outcome: Outcome) -> None:
    address = outcome.lab.hosts["deceived"].address
    asked = {row["path"].split("/")[1]: row["count"] for row in outcome.requests
             if row["client"] == address and "/miniforge/" in row["path"]}
    assert asked == {"lying": 2, "slow": 2}, "each measured, then each fetched: the first was refused"
    assert outcome.lab.on("deceived", "/root/miniforge3/bin/conda --version")


def test_network_turbo_is_for_github_alone(outcome: Outcome) -> None:
    lab = outcome.lab
    assert {path.split("/")[3] for path in Turbo.asked} == {"miniforge"}, "no wheel: no GPU could prove it"
    assert lab.on("autodl", "cat /root/turbo-was-read").split() == ["used"] * 3, "measured, conda, flash-attn"
    own = {row["path"].split("/")[1] for row in outcome.requests if row["client"] == lab.hosts["autodl"].address}
    assert own == {"pypi", "conda-forge"}, "what is near is asked directly"


def test_autodl_s_data_disk_holds_it_all_and_what_a_stop_does_is_said(outcome: Outcome) -> None:
    lab = outcome.lab
    made = json.loads(lab.on("autodl", "cat /root/autodl-tmp/qwen-rig/envs/qwen-train/.rig/env.json"))
    assert made["stack"] == "standin" and made["source"] == "default"
    assert not lab.on("autodl", "ls -d /root/miniforge3 /root/.cache/uv /root/.cache/qwen-rig 2>/dev/null || true")
    said = " ".join(outcome.run.stderr.split())
    assert "autodl: AutoDL keeps / and /root/autodl-tmp while the instance is off; a saved image" in said


def test_a_second_run_changes_nothing_and_measures_nothing(outcome: Outcome) -> None:
    counted = {name: outcome.lab.bed.execs(name) for name in outcome.lab.hosts}
    again = outcome.lab.deploy("-y")
    assert again.code == 0 and "No changes." in again.stderr, again.stderr
    assert {name: outcome.lab.bed.execs(name) - n for name, n in counted.items()} == dict.fromkeys(outcome.lab.hosts, 1)
    addresses = {info.address for info in outcome.lab.hosts.values()}
    before, after = ([row for row in rows if row["client"] in addresses]
                     for rows in (outcome.requests, outcome.lab.bed.requests()))
    assert before == after, "not a single request more"
