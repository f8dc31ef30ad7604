"""The main job: dry run, first run, second run, drift, mending; two hosts, one bare, one with an old driver."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qwen_rig.managed import PREFERENCES, REPOSITORY, preferences_text

from .conftest import Lab

pytestmark = pytest.mark.testbed
STEPS = 12


@pytest.fixture(scope="module")
def lab(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    from testbed import HostSpec

    infos = bed.up([HostSpec("lab-01"),
                    HostSpec("lab-02", driver="550.90.07:proprietary", toolkit="12.4", nouveau=False,
                             compilers=False)])
    yield Lab(bed, infos, tmp_path_factory.mktemp("lab"))
    bed.down()


@pytest.fixture(scope="module")
def converged(lab: Lab) -> Lab:
    """The lab after its first run. Everything that the first run must show is asserted here, once."""
    before = {name: lab.fingerprint(name) for name in lab.hosts}
    dry = lab.deploy("--dry")
    assert dry.code == 0, dry.stderr
    assert "Plan: " in dry.stderr and "2 reboots · 2 hosts · ↓" in dry.stderr
    assert "Stack standin is a stand-in" in dry.stderr
    assert "550.90.07 proprietary → 580 open" in dry.stderr and "12.4 → ≥ 12.8" in dry.stderr
    assert {name: lab.fingerprint(name) for name in lab.hosts} == before, "a dry run changes nothing"

    first = lab.deploy("-y")
    assert first.code == 0, first.stderr
    for name in lab.hosts:
        smi = lab.on(name, "nvidia-smi --query-gpu=name,driver_version --format=csv,noheader")
        assert smi.strip() == "NVIDIA GeForce RTX 5090, 580.95.05"
        assert lab.on(name, "readlink /root/miniforge3/envs/qwen-train").startswith(".qwen-train-")
        assert lab.record(name, "flash_attn")["attention"] == "sdpa"
        assert lab.record(name, "training")["gradient_accumulation_steps"] == 2
        assert lab.record(name, "training")["per_device_train_batch_size"] == 8
        assert "num_processes: 1" in lab.on(name, "cat /root/miniforge3/envs/qwen-train/.rig/accelerate.yaml")
        made = lab.record(name, "verification")
        assert made["overall"] in ("pass", "partial")
        assert {c["name"] for c in made["checks"] if c["status"] == "not_run"}, "an emulated GPU proves nothing"
        assert "Unattended-Upgrade::Package-Blacklist" in lab.on(name, "cat /etc/apt/apt.conf.d/51qwen-rig-nvidia")
    began = {line.split()[2] for line in lab.on("lab-02", "cat /var/lib/qwen-rig/jobs/journal").splitlines()}
    assert began >= {"apt-lock", "repository", "driver", "guard", "compilers", "toolkit", "conda", "env", "attention",
                     "verify"}, "what can take more than a minute is a job on the host"
    assert "/usr/local/cuda-12.8" in lab.on("lab-02", "ls -d /usr/local/cuda-12.8")
    return lab


def test_first_run_converges(converged: Lab) -> None:
    """All of it is asserted in the fixture."""


def test_second_run_changes_nothing_in_one_exec(converged: Lab) -> None:
    counted = {name: converged.bed.execs(name) for name in converged.hosts}
    second = converged.deploy("-y")
    assert second.code == 0, second.stderr
    assert "No changes. lab-01, lab-02 match." in second.stderr
    total = {"hosts": 2 * STEPS, "success": 0, "error": 0, "no_change": 2 * STEPS}
    assert second.results == {"Grand total": total}, second.stderr  # no row for a step that changed nothing
    assert {name: converged.bed.execs(name) - n for name, n in counted.items()} == {"lab-01": 1, "lab-02": 1}


def test_asking_first_takes_at_most_two_execs(converged: Lab) -> None:
    counted = {name: converged.bed.execs(name) for name in converged.hosts}
    asked = converged.deploy(stdin="\n")
    assert asked.code == 0, asked.stderr
    assert all(converged.bed.execs(name) - n <= 2 for name, n in counted.items())


def test_a_removed_and_a_wrong_package_are_seen_and_mended_alone(converged: Lab) -> None:
    site = "/root/miniforge3/envs/qwen-train/lib/python3.*/site-packages"
    before = converged.on("lab-01", "readlink /root/miniforge3/envs/qwen-train")
    converged.on("lab-01", f"rm -r {site}/six.py {site}/six-*.dist-info && cd {site} && mv idna-3.10.dist-info "
                           "idna-3.9.dist-info && sed -i 's/^Version: 3.10/Version: 3.9/' idna-3.9.dist-info/METADATA")
    dry = converged.deploy("--dry")
    assert "idna 3.9 → 3.10, six absent → 1.17.0" in dry.stderr, dry.stderr
    mended = converged.deploy("-y")
    assert mended.code == 0, mended.stderr
    changed = {op: row for op, row in mended.results.items() if row["success"] and op != "Grand total"}
    assert set(changed) - {"Sources | Reach what will be fetched"} == {
        "Env | Build or mend the env", "Verification | Verify on the host"}, "what is mended is proved anew"
    assert all(row["success"] == 1 for row in changed.values()), "lab-02 was right and stays as it is"
    assert converged.on("lab-01", f"ls -d {site}/six-1.17.0.dist-info {site}/idna-3.10.dist-info")
    assert converged.on("lab-01", "readlink /root/miniforge3/envs/qwen-train") == before, "mended in place"
    assert "No changes." in converged.deploy("-y").stderr


def test_an_env_that_no_longer_imports_is_never_called_right(converged: Lab) -> None:
    """Mending one package shows that another is torn, which no name or size tells; what was proved before is void."""
    site = "/root/miniforge3/envs/qwen-train/lib/python3.*/site-packages"
    converged.on("lab-01", f"rm -r {site}/six.py {site}/six-*.dist-info")
    converged.tear("lab-01", f"{site}/attrs/__init__.py")
    only = ("-y", "--limit", "lab-01")
    mended = converged.deploy(*only)
    assert mended.code == 1 and "torn" in mended.stderr, mended.stderr
    again = converged.deploy(*only)
    assert again.code == 1 and "verification failed: " in again.stderr, again.stderr
    last = converged.deploy(*only)
    assert last.code == 0 and "No changes." in converged.deploy("-y").stderr, last.stderr


def test_a_drivers_packages_have_one_origin(converged: Lab) -> None:
    """As apt itself reads the preferences: of a repository that brought the driver, and of one that must not."""
    def priority(package: str) -> str:
        said = converged.on("lab-01", f"LC_ALL=C apt-cache policy {package}")
        return re.findall(r" (-?\d+)\n.* http", said)[0]  # of the version, in the line above the one with its source

    here = converged.on("lab-01", f"cat {PREFERENCES}")
    assert (priority("nvidia-open"), priority("cuda-toolkit-12-8")) == ("600", "500")
    url = next(line.split()[1] for line in converged.on("lab-01", f"cat {REPOSITORY}").splitlines() if "URIs" in line)
    assert here == preferences_text(url, driver=True)
    converged.on("lab-01", f"printf %s {shlex.quote(preferences_text(url, driver=False))} >{PREFERENCES}")
    assert (priority("nvidia-open"), priority("cuda-toolkit-12-8")) == ("50", "500")
    converged.on("lab-01", f"printf %s {shlex.quote(here)} >{PREFERENCES}")


def test_a_guard_that_broke_off_is_set_again(converged: Lab) -> None:
    """Its files alone keep nouveau out of nothing: the initramfs must have been made anew."""
    only = ("-y", "--limit", "lab-01")
    tool, made = "/usr/local/sbin/update-initramfs", "/root/initramfs-made"
    converged.on("lab-01", f"rm /etc/modprobe.d/qwen-rig-nouveau.conf; printf '#!/bin/sh\n"
                           f"echo no space left; exit 1\n' >{tool}; chmod +x {tool}")
    broken = converged.deploy(*only)
    assert broken.code == 1 and "no space left" in broken.stderr, broken.stderr
    converged.on("lab-01", f"printf '#!/bin/sh\necho $* >>{made}\n' >{tool}")
    again = converged.deploy(*only)
    assert again.code == 0 and again.results["Driver guard | Keep nouveau out and upgrades deliberate"]["success"] == 1
    assert "No changes." in converged.deploy("-y").stderr
    assert converged.on("lab-01", f"cat {made}; rm {tool} {made}") == "-u\n", "once, and then no more"


def test_a_package_that_stands_for_torch_is_built_beside(converged: Lab) -> None:
    envs = "/root/miniforge3/envs"
    converged.on("lab-02", f"rm -r {envs}/qwen-train/lib/python3.*/site-packages/packaging*")
    again = converged.deploy("-y", "--limit", "lab-02")
    assert again.code == 0, again.stderr
    assert converged.on("lab-02", f"readlink {envs}/qwen-train").strip().endswith("-2")
    assert len(converged.on("lab-02", f"ls -d {envs}/.qwen-train-*-*[0-9]").split()) == 2, "the old env is kept"


def test_flash_attn_is_kept_where_it_proves_itself_and_sdpa_is_a_normal_end(converged: Lab) -> None:
    """The wheel is a stand-in that only the testbed serves; the attempt, its proof and its removal are real."""
    only = ("-y", "--limit", "lab-01", "--data", "verification_gpu=true")
    tried = converged.deploy(*only)
    assert tried.code == 0, tried.stderr
    made = converged.record("lab-01", "flash_attn")
    assert (made["rung"], made["attention"]) == ("wheel", "flash_attention_2"), made
    assert converged.record("lab-01", "training")["attn_implementation"] == "flash_attention_2"
    broken = converged.bed.services().broken + "/flash-attn"
    fallen = converged.deploy(*only, "--data", f"source_flash_attn={broken}")
    assert fallen.code == 0, "SDPA is a reported outcome, not a failed run"
    made = converged.record("lab-01", "flash_attn")
    assert made["rung"] == "sdpa" and "404" in made["tried"][0]["why_not"], made
    assert converged.record("lab-01", "training")["attn_implementation"] == "sdpa"


def test_accelerate_yaml_deleted_alone_is_written_again(converged: Lab) -> None:
    path = "/root/miniforge3/envs/qwen-train/.rig/accelerate.yaml"
    before = converged.on("lab-02", f"cat {path}; rm {path}")
    assert "accelerate.yaml beside it isn't as it should be" in " ".join(converged.deploy("--dry").stderr.split())
    again = converged.deploy("-y", "--limit", "lab-02")
    assert again.code == 0 and again.results["Grand total"]["success"] == 1, again.stderr
    assert converged.on("lab-02", f"cat {path}") == before
    assert "rig fits lab-02" in again.stderr and "LoRA up to Qwen2.5-7B, QLoRA up to Qwen2.5-32B" in again.stderr


def test_the_batch_is_held_to_what_the_cards_certificate_measured(converged: Lab) -> None:
    """The certificate is made up: an emulated card has no real one."""
    uuid = converged.on("lab-02", "nvidia-smi --query-gpu=uuid --format=csv,noheader").strip()
    kept = converged.folder / "state" / "qwen-rig" / "certificates" / uuid / "20261125T000000Z.json"
    kept.parent.mkdir(parents=True)
    number = {"label": "largest batch", "value": 5, "unit": "samples", "better": "higher"}
    kept.write_text(json.dumps({
        "kind": "qwen-rig certificate", "format": 1, "uuid": uuid, "name": "made up", "host": "lab-02",
        "began": 1795564800, "seconds": 1, "overall": "pass", "emulated": False, "environment": {}, "checks": [
            {"name": "largest_batch", "title": "", "status": "fail", "measured": "", "expected": "", "source": "",
             "why": "", "numbers": [number], "facts": {}, "series": {}}]}))
    try:
        held = converged.deploy("-y", "--limit", "lab-02")
        assert held.code == 0 and held.results["Grand total"]["success"] == 1, held.stderr
        made = converged.record("lab-02", "training")
        assert (made["per_device_train_batch_size"], made["gradient_accumulation_steps"]) == (4, 4)
        assert made["batch_source"] == {"measured": True, "largest": 5, "uuid": uuid, "date": "2026-11-25"}
        assert "No changes." in converged.deploy("-y", "--limit", "lab-02").stderr
    finally:
        kept.unlink()
    assert converged.deploy("-y", "--limit", "lab-02").results["Grand total"]["success"] == 1


def test_a_model_is_prefetched_once_and_what_is_gone_of_it_comes_back(converged: Lab) -> None:
    """From a stand-in hub with make-believe models; the program that fetches and checks is the real one."""
    wanted = ("--data", "prefetch_model=qwen-rig-testbed/standin-model", "--data",
              f"source_huggingface={converged.bed.services().hub}")
    only, cache = ("-y", "--limit", "lab-02"), "/root/.cache/huggingface/hub/models--qwen-rig-testbed--standin-model"
    first = converged.deploy(*only, *wanted)
    assert first.code == 0 and first.results["Model | Prefetch the model"]["success"] == 1, first.stderr
    made = converged.record("lab-02", "prefetch")
    assert (made["files"], made["fetched"]) == (4, made["bytes"]) and made["snapshot"].startswith(cache), made
    assert converged.on("lab-02", f"cat {made['snapshot']}/config.json").startswith('{"model_type"')
    assert "No changes." in converged.deploy(*only, *wanted).stderr
    converged.on("lab-02", f"rm $(readlink -f {made['snapshot']}/tokenizer.json)")
    again = converged.deploy(*only, *wanted)
    assert again.code == 0 and again.results["Grand total"]["success"] == 2, again.stderr  # measured and fetched
    assert converged.record("lab-02", "prefetch")["fetched"] == 18, "only what was gone"
    refused = converged.deploy(*only, *wanted[2:], "--data", "prefetch_model=qwen-rig-testbed/too-big")
    assert refused.code == 1 and "too-big takes 1048576.0 GiB more" in " ".join(refused.stderr.split()), refused.stderr
    assert "is no longer" not in refused.stderr and converged.record("lab-02", "prefetch")["fetched"] == 18
    assert converged.deploy(*only).code == 0  # as the other tests want it: its endpoint is the default again


def test_facts_alone_print_json(converged: Lab, tmp_path: Path) -> None:
    counted = {name: converged.bed.execs(name) for name in converged.hosts}
    gpus = json.loads(converged.pyinfra("fact", "facts.gpu.Gpus", "--json").stdout)
    listed = next(iter(next(iter(gpus.values())).values())) if isinstance(gpus, dict) else gpus
    assert "lab-01" in json.dumps(gpus) and listed
    # the fact's own: a probe is sent ahead where a deploy will ask for one
    assert {name: converged.bed.execs(name) - count for name, count in counted.items()} == dict.fromkeys(counted, 1)


def test_early_refusals_dial_nobody(converged: Lab) -> None:
    counted = {name: converged.bed.execs(name) for name in converged.hosts}
    for data, said in (("stack=guide-literal", "take stack=guide"), ("stack=gude", "there is no stack 'gude'"),
                       ("nvidia_driver_branch=new", "whole number")):
        refused = converged.deploy("--dry", "--data", data)
        assert refused.code != 0 and said in refused.stderr and "Traceback" not in refused.stderr
        assert "Connecting" not in refused.stderr
    assert {name: converged.bed.execs(name) for name in converged.hosts} == counted


def test_an_env_that_somebody_else_made_is_adopted_once(converged: Lab) -> None:
    """The same packages in a plain folder, as conda or venv makes it: nothing of ours lies beside it."""
    envs = "/root/miniforge3/envs"
    converged.on("lab-01", f"cd {envs} && mv $(readlink qwen-train) plain && rm -rf qwen-train .qwen-train-* && "
                           "mv plain qwen-train && rm -r qwen-train/.rig")
    first = converged.deploy("-y", "--limit", "lab-01")
    assert first.code == 0, first.stderr
    assert converged.on("lab-01", f"ls -d {envs}/qwen-train/.rig {envs}/.qwen-train-* 2>/dev/null || true").split() == [
        f"{envs}/qwen-train/.rig"], "adopted as it is, not built anew"
    assert "No changes." in converged.deploy("-y", "--limit", "lab-01").stderr
