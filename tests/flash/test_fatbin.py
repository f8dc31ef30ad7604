"""Which architectures a shared object has code for, read from its bytes. The objects here are synthesized; a real one
(CUDA 12's libnvjpeg, 16 architectures) was read by hand with the same program."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from qwen_rig.catalog.stack import DATA

from .synthesized import CUBIN, PTX, elf, fatbin

HOST = DATA.parent / "host"
sys.path.insert(0, str(HOST))
import fatbin as reader  # noqa: E402


def read(data: bytes) -> list[str]:
    return list(reader.archs(io.BytesIO(data)))


@pytest.mark.parametrize("section", [b".nv_fatbin", b"__nv_relfatbin"])
def test_every_entry_of_every_fat_binary_counts(section: bytes) -> None:
    row = fatbin((CUBIN, 120), (CUBIN, 90)) + bytes(8) + fatbin((CUBIN, 100), (PTX, 120))
    assert read(elf(section, row)) == ["compute_120", "sm_90", "sm_100", "sm_120"]


def test_no_cuda_code_is_an_empty_list() -> None:
    assert read(elf(b".text", fatbin((CUBIN, 90)))) == []
    assert read(Path(sys.executable).resolve().read_bytes()) == []


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"MZ" * 64, elf(b".nv_fatbin", fatbin((CUBIN, 90)))[:-70]])
def test_what_is_no_whole_object_is_refused(data: bytes) -> None:
    with pytest.raises(reader.NotRead):
        read(data)


def test_a_wheel_is_read_object_by_object(tmp_path: Path) -> None:
    wheel = tmp_path / "flash_attn-1.0-cp310-cp310-linux_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as made:
        made.writestr("a_cuda.cpython-310-x86_64-linux-gnu.so", elf(b".nv_fatbin", fatbin((CUBIN, 90))))
        made.writestr("lib/libb.so.1", elf(b".nv_fatbin", fatbin((CUBIN, 80))))
        made.writestr("flash_attn/__init__.py", "")
    done = subprocess.run([sys.executable, HOST / "fatbin.py", wheel], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, '["sm_80", "sm_90"]\n')
