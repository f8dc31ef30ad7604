"""Logs in other languages, read by message catalogues; and a log of fifty megabytes, read in seconds.

The language is invented, so that no catalogue of this machine knows it: what is told comes from the test's own one.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from pathlib import Path

import pytest

from qwen_rig import doctor
from qwen_rig.doctor import languages
from qwen_rig.doctor.log import split

NO_SPACE, NO_ROOM = os.strerror(errno.ENOSPC), "žadné plazmo na ťom zariaďení"
SAID = {  # a program's sentence → the invented language's
    "libapt-pkg6.0": {"Unable to locate package %s": "Grůnak %s ŋemožno najť",
                      "Could not get lock %s. It is held by process %d (%s)":
                          "Prozeß %2$d (%3$s) þrímá zámek %1$s"},
    "dpkg": {"trying to overwrite '%.250s', which is also in package %.250s %.250s":
                 "þokus o přepsání „%1$s“, což je též v balíku %2$s %3$s"},
    "bash": {"%s: command not found": "%s: þríkaz ŋenalezen"},
    "libc": {NO_SPACE: NO_ROOM},
}
CASES = [  # (the line, the cause's name, words of cause and step)
    ("E: Grůnak nvidia-open-999 ŋemožno najť", "apt-package-unknown", "nvidia-open-999"),
    ("E: Prozeß 2180 (unattended-upgr) þrímá zámek /var/lib/dpkg/lock-frontend", "apt-locked", "unattended-upgr"),
    ("dpkg: chyba: þokus o přepsání „/usr/bin/nvidia-smi“, což je též v balíku nvidia-utils-535 535.183",
     "apt-file-of-two-packages", "nvidia-utils-535"),
    ("bash: conda: þríkaz ŋenalezen", "conda-not-initialised", "full path"),
    (f"tar: core: {NO_ROOM}", "disk-full", "df -h"),
]


def catalogue(said: dict[str, str]) -> bytes:
    """A catalogue in gettext's binary form (gettext's manual, "The Format of GNU MO Files")."""
    pairs = sorted({"": "Content-Type: text/plain; charset=UTF-8\n", **said}.items())
    rows, texts, at = [], b"", 28 + 16 * len(pairs)
    for column in (0, 1):
        for pair in pairs:
            text = pair[column].encode()
            rows.append(struct.pack("<II", len(text), at + len(texts)))
            texts += text + b"\0"
    return struct.pack("<7I", 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, 0) + b"".join(rows) + texts


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which the catalogues of that language alone are installed."""
    folder = tmp_path / "xx" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    for domain, said in SAID.items():
        (folder / f"{domain}.mo").write_bytes(catalogue(said))
    (folder / "apt.mo").write_bytes(b"no catalogue")  # a damaged one costs nothing
    monkeypatch.setattr(languages.english, "__defaults__", ((tmp_path,),))


@pytest.mark.parametrize(("line", "name", "words"), CASES, ids=[name for _, name, _ in CASES])
@pytest.mark.usefixtures("installed")
def test_a_line_of_another_language_is_told_by_its_catalogue(line: str, name: str, words: str) -> None:
    [found] = doctor.findings(["something before", line])
    assert found.name == name and words in f"{found.cause} → {found.next}"
    assert found.evidence == line, "the line is shown as it was given"


@pytest.mark.parametrize("line", [line for line, *_ in CASES if line.startswith("E: Grůnak")])
def test_without_a_catalogue_the_line_is_said_to_be_foreign(line: str, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(languages.english, "__defaults__", ((tmp_path / "none",),))
    assert not doctor.findings([line]) and languages.foreign([line])
    assert not languages.foreign(["E: Unable to locate package nvidia-open-999"])


def test_fifty_megabytes_are_read_in_seconds() -> None:
    steps = "\n".join(f"{{'loss': {1.5 - i * 1e-6:.6f}, 'grad_norm': {0.3 + i % 97 / 1000:.4f}, 'epoch': {i / 4e5:f}}}"
                      f" step {i}: WARNING: the data loader was slow, retry {i % 7} of 7" for i in range(480_000))
    text = f"{steps}\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n"
    assert len(text) > 50_000_000
    began = time.process_time()
    told = doctor.findings(split(text))
    took = time.process_time() - began
    assert [found.name for found in told] == ["cuda-out-of-memory"] and took < 30, took  # 5 s on two cores of 2026
