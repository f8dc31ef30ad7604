"""flash-attn's rungs on real hosts, each host with a way of its own to fail: one run for all, and a second that changes
nothing.

STAND-INS: the wheel and the sdists (scripts/standin_wheel.py, standin_sdist.py) compute nothing and need no CUDA; their
proof is a self-test on the CPU. Emulated: the GPUs. Real: fetching, hashes, pip, the builds, the limits on time, memory
(a cgroup's) and disk, the wheel's way over SSH.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import importlib.util
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from qwen_rig.catalog.stack import DATA
from tests import HANG_S, until

from .conftest import REPO, Lab, Run

pytestmark = pytest.mark.testbed
MEMORY_MIB, DISK_MIB = 400, 160
# The time for the build that hangs is never waited for: the clock of its env's Python is put forward by as much when
# the test says so, which is when its progress has been shown.
LIMIT_MIN, OVER = 120, "/var/tmp/over"
CLOCK = f"""import os, time
real = time.monotonic
time.monotonic = lambda: real() + {60 * LIMIT_MIN} * os.path.exists("{OVER}")
"""
SHOWN = r"hangs +flash-attn: 1/3 kernels · \d+ (s|min) · ~"


def script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, REPO / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WHEEL, SDIST = script("standin_wheel"), script("standin_sdist")
VERSIONS = {kind: f"1.{number}" for number, kind in enumerate(SDIST.KINDS, start=1)}


ABI = """extern int _ZN3c105ErrorC2ENS_14SourceLocationESs(void);
int f(void) { return _ZN3c105ErrorC2ENS_14SourceLocationESs(); }"""


def library(lab: Lab, name: str) -> bytes:
    """A shared object that wants a symbol of another torch's, as one for the other C++ ABI does; really compiled, on a
    host that has the deploy's compilers."""
    return base64.b64decode(lab.on(name, f"cd $(mktemp -d) && echo '{ABI}' >abi.c && "
                                         "gcc -shared -fPIC -o abi.so abi.c && base64 abi.so && rm -r $PWD"))


class Stacks:
    """Stand-in stacks in files of one's own: the same env, another flash-attn each."""

    def __init__(self, folder: Path, wheels: Path, sdists: Path) -> None:
        self.folder, self.wheels, self.sdists = folder, wheels, sdists
        self.table = yaml.safe_load((DATA / "stacks" / "standin.yml").read_text())

    def write(self, name: str, wheel: dict[str, str | bytes] | None = None, build: str = "",
              sha256: str = "pinned", version: str = "") -> dict[str, Any]:
        """The host data that choose it. `wheel`: what is wrong in it; `build`: a kind of sdist, "" for none."""
        table = copy.deepcopy(self.table)
        flash = table["flash_attn"]
        if wheel is not None:
            made = WHEEL.build(self.wheels / name, wheel)
            flash["wheels"]["py3"]["sha256"] = hashlib.sha256(made.read_bytes()).hexdigest()
        if sha256 != "pinned":
            flash["wheels"]["py3"]["sha256"] = None if sha256 == "none" else sha256
        if build:
            version = version or VERSIONS[build]
            made = SDIST.build(self.sdists, version, build)
            flash["build"] = {
                "package": SDIST.NAME, "version": version, "sdist": made.name, "cuda": False, "archs": [],
                "sha256": hashlib.sha256(made.read_bytes()).hexdigest(), "check": f"-m {SDIST.MODULE}",
                "requires": ["setuptools", "wheel"], "free_mib": 10, "source": "a stand-in"}
        (self.folder / f"{name}.yml").write_text(yaml.safe_dump(table))
        return {"stack": str(self.folder / f"{name}.yml")}


@dataclass
class Outcome:
    lab: Lab
    first: Run
    second: Run
    execs: dict[str, int]
    killed: int
    cache: Path

    def record(self, name: str) -> dict[str, Any]:
        return self.lab.record(name, "flash_attn")


@pytest.fixture(scope="module")
def outcome(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    from testbed import HostSpec, paths
    from testbed.wheels import folder as wheelhouse

    folder = tmp_path_factory.mktemp("flash")
    own = {"kind": "container", "driver": "580.95.05:open"}
    knobs: dict[str, Any] = {"trust_domain": "lab", "verification": "never", "cuda_toolkit": "never",
                             "verification_gpu": True, "flash_attn_jobs": 2}
    ready = Lab(bed, bed.up([HostSpec("ready", **own)]), folder, **knobs, flash_attn="off")
    run = ready.deploy("-y")
    assert run.code == 0, run.stderr
    compiled = library(ready, "ready")
    image = bed.commit("ready", f"flash-{os.getpid()}")
    bed.down()

    served = f"e2e-{os.getpid()}"
    wheels = paths.cache() / "flash-attn" / served
    stacks = Stacks(folder, wheels, wheelhouse())
    main = f"{SDIST.MODULE}/__main__.py"
    init = f"{SDIST.MODULE}/__init__.py"
    dlopen = (f"{WHEEL.FILES[init]}\nimport ctypes\nimport os\nfrom pathlib import Path\n\n"
              "ctypes.CDLL(str(Path(__file__).with_name('abi.so')), os.RTLD_NOW)\n")
    abi: dict[str, str | bytes] = {init: dlopen, f"{SDIST.MODULE}/abi.so": compiled}
    kernel: dict[str, str | bytes] = {main: "raise SystemExit('CUDA error: no kernel image is available')\n"}
    slow = "import json\nprint(json.dumps({'speed': [{'head_dim': 64, 'ms': 2.0, 'sdpa_ms': 1.0}]}))\n"
    hosts = {
        "slow": stacks.write("slow", {main: slow}, "good", version="1.0.post2"),
        "wheel": stacks.write("wheel", {}), "abi": stacks.write("abi", abi),
        "kernel": stacks.write("kernel", kernel, "good"), "lying": stacks.write("lying", {}, sha256="0" * 64),
        "unknown": stacks.write("unknown", {}, sha256="none"),
        "consent": {**stacks.write("consent", {}, sha256="none"), "flash_attn_unverified": True},
        "github": stacks.write("github", {}), "refused": stacks.write("refused", {}),
        "copy": stacks.write("copy", build="good"),
        **{kind: stacks.write(kind, build=kind) for kind in ("wrong", "fails", "hangs", "hungry", "fills")},
        "nowhere": stacks.write("nowhere", build="good", version="1.9"),
        "off": {**stacks.write("off", {}), "flash_attn": "off"},
    }
    specs = [HostSpec(name, image=image, root_mib=DISK_MIB if name == "fills" else None, **own) for name in hosts]
    lab = Lab(bed, bed.up(specs), folder, **knobs)
    services = bed.services()
    for name, data in hosts.items():
        builds = yaml.safe_load(Path(data["stack"]).read_text())["flash_attn"].get("build")
        lab.data["hosts"][name] |= {"source_flash_attn": f"{services.flash_attn}/{served}/{name}", **data}
        if builds and name not in ("kernel", "slow"):
            lab.data["hosts"][name].setdefault("flash_attn", "build")
    lab.data["hosts"]["hangs"]["timeout_flash_build"] = 60 * LIMIT_MIN
    lab.on("hangs", f"cd /root/miniforge3/envs/qwen-train/lib/python3.*/site-packages && echo import of_the_test "
                    f">of_the_test.pth && cat >of_the_test.py <<'.'\n{CLOCK}.\n")
    lab.data["hosts"]["github"]["source_flash_attn"] = f"{services.broken}/flash-attn"
    lab.data["hosts"]["refused"]["source_flash_attn"] = "http://127.0.0.1:9/flash-attn"  # nothing listens there
    lab.data["hosts"]["nowhere"]["source_pip_index"] = f"{services.broken}/pypi/simple/"
    lab.data["hosts"]["nowhere"]["python"] = lab.data["defaults"]["python"]
    lab.write()
    memory = bed.limit_memory("hungry", MEMORY_MIB)
    environment = {"XDG_CACHE_HOME": str(folder / "cache")}
    first = _first_run(lab, folder / "first", environment)
    counted = {name: bed.execs(name) for name in hosts}
    second = lab.deploy("-y", **environment)
    yield Outcome(lab, first, second, {name: bed.execs(name) - counted[name] for name in hosts}, memory.killed,
                  folder / "cache" / "qwen-rig" / "flash-attn" / "domain-lab")
    bed.down()
    shutil.rmtree(image, ignore_errors=True)
    shutil.rmtree(wheels, ignore_errors=True)


def _first_run(lab: Lab, said: Path, environment: dict[str, str]) -> Run:
    """The run; once the build that hangs has been seen to be at work, its time is over."""
    process = lab.begin(said, "-y", "deploy/5090.py", **environment)
    until(lambda: re.search(SHOWN, said.read_text()) or process.poll() is not None, said.read_text)
    lab.on("hangs", f"touch {OVER}")
    return Run(process.wait(HANG_S), "", said.read_text())


def test_sdpa_is_a_normal_end_and_the_second_run_changes_nothing(outcome: Outcome) -> None:
    assert outcome.first.code == 0, outcome.first.stderr
    assert outcome.second.code == 0 and "No changes." in outcome.second.stderr, outcome.second.stderr
    assert outcome.execs == dict.fromkeys(outcome.lab.hosts, 1)


@pytest.mark.parametrize(("host", "rung", "version"), [
    ("wheel", "wheel", "1.0"), ("consent", "wheel", "1.0"), ("kernel", "build", "1.1"), ("copy", "fleet", "1.1")])
def test_a_rung_that_proves_itself_is_kept(outcome: Outcome, host: str, rung: str, version: str) -> None:
    made = outcome.record(host)
    if host in ("kernel", "copy"):  # one of the two built it for both: whichever came first
        assert {outcome.record(name)["rung"] for name in ("kernel", "copy")} == {"build", "fleet"}
        assert len(list(outcome.cache.glob("*/record.json"))) == 1, "what nobody proved is not kept for others"
        rung = made["rung"]
    assert (made["attention"], made["rung"], made["version"]) == ("flash_attention_2", rung, version), made
    assert "works as one" in made["proof"]["said"][-1] and len(made["sha256"]) == 64
    training = outcome.lab.record(host, "training")
    assert training["attn_implementation"] == "flash_attention_2"
    assert training["attention_from"] == {
        "rung": rung, "version": version, "sha256": made["sha256"], "archs": made["archs"],
        "tried": [{key: row[key] for key in ("rung", "why_not", "last")} for row in made["tried"] if row["why_not"]],
        "rejected": made["rejected"], "proof": made["proof"], "minutes": made["minutes"]}
    assert [row["rung"] for row in training["attention_from"]["tried"]] == (["wheel"] if host == "kernel" else [])


@pytest.mark.parametrize(("host", "why", "last"), [
    ("abi", "wheel: installed, but can't be imported: OSError", "undefined symbol: _ZN3c105ErrorC2E"),
    ("lying", "wheel: not installed:", "DO NOT MATCH"),
    ("github", "wheel: not installed:", "404"),
    ("refused", "wheel: not installed:", "Caused by NewConnectionError"),
    ("unknown", "no checksum is known for", ""),
    ("wrong", "build: built and imported, but its kernels aren't proven", "no kernel image is available"),
    ("fails", "build: the build failed after 1 of 3 objects: exit status 2", "two.cu(7): error"),
    ("hangs", "build: out of time after 1 of 3 objects", ""),
    ("hungry", "build: out of memory after 1 of 3 objects", ""),
    ("fills", "build: disk full after 1 of 3 objects", "No space left on device"),
    ("nowhere", "build: source unreachable: http", ""),
    ("off", "flash_attn=off", ""),
    ("slow", "build: not built: 1.0.post2 is what the wheel is, which is right here, and no faster", "2.00 ms"),
])
def test_a_bad_end_is_sdpa_with_a_true_record(outcome: Outcome, host: str, why: str, last: str) -> None:
    made = outcome.record(host)
    assert (made["attention"], made["rung"], made["version"]) == ("sdpa", "sdpa", None), made
    assert why in made["why"], made["why"]
    assert last in json.dumps([row["last"] for row in made["tried"]]), made["tried"]
    assert made["tried"] or host in ("unknown", "off")
    training = outcome.lab.record(host, "training")
    assert training["attn_implementation"] == "sdpa" and training["attention_from"]["rung"] == "sdpa"
    assert [row["last"] for row in training["attention_from"]["tried"]] == [row["last"] for row in made["tried"]]


def test_nothing_of_an_attempt_is_left_in_the_env(outcome: Outcome) -> None:
    for host in outcome.lab.hosts:
        site = outcome.lab.on(host, "ls /root/miniforge3/envs/qwen-train/lib/python3.*/site-packages")
        there = SDIST.MODULE in site.split()
        assert there == (outcome.record(host)["rung"] != "sdpa"), f"{host}: {site}"
        left = outcome.lab.on(host, "ls /root/miniforge3/envs/qwen-train/.rig/build 2>/dev/null || true").split()
        assert not {"work"} & set(left) and not [name for name in left if name.endswith(".whl")], left


def test_a_wheel_that_fails_its_kernels_gives_way_to_a_build(outcome: Outcome) -> None:
    tried = outcome.record("kernel")["tried"]
    assert [row["rung"] for row in tried][-1] in ("build", "fleet")
    failed = next(row for row in tried if row["rung"] == "wheel")
    assert failed["why_not"].startswith("imported, but its kernels aren't proven: CUDA error: no kernel image"), failed


def test_the_kernel_ended_the_compiler_and_sshd_lives(outcome: Outcome) -> None:
    assert outcome.killed == 1, "one process: the one with the highest score"
    assert outcome.lab.bed.ssh("hungry", "echo well").stdout.strip() == "well"


def test_progress_is_shown_and_the_report_says_what_came_of_it(outcome: Outcome) -> None:
    said = outcome.first.stderr
    assert re.search(SHOWN, said), said
    told = " ".join(said.split())
    over = f"out of time after 1 of 3 objects: ended after {LIMIT_MIN} min"
    assert f"! hangs: flash-attn: SDPA, since build: {over}" in told
    assert "! wheel: flash-attn: 1.0, a prebuilt wheel, proven here" in told
    assert "! kernel: flash-attn: 1.1, built " in told and "proven here" in told
    assert "wheel rig_standin_attn-1.0, else build with 2 jobs, else SDPA" in told
    assert "slow flash-attn: wheel isn't kept: right, but no faster than SDPA on this card: head_dim 64: 2.00" in told
