"""Every row fires on its captures and on no other's; what further facts know tells like texts apart."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from qwen_rig import doctor
from qwen_rig.doctor import forms
from qwen_rig.doctor.needles import SHORTEST, folded, needles
from qwen_rig.doctor.readers import READERS
from qwen_rig.errors import RigError
from qwen_rig.facts.state import State
from tests.plan.states import RTX4090, RTX5090, bare, with_driver

ROWS = forms.load()
REPO = Path(__file__).parents[2]
CAPTURES = [(row.name, number, capture) for row in ROWS for number, capture in enumerate(row.captures)]
KNOWN_SIGNS = set(doctor.signs(State.of(bare(RTX5090))))
VOICES = {voice.name for voice in forms.voices()} | {"link"}
CODED = {"xid", "cuda", "nvml", "nccl", "exit", "aer"}  # a name of these is a table's, or *


def _told(capture: Any) -> list[str]:
    text, known = capture.get("text", ""), capture.get("facts", {})
    return [found.row for found in doctor.findings(text.splitlines(), known)]


@pytest.mark.parametrize(("name", "number", "capture"), CAPTURES, ids=[f"{n}-{i}" for n, i, _ in CAPTURES])
def test_a_capture_is_told_by_its_row_and_by_no_other(name: str, number: int, capture: Any) -> None:
    assert _told(capture) == [name]


def test_no_name_is_left_unfilled_in_what_is_told_of_a_capture() -> None:
    """A name without a value stands as ? where its segment isn't marked as one to leave out."""
    asking = {row.name for row in ROWS if "?" in f"{row.cause}{row.next}{row.places}{row.given}".replace("[?", "")}
    for _, _, capture in CAPTURES:
        for told in doctor.findings(capture.get("text", "").splitlines(), capture.get("facts", {})):
            assert told.row in asking or "?" not in f"{told.cause} {told.next}", told


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_row_is_whole(row: forms.Row) -> None:
    assert row.captures and row.source and row.next and "http" not in row.next
    told = {other.name for other in ROWS} - {row.name}
    assert all(name in told or name.split("-")[0] in CODED for name in row.over), row.over
    assert row.of <= VOICES and set(row.refuted) <= KNOWN_SIGNS and row.reads in {None, *READERS}
    assert row.given is None or row.given.of in VOICES
    for when in row.when:
        assert set(when.facts) <= KNOWN_SIGNS and (when.facts or row.of)
        if when.says:
            found = needles(when.says.pattern, when.says.flags)
            assert found and all(len(each) >= SHORTEST and each == folded(each) for each in found), when.says.pattern
    for capture in row.captures:
        assert set(capture) <= {"text", "facts", "made"} and set(capture.get("facts", {})) <= KNOWN_SIGNS


@pytest.mark.parametrize("source", sorted({(row.name, each.strip()) for row in ROWS for each in row.source.split(";")}))
def test_a_source_can_be_opened_by_a_reader_of_the_repository(source: tuple[str, str]) -> None:
    """An issue or a file of a public repository, an address, a manual's page, or a file of this repository."""
    public = (r"[\w.-]+/[\w.-]+#\d+", r"[\w.-]+/[\w.-]+: \S+.*", r"https://\S+.*", r"[\w.-]+\(\d\).*")
    own = REPO / source[1].split(" (")[0]
    assert any(re.fullmatch(form, source[1]) for form in public) or own.exists() or "own words" in source[1], source


def test_advice_is_printed_as_it_stands_in_the_data() -> None:
    found = doctor.diagnose(["RuntimeError: CUDA error: no kernel image is available for execution on the device"])
    assert found is not None and "torch.cuda.get_arch_list(), torch.cuda.get_device_capability())" in found.next


def test_names_are_unique() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("text", ["", "all is well", "SecureBoot disabled", "EFI variables are not supported here",
                                  "Reading package lists... Done", "nvidia 9965568 2 nvidia_uvm,nvidia_modeset"])
def test_what_is_no_failure_has_no_name(text: str) -> None:
    assert doctor.diagnose([text]) is None


def _no_devices(flavour: str, gpu: str = RTX5090, log: tuple[str, ...] = (), **machine: Any) -> dict[str, Any]:
    state = with_driver(bare(gpu, **machine), "580.95.05", flavour, error="no_devices")
    state["driver"]["excerpt"] = "No devices were found"
    state["kernel_log"]["lines"] = list(log)
    return state


@pytest.mark.parametrize(("state", "name"), [
    (_no_devices("proprietary"), "no-devices-proprietary-modules"),
    (_no_devices("open"), "no-devices-open-modules"),
    (_no_devices("open", RTX5090, ("NVRM: BAR1 is 0M @ 0x0 (PCI:0000:01:00.0)",)), "no-devices-address-space"),
    (_no_devices("open", RTX4090), "no-devices"),
    (_no_devices("open", kind="container"), "container-without-device"),
    (_no_devices("open", RTX4090, ("NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.",)),
     "gpu-fell-off-the-bus"),
    (_no_devices("open", RTX4090, ("NVRM: BAR1 is 0M @ 0x0 (PCI:0000:01:00.0)",)), "no-devices-address-space"),
    (_no_devices("proprietary", RTX5090, ("NVRM: GPU 0000:02:00.0: RmInitAdapter failed! (0x22:0x56:884)",)),
     "no-devices-proprietary-modules"),
    (with_driver(bare(RTX5090, secure_boot="enabled"), "580.95.05", "open", None, "driver_not_loaded"),
     "secure-boot-rejected"),
    (with_driver(bare(RTX5090, headers=False), "580.95.05", "open", None, "driver_not_loaded"), "headers-missing"),
    (with_driver(bare(RTX5090, headers=True), "580.95.05", "open", None, "driver_not_loaded"), "driver-not-loaded"),
    (with_driver(bare(RTX5090, headers=True, tools={"dkms": False}), "580.95.05", "open", None, "driver_not_loaded"),
     "dkms-missing"),
    (with_driver(bare(RTX5090), "580.95.05", "open", "570.124.06", "driver_library_mismatch"), "library-mismatch"),
    (with_driver(bare(RTX5090), "580.95.05", "open"), None),
    (bare(RTX5090), "nvidia-smi-missing"),
])
def test_no_devices_and_its_kin_are_told_apart_by_further_facts(state: dict[str, Any], name: str | None) -> None:
    host = State.of(state)
    told = doctor.findings((), doctor.signs(host), doctor.words(host))
    assert (told[0].name if told else None) == name, told
    if name and state["driver"]["excerpt"]:  # and just so where a failing command said it
        found = doctor.diagnose([state["driver"]["excerpt"]], State.of(state))
        assert found is not None and found.name == name


def test_an_unattended_upgrade_is_named_as_the_cause() -> None:
    state = with_driver(bare(RTX5090), "580.95.05", "open", "580.65.06", "driver_library_mismatch")
    state["driver_upgrade"] = {"when": "2026-11-20 06:50:54",
                               "packages": {"libnvidia-compute-580": ["580.65.06-1", "580.95.05-1"]}}
    found = doctor.diagnose(["Failed to initialize NVML: Driver/library version mismatch"], State.of(state))
    assert found is not None and found.name == "library-mismatch-after-upgrade"
    assert "libnvidia-compute-580 580.65.06-1 → 580.95.05-1" in found.cause and "580.65.06 stays loaded" in found.cause


def test_what_was_said_goes_before_what_else_is_wrong() -> None:
    found = doctor.diagnose(["OSError: [Errno 28] No space left on device"], State.of(_no_devices("open")))
    assert found is not None and found.name == "disk-full"


@pytest.mark.parametrize(("line", "said"), [
    ("E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 2180 (unattended-upgr)",
     "unattended-upgr (pid 2180)"),
    ("qwen-rig: uv can't be fetched: take another mirror", "take another mirror"),
    ("curl: (6) Could not resolve host: github.com", "can't reach github.com"),
    ("Error! Your kernel headers for kernel 6.6.15-amd64 cannot be found", "linux-headers-6.6.15-amd64"),
])
def test_the_words_are_filled_in(line: str, said: str) -> None:
    found = doctor.diagnose([line])
    assert found is not None and said in f"{found.cause} → {found.next}"


@pytest.mark.parametrize(("row", "said"), [
    ({"when": [{"says": "("}]}, "no regular expression"),
    ({"when": [{}]}, "neither says nor facts"),
    ({"whem": []}, "unknown key"),
])
def test_a_bad_row_is_one_line_with_file_and_key(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    whole = {"name": "x", "cause": "c", "next": "n", "source": "s", "captures": [{"text": "x"}], "when": []}
    for name in forms.FILES:
        (tmp_path / f"{name}.yml").write_text(yaml.safe_dump({"signatures": [whole | row]}))
    with pytest.raises(RigError, match=said) as caught:
        forms.load(tmp_path)
    assert "driver.yml" in str(caught.value) and "signatures[0]" in str(caught.value)


SAID = re.compile(r"qwen-rig: ([^\"'\n]*(?:'[a-z][^\"'\n]*)*)")
OWN_WORDS = [(path.relative_to(REPO).as_posix(), said)
             for folder in ("deploy", "qwen_rig/host", "qwen_rig/shell", "qwen_rig/network")
             for path in sorted((REPO / folder).rglob("*.sh")) for said in SAID.findall(path.read_text())
             if len(said.split()) > 3 and said != "the input begins" and not said.startswith("conda: $")]  # conda's own


def test_what_our_programs_say_on_hosts_ends_in_something_to_do() -> None:
    """Each by a row of the doctor's, whose advice is no repetition of all that was said."""
    assert len(OWN_WORDS) > 12
    for file, said in OWN_WORDS:
        found = doctor.diagnose([f"qwen-rig: {said}"])
        assert found and found.next and found.next != said, (file, said)
