"""The build on the host: nvcc chosen or refused before it begins; a small CUDA-free sdist really built, and the ways in
which a build ends badly."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwen_rig.catalog.stack import DATA
from tests import HANG_S, until

HOST = DATA.parent / "host"
sys.path.insert(0, str(HOST))
import flash_build  # noqa: E402
import flash_ready  # noqa: E402

CU128, CU130 = [("12.8", "/usr/local/cuda-12.8")], [("13.0", "/usr/local/cuda-13.0")]


@pytest.mark.parametrize(("found", "cuda", "least", "release"), [
    (CU130, "13.0", "11.8", "13.0"),
    ([*CU130, *CU128, ("12.9", "/opt/cuda")], "12.8", "12.8", "12.8"),  # torch's own release first
    ([("12.4", "/a"), ("12.9", "/b"), *CU130], "12.6", "12.8", "12.9"),  # an old one is passed over
])
def test_the_nvcc_of_torchs_major_that_knows_the_cards(found: Any, cuda: str, least: str, release: str) -> None:
    assert flash_ready.choose_nvcc(found, cuda, least)[0] == release


@pytest.mark.parametrize(("found", "cuda", "least", "said"), [
    (CU130, "12.8", "12.8", "a 13.0 nvcc with cu128: torch refuses another CUDA major; install a 12.x toolkit"),
    (CU128, "13.0", "11.8", "a 12.8 nvcc with cu130"),
    ([("12.4", "/a")], "12.8", "12.8", "nvcc 12.4 can't compile for these cards: they need 12.8 or newer"),
    ([], "12.8", "12.8", "no nvcc here: torch is built for CUDA 12.8, so a 12.x toolkit is needed"),
    (CU128, None, "12.8", "this torch was built without CUDA"),
])
def test_refused_before_it_begins(found: Any, cuda: str | None, least: str, said: str) -> None:
    with pytest.raises(flash_ready.Failed, match=said):
        flash_ready.choose_nvcc(found, cuda, least)


SETUP = '''
import os, time
from setuptools import setup
from setuptools.command.build_py import build_py
class Built(build_py):
    def run(self):
        print("[1/2] nvcc one.cu", flush=True)
        {now}
        print("[2/2] nvcc two.cu", flush=True)
        super().run()
setup(name="tiny-kernels", version="1.0", py_modules=["tiny_kernels"], cmdclass={{"build_py": Built}})
'''


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the builds here need, fetched once."""
    folder = tmp_path_factory.mktemp("tools")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", folder, "setuptools>=70.1"], check=True)
    return folder


@pytest.fixture
def sdist(tmp_path: Path) -> Callable[[str], Path]:
    """A source distribution whose compiler does what is asked in the middle."""
    def make(now: str) -> Path:
        path = tmp_path / "tiny_kernels-1.0.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for name, text in (("setup.py", SETUP.format(now=now)), ("tiny_kernels.py", "")):
                entry = tarfile.TarInfo(f"tiny_kernels-1.0/{name}")
                entry.size = len(text.encode())
                archive.addfile(entry, io.BytesIO(text.encode()))
        return path

    return make


# The program with a clock that is put forward, past every limit, when the first object is done.
LATE = """
import sys, time, types
import flash_build
over = []
def told(text, **more):
    print(text, **more)
    over.extend([1] * text.startswith("@progress 1 "))
flash_build.print = told
flash_build.time = types.SimpleNamespace(monotonic=lambda: time.monotonic() + 1e6 * len(over), sleep=time.sleep)
sys.exit(flash_build.main())
"""


@pytest.fixture
def build(tmp_path: Path, tools: Path, sdist: Any) -> Callable[..., tuple[int, list[str], dict[str, Any]]]:
    """Builds such an sdist; (exit status, lines, result). `late`: its time is over after the first object."""
    def run(now: str, *more: str, late: bool = False) -> tuple[int, list[str], dict[str, Any]]:
        asked = ["--source", str(sdist(now)), "--no-cuda", "--jobs", "3", "--limit-s", str(HANG_S), "--requires",
                 "setuptools", "--out", str(tmp_path / "out"), *more]
        program = ["-c", LATE] if late else [HOST / "flash_build.py"]
        done = subprocess.run([sys.executable, *program, *asked], capture_output=True, text=True,
                              env={**os.environ, "PYTHONPATH": f"{tools}:{HOST}" if late else str(tools)})
        assert not (tmp_path / "out" / "work").exists(), "nothing is left but the wheel and its papers"
        lines = done.stdout.splitlines()
        return done.returncode, lines, json.loads(lines[-1])

    return run


def test_a_good_build(build: Any, tmp_path: Path) -> None:
    code, lines, made = build("print(os.environ['MAX_JOBS'], os.environ['NVCC_THREADS'], "
                              "open('/proc/self/oom_score_adj').read().strip(), flush=True)", "--oom", "900")
    assert code == 0 and made["ok"], made
    assert "@progress 1 2 kernels" in lines and "@progress 2 2 kernels" in lines
    assert (made["version"], made["objects"], made["jobs"], made["archs"]) == ("1.0", 2, 3, [])
    wheel = Path(made["wheel"])
    assert made["sha256"] == hashlib.sha256(wheel.read_bytes()).hexdigest() and made["bytes"] == wheel.stat().st_size
    assert "tiny_kernels.py" in zipfile.ZipFile(wheel).namelist() and made["peak_mib"] > 0
    assert "3 1 900" in (tmp_path / "out" / "build.log").read_text()
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == made


@pytest.mark.parametrize(("now", "more", "why", "last"), [
    ("print('one.cu(3): error: no such kernel'); raise SystemExit(2)", [],
     "the build failed after 1 of 2 objects: exit status 2", "one.cu(3): error: no such kernel"),
    ("time.sleep(3600)", ["--limit-s", "8"], "out of time after 1 of 2 objects", ""),
    ("os.kill(os.getpid(), 9)", [], "out of memory after 1 of 2 objects", ""),
    ("raise OSError(28, 'No space left on device')", [], "disk full after 1 of 2 objects", "No space left on device"),
    ("pass", ["--free-mib", "999999999"], "a build takes 999999999", ""),
    ("pass", ["--sha256", "0" * 64], "not used", ""),
    ("pass", ["--source", "/nowhere/tiny-1.0.tar.gz"], "source unreachable: there is no /nowhere", ""),
])
def test_a_bad_end_is_named(build: Any, now: str, more: list[str], why: str, last: str) -> None:
    code, _, made = build(now, *more, late="--limit-s" in more)
    assert code == 1 and not made["ok"] and why in made["why"], made
    assert any(last in line for line in made["last"]) or not last, made


@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
def test_the_head_of_a_repository_is_built_with_its_commit_on_record(build: Any, tmp_path: Path) -> None:
    head = tmp_path / "head"
    head.mkdir()
    (head / "setup.py").write_text(SETUP.format(now="pass"))
    (head / "tiny_kernels.py").write_text("")
    git = ["git", "-C", str(head), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "head"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    code, _, made = build("pass", "--source", f"git+file://{head}")
    assert code == 0 and made["source_sha256"] == commit, made
    code, _, made = build("pass", "--source", f"git+file://{tmp_path}/nowhere")
    assert code == 1 and made["why"].startswith("source unreachable: file://") and not made["begun"]


def test_a_build_that_is_told_to_end_leaves_no_compiler_behind(sdist: Any, tools: Path, tmp_path: Path) -> None:
    out, mark = tmp_path / "out", tmp_path / "pid"
    command = [sys.executable, HOST / "flash_build.py", "--source", sdist(f"open({str(mark)!r}, 'w').write(str("
               "os.getpid())); time.sleep(3600)"), "--no-cuda", "--jobs", "1", "--limit-s", str(HANG_S), "--out", out]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(tools)})
    assert process.stdout is not None
    assert any("@progress" in line for line in process.stdout), "it never came to its first object"
    until(lambda: mark.exists() and mark.read_text())
    process.terminate()
    assert process.wait(HANG_S) == 143
    assert not Path("/proc", mark.read_text()).exists() and not (out / "work").exists()


def test_a_build_that_ended_while_nobody_was_there_is_taken_and_not_done_again(build: Any, tmp_path: Path) -> None:
    _, _, made = build("pass")
    again, lines, same = build("pass")
    assert again == 0 and same == made and len(lines) == 1
    Path(made["wheel"]).write_bytes(b"spoilt")
    assert "@progress 2 2 kernels" in build("pass")[1], "a damaged one is built anew"


def test_an_object_without_the_code_that_was_asked_for_does_not_pass(tmp_path: Path) -> None:
    from .synthesized import CUBIN, elf, fatbin

    wheel = tmp_path / "flash_attn-2.8.3-cp310-cp310-linux_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as made:
        made.writestr("flash_attn_2_cuda.so", elf(b".nv_fatbin", fatbin((CUBIN, 80))))
    assert flash_build.checked(wheel, ["80"])["archs"] == ["sm_80"]
    with pytest.raises(flash_ready.Failed, match="no code for sm_120: only for sm_80"):  # nvcc older than 12.8
        flash_build.checked(wheel, ["80", "120"])
