"""Each code of each table is read in every form in which programs write it, and has a next step."""

from __future__ import annotations

import pytest

from qwen_rig import doctor
from qwen_rig.doctor import forms

CUDA = [code for code in forms.table("cuda").codes if not code.harmless]
NAMES = {row.name for row in forms.load()}


def _names(*lines: str) -> list[str]:
    return [found.name for found in doctor.findings(lines)]


@pytest.mark.parametrize("name", forms.TABLES)
def test_a_table_is_whole(name: str) -> None:
    table = forms.table(name)
    assert table.source and len({(code.number, code.name) for code in table.codes}) == len(table.codes)
    for code in table.codes:
        assert code.means and code.next and (code.told_by is None or code.told_by in NAMES), code


@pytest.mark.parametrize("code", CUDA, ids=[code.name for code in CUDA])
def test_a_cuda_error_is_read_by_number_name_and_sentence(code: forms.Code) -> None:
    said = [f"Cuda failure {code.number} '{code.says}'", f"GPUassert: {code.name} x.cu 7",
            f"UserWarning: Unexpected error from cudaGetDeviceCount(). Error {code.number}: {code.says} (Triggered)"]
    if code.alias:
        said.append(f"DriverError({code.alias}, \"x\")")
    same = [other for other in CUDA if other.says == code.says]
    if len(same) == 1 and "." not in code.says:
        said.append(f"RuntimeError: CUDA error: {code.says}")
    for line in said:
        told = _names(line)
        known = {f"cuda-{code.number}", "cuda-out-of-memory", "driver-too-old-for-torch", "no-kernel-image"}
        assert len(told) == 1 and told[0] in known, (line, told)


@pytest.mark.parametrize("number", [code.number for code in forms.table("xid").codes if code.number])
def test_an_xid_is_read(number: int) -> None:
    told = _names(f"[  8.1] NVRM: Xid (PCI:0000:01:00): {number}, pid=77956, name=python3, Ch 00000008")
    told += _names(f"Nov 29 10:00:01 lab kernel: NVRM: Xid (0000:01:00): {number}, Ch 0000000b")
    named = {79: "gpu-fell-off-the-bus", 119: "gpu-firmware-timeout", 120: "gpu-firmware-timeout"}
    memory = "gpu-memory-errors" if number in (48, 63, 64, 92, 94, 95, 140, 171, 172) else ""
    assert told == [named.get(number) or memory or f"xid-{number}"] * 2


def test_an_xid_that_no_catalogue_has_is_said_to_be_such() -> None:
    found, = doctor.findings(["NVRM: Xid (PCI:0000:01:00): 977, pid=1, name=x"])
    assert found.name == "xid-977" and "doesn't describe" in found.cause


@pytest.mark.parametrize(("line", "name"), [
    ("  exitcode  : -11 (pid: 5528)", "exit-sigsegv"), ("Container exited with code 137", "exit-sigkill"),
    ("Killed", "exit-sigkill"),
    ("./x.sh: line 3:  812 Segmentation fault      (core dumped) python t.py", "exit-sigsegv"),
    ("subprocess.CalledProcessError: Command '['x']' died with <Signals.SIGBUS: 7>.", "exit-sigbus"),
    ("torchrun exited with status 124", "exit-timeout"),
    ("traceback : Signal 6 (SIGABRT) received by PID 2", "exit-sigabrt"),
    ("process finished with exit code 0", None), ("exitcode: 1", None), ("exit code 130", None),
])
def test_how_a_process_ended_is_read(line: str, name: str | None) -> None:
    assert _names(line) == ([name] if name else [])


@pytest.mark.parametrize("code", forms.table("nvml").codes, ids=[code.name for code in forms.table("nvml").codes])
def test_an_nvml_result_is_read(code: forms.Code) -> None:
    told = doctor.findings([f"pynvml.NVMLError: {code.name}"])
    assert not told if code.harmless else len(told) <= 1


@pytest.mark.parametrize("code", forms.table("aer").codes, ids=[code.name for code in forms.table("aer").codes])
def test_a_pcie_error_class_is_read(code: forms.Code) -> None:
    kind = "Correctable" if "corrected" in code.next or "nothing is lost" in code.next else "Uncorrected (Fatal)"
    told = _names(f"pcieport 0000:00:01.1: PCIe Bus Error: severity={kind}, type=Data Link Layer, (Receiver ID)",
                  f"pcieport 0000:00:01.1:    [ 6] {code.name}")
    assert told == [f"aer-{code.name}"]


@pytest.mark.parametrize("code", forms.table("nccl").codes, ids=[code.name for code in forms.table("nccl").codes])
def test_an_nccl_result_alone_says_that_it_is_no_cause(code: forms.Code) -> None:
    told = doctor.findings([f"[rank0]: {code.name}: words"])
    assert not told if code.harmless else "this line alone doesn't tell why" in told[0].cause
