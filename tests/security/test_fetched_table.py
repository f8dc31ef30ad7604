"""The table of all that is fetched, held to the data: each source has a row, "not pinned" is said where it is true."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from qwen_rig.catalog.conda_lock import load_conda_lock
from qwen_rig.catalog.datafile import DATA
from qwen_rig.catalog.flash_build import flash_file
from qwen_rig.catalog.lock import read_lock, select
from qwen_rig.catalog.stack import COMMON_BUILD_LOCK, known_stacks, load_stack
from qwen_rig.knobs import AUTO, CHOICES, NAMES

TEXT = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
ROWS = {cells[0].strip(): cells[1:] for line in TEXT.splitlines()
        if line.startswith("| ") and len(cells := line.strip("|").split(" | ")) == 4}
OPEN = "**not pinned**"


def test_each_source_and_each_lock_has_a_row() -> None:
    sources = [key for key in yaml.safe_load((DATA / "sources.yml").read_text()) if key.startswith("source_")]
    assert sources and all(any(f"`{key}" in row[0] for row in ROWS.values()) for key in [*sources, "mirrors"])
    kinds = {next((path.name[len(name) + 1:] for name in known_stacks() if path.name in (f"{name}.lock.txt",
                  f"{name}.sizes.yml", f"{name}.build.lock.txt")), path.name)
             for path in (DATA / "locks").iterdir()} - {"sizes.yml"}
    checks = " ".join(row[2] for row in ROWS.values())
    assert kinds == {"lock.txt", "build.lock.txt", "conda.yml", "flash-attn-4.lock.txt", "uv.lock.txt"}
    assert all(f"locks/{kind}`" in checks for kind in kinds - {"lock.txt"}) and "`locks/STACK.lock.txt`" in checks


def test_knobs_that_the_table_names_are_knobs() -> None:
    named = {word.strip("`,.;()=") for word in TEXT.replace("=false", "").split()
             if word.startswith("`") and word.strip("`,.;()").startswith(("source_", "accept_", "flash_attn_"))}
    assert named and {name.rstrip(":") for name in named} <= NAMES


def test_what_is_not_pinned_is_said_to_be_so() -> None:
    python = ROWS["Python, pip and what they need"][2]
    assert (OPEN in python) == bool(load_conda_lock(None).not_pinned)
    unlocked = [name for name in known_stacks() if (index := load_stack(name).torch_index) and not index.lock]
    row = ROWS["torch from an index of its own"][2]
    assert (OPEN in row) == bool(unlocked) and all(name in row for name in unlocked)


@pytest.mark.parametrize("python", [each for each in CHOICES["python"] if each != AUTO])
def test_every_python_is_pinned_or_said_not_to_be(python: str) -> None:
    lock = load_conda_lock(None)
    assert bool(lock.files(python)) != (python in lock.not_pinned)


@pytest.mark.parametrize("python", [each for each in CHOICES["python"] if each != AUTO])
def test_all_that_flash_attn_is_built_with_is_locked(python: str) -> None:
    held = select(read_lock(DATA / "locks" / COMMON_BUILD_LOCK, {}), python)
    assert set(flash_file().build.requires) <= set(held)
    lines = load_stack("guide").build_lines(flash_file().build.requires, python)
    assert all("==" in line and "--hash=sha256:" in line for line in lines)
