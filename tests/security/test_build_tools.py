"""What a build is done with comes from a lock, or the build isn't begun: an index that serves newer tools runs none."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from qwen_rig.catalog.lock import read_lock, select
from qwen_rig.catalog.stack import COMMON_BUILD_LOCK, DATA
from scripts import lock

HOST = Path(__file__).parents[2] / "qwen_rig" / "host"
sys.path.insert(0, str(HOST))
import flash_ready  # noqa: E402


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A package index in a folder: rig-tool 1.0, and a 2.0 of somebody else's."""
    page = tmp_path / "index" / "rig-tool"
    page.mkdir(parents=True)
    for version in ("1.0", "2.0"):
        name, info = f"rig_tool-{version}-py3-none-any.whl", f"rig_tool-{version}.dist-info"
        with zipfile.ZipFile(page / name, "w") as wheel:
            wheel.writestr("rig_tool.py", f"VERSION = '{version}'\n")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: rig-tool\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\n"
                                            "Tag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    (page / "index.html").write_text("".join(f'<a href="{file.name}">{file.name}</a>' for file in page.glob("*.whl")))
    return tmp_path / "index"


def locked(index: Path, version: str) -> str:
    digest = hashlib.sha256((index / "rig-tool" / f"rig_tool-{version}-py3-none-any.whl").read_bytes()).hexdigest()
    return f"rig-tool==1.0 --hash=sha256:{digest}"


def test_the_locked_tool_is_taken_and_no_newer_one(index: Path, tmp_path: Path) -> None:
    flash_ready.require([locked(index, "1.0"), "pip==0 --hash=sha256:00"], None, index.as_uri(), tmp_path / "site")
    assert (tmp_path / "site" / "rig_tool.py").read_text() == "VERSION = '1.0'\n"


@pytest.mark.parametrize(("line", "said"), [("other", "which can't be fetched as locked"),
                                            ("rig-tool", "rig-tool, which none of our locks holds"),
                                            ("rig-tool==1.0", "which none of our locks holds")])
def test_other_bytes_and_what_no_lock_holds_are_refused(index: Path, tmp_path: Path, line: str, said: str) -> None:
    wanted = locked(index, "2.0") if line == "other" else line
    with pytest.raises(flash_ready.Failed, match=said):
        flash_ready.require([wanted], None, index.as_uri(), tmp_path / "site")
    assert not (tmp_path / "site" / "rig_tool.py").exists()


def test_make_lock_sees_what_a_source_package_declares_for_its_build(tmp_path: Path) -> None:
    held = select(read_lock(DATA / "locks" / COMMON_BUILD_LOCK, {}), "3.11")
    for table, wanted, met in (("", ["setuptools"], True),
                               ('[build-system]\nrequires = ["hatchling", "wheel"]\n', ["hatchling", "wheel"], False),
                               ('[build-system]\nrequires = ["setuptools<70"]\n', ["setuptools<70"], False)):
        with tarfile.open(tmp_path / "x-1.0.tar.gz", "w:gz") as archive:
            for name, text in (("x-1.0/setup.py", ""), *([("x-1.0/pyproject.toml", table)] if table else [])):
                entry = tarfile.TarInfo(name)
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
        digest = hashlib.sha256((tmp_path / "x-1.0.tar.gz").read_bytes()).hexdigest()
        found = lock.declared({"url": (tmp_path / "x-1.0.tar.gz").as_uri(), "hash": f"sha256:{digest}"})
        assert found == wanted and all(lock.satisfied(line, held) for line in found) == met
