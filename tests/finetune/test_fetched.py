"""What comes from a host: bytes whose hash the host said before, in parts that survive a break, under names that can do
no harm. The host here is a fake at the edge: it answers what `train_files.py part` would."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from qwen_rig.errors import RigError
from qwen_rig.finetune.fetched import MARK, Target, listed

ADAPTER = bytes(range(256)) * 4000


def row(content: bytes = ADAPTER) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


GOOD = {"adapter_model.safetensors": row(), "adapter_config.json": row(b"{}")}
NAMES = ["../x.json", "/etc/x.json", "a/b.json", "x.pkl", "optimizer.pt", ".bashrc", ".x.json", "x.json\n", "x.bin",
         "a..json", "-rf.json", "x.json ", "\u202ex.json", MARK, "x" * 200 + ".json", "model.safetensors.index.json/..",
         "x.safetensors.py", "", "CON:.json"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_could_do_harm_is_refused(name: str) -> None:
    with pytest.raises(RigError) as refused:
        listed({**GOOD, name: row()}, "host")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("found", [
    {}, {"adapter_config.json": row()}, {**GOOD, "a.json": None}, {**GOOD, "a.json": {"bytes": -1, "sha256": "0" * 64}},
    {**GOOD, "a.json": {"bytes": "5", "sha256": "0" * 64}}, {**GOOD, "a.json": {"bytes": True, "sha256": "0" * 64}},
    {**GOOD, "a.json": {"bytes": 10 ** 9, "sha256": "0" * 64}}, {**GOOD, "a.json": {"bytes": 5, "sha256": "x"}},
    {**GOOD, "a.json": row(), "A.json": row()}, {f"{n}.json": row() for n in range(501)},
    {f"model-{n:05d}-of-00009.safetensors": {"bytes": 600 * 10 ** 9, "sha256": "0" * 64} for n in range(2)},
])
def test_a_list_that_no_honest_host_makes_is_refused(found: dict[str, Any]) -> None:
    with pytest.raises(RigError):
        listed(found, "host")


def fetched(folder: Path, most: int = 70_000, content: bytes = ADAPTER) -> int:
    """Bring the adapter in parts; how many came."""
    target, (small, file) = Target(folder, "run"), listed(GOOD, "host")
    target.begin([small, file], 7, True)
    if not target.has(small):
        target.add(small, 0, b"{}")
        target.settle(small)
    count = 0
    at = file.bytes if target.has(file) else target.come(file)
    while at < file.bytes and count < most:
        part = content[at:at + 65536]
        target.add(file, at, part)
        at, count = at + len(part), count + len(part)
    if at == file.bytes and not target.has(file):
        target.settle(file)
        target.end([small, file], 7, True)
    return count


def test_it_goes_on_where_it_broke_off_and_fetches_nothing_twice(tmp_path: Path) -> None:
    folder, came = tmp_path / "out", []
    while not (folder / "adapter_model.safetensors").exists():
        came.append(fetched(folder))
    assert len(came) > 5 and sum(came) == len(ADAPTER)
    assert (folder / "adapter_model.safetensors").read_bytes() == ADAPTER and fetched(folder) == 0
    assert sorted(path.name for path in folder.iterdir()) == sorted([*GOOD, MARK])


def test_what_an_earlier_fetch_brought_goes_with_the_next_and_nothing_else(tmp_path: Path) -> None:
    folder, early = tmp_path / "out", Target(tmp_path / "out", "run")
    state = listed({**GOOD, "trainer_state.json": GOOD["adapter_config.json"]}, "host")
    early.begin(state, 5, False)
    for name in ("trainer_state.json", "adapter_config.json"):
        (folder / name).write_bytes(b"{}")
    (folder / "of-the-user.json").write_text("{}")
    fetched(folder, most=len(ADAPTER))
    assert sorted(path.name for path in folder.iterdir()) == sorted([*GOOD, MARK, "of-the-user.json"])


def test_other_bytes_than_were_said_never_get_the_name(tmp_path: Path) -> None:
    with pytest.raises(RigError, match="other bytes than its host said"):
        fetched(tmp_path / "out", 10 ** 9, ADAPTER[:-1] + b"x")
    assert not (tmp_path / "out" / "adapter_model.safetensors").exists()
    assert fetched(tmp_path / "out", 10 ** 9) == len(ADAPTER), "begun anew"


def test_links_and_others_folders_are_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.json").write_text("{}")
    with pytest.raises(RigError, match="holds other things"):
        fetched(mine)
    folder, victim = tmp_path / "out", tmp_path / "victim"
    victim.write_bytes(b"keep")
    fetched(folder, 1)
    target, (_, file) = Target(folder, "run"), listed(GOOD, "host")
    target.part(file).unlink()
    target.part(file).symlink_to(victim)
    assert target.come(file) == 0
    with pytest.raises(OSError):
        target.add(file, 0, b"x")
    (folder / file.name).symlink_to(victim)
    assert not target.has(file) and victim.read_bytes() == b"keep"
    with pytest.raises(RigError, match="holds other things"):
        Target(folder, "another").begin([file], 7, True)
