"""nvidia-smi's rows at random: no cell, no lack of one and none too many ends in a traceback or costs another card."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_rig.deploy.planning import make_plan
from qwen_rig.facts import _driver
from qwen_rig.facts.probe import HostState
from qwen_rig.facts.state import State
from qwen_rig.plan import Context

from ..plan.states import RTX5090, bare, context
from ..plan.test_cases import BANNER, PROBE

HEADER = ["index", "name", "uuid", "pci.bus_id", "memory.total [MiB]", "compute_cap", "mig.mode.current"]
GOOD = ["0", "NVIDIA GeForce RTX 5090", "GPU-11111111-2222-3333-4444-555555555555", "00000000:01:00.0", "32607 MiB",
        "12.0", "[N/A]"]
WORDS = ["[N/A]", "[Not Supported]", "[Unknown Error]", "[GPU is lost]", "[GPU requires reset]", "ERR!", "Unknown", "",
         "N/A", "[Insufficient Permissions]", "0", "-1", "1e9", "12.0", "GPU-", "MIG-x", "00000000:ZZ:00.0",
         "99999999999 MiB", "\u4e0d\u660e", "..", "Enabled", "nan", "32607 MiB", "No devices were found"]
MORE = ["None", "null", "-", "?", "N/A MiB", "0 MiB", "12 MiB", "32607", "32607 GiB", "120", "sm_120", "PCI:1:0:0",
        "GPU 0", "00000000:01:00.8", "0000:01:00", "\u00b2", "Disabled", "Pending", "enabled", "[Enabled]",
        "[Requires Reset]", "Function Not Found", "[Unknown Error] MiB", "No", "Yes", "True", "[N/A] MiB",
        "Unknown Error"]
ANSWERS = ("[N/A]", "N/A", "[Not Supported]", "[N/A] MiB", "N/A MiB")  # there is none of it
# What a column may well hold of these words: index, memory, compute capability and MIG mode.
VALUES: dict[str, dict[str, Any]] = {
    "index": {"0": 0, "120": 120}, "memory.total [MiB]": {"32607": 32607, "32607 MiB": 32607},
    "compute_cap": {"12.0": "12.0"}, "mig.mode.current": {"Enabled": True, "Disabled": False}}
TEXT = st.text(st.characters(exclude_characters="\n\r,", exclude_categories=["Cs"]), max_size=12)
CELLS = st.one_of(st.sampled_from(WORDS), TEXT)
ROWS = st.lists(st.lists(CELLS, max_size=9), max_size=3)
KNOWN = context(bare(RTX5090))
OTHER = ["1", GOOD[1], "GPU-99999999-2222-3333-4444-555555555555", "00000000:02:00.0", *GOOD[4:]]
KEYS = ("index", "name", "uuid", "pci_bus_id", "memory_mib", "compute_capability", "mig")
WHOLE = dict(zip(KEYS, (0, *GOOD[1:4], 32607, "12.0", None), strict=True))


def read(rows: list[list[str]], header: list[str] = HEADER) -> dict[str, Any]:
    said = {**PROBE, "smi": PROBE["smi"].format(rc=0), "smi.table": BANNER,
            "smi.csv": "\n".join(", ".join(row) for row in [header, *rows])}
    return HostState().process(
        [line for part, words in said.items() for line in (f"##rig {part}", *words.split("\n"))])


def plan(found: dict[str, Any], cards: int = 1) -> Any:
    state = {**bare(*[RTX5090] * cards), **{part: found[part] for part in ("gpus", "driver", "problems")}}
    return make_plan(Context("lab-01", State.of(state), KNOWN.stack, KNOWN.knobs, KNOWN.rules))


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(before=ROWS, after=ROWS)
def test_whatever_stands_around_it_a_good_card_is_read_and_the_host_has_its_plan(
        before: list[list[str]], after: list[list[str]]) -> None:
    found = read([*before, GOOD, *after])
    assert {"name": GOOD[1], "uuid": GOOD[2], "pci_bus_id": GOOD[3], "memory_mib": 32607, "compute_capability": "12.0",
            "mig": None, "index": 0} in found["gpus"]
    for gpu in found["gpus"]:
        assert gpu["memory_mib"] is None or 10 <= gpu["memory_mib"] < 10 ** 8
    made = plan(found)
    assert made.steps or made.refusals


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(header=st.permutations(HEADER), drop=st.integers(0, 6), row=st.lists(CELLS, max_size=9))
def test_columns_in_another_order_or_fewer_are_read_by_their_names(
        header: list[str], drop: int, row: list[str]) -> None:
    kept = header[drop:]
    by_name = dict(zip(HEADER, GOOD, strict=True))
    found = read([[by_name[name] for name in kept], row], kept)
    if len(kept) > 1:
        first = found["gpus"][0]
        for column, key, value in (("uuid", "uuid", GOOD[2]), ("name", "name", GOOD[1]),
                                   ("pci.bus_id", "pci_bus_id", GOOD[3])):
            assert first[key] == (value if column in kept else None)
    assert plan(found).refusals or plan(found).steps


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(st.dictionaries(st.sampled_from(sorted(_driver.SECTIONS)), st.text(max_size=60)))
def test_no_section_of_the_drivers_costs_another_or_reads_as_health(said: dict[str, str]) -> None:
    driver, problem = _driver.parts(said)
    assert driver.keys() == _driver.EMPTY.keys()
    assert driver["error"] is not None or not (_driver.SECTIONS.keys() - said.keys() or problem)


@pytest.mark.parametrize("cells", [
    [*GOOD, "of another column"], GOOD[:3], ["0", "a", "b", *GOOD[2:]],
    ["0", "NVIDIA RTX PRO 6000 Blackwell, Server Edition", *GOOD[2:]]])
def test_a_row_of_another_length_keeps_what_it_has(cells: list[str]) -> None:
    gpu, = read([cells])["gpus"]
    assert gpu["uuid"] == GOOD[2] and gpu["index"] == 0
    assert gpu["memory_mib"] == (32607 if len(cells) > 3 else None)


def test_a_cell_that_is_none_of_its_column_is_said_and_a_good_driver_stays_good() -> None:
    found = read([[*GOOD[:4], "[Unknown Error]", *GOOD[5:]]])
    assert found["driver"]["error"] is None
    assert found["problems"]["memory.total of GPU 0"] == "nvidia-smi says [Unknown Error]"
    assert any("memory.total of GPU 0" in caveat for caveat in plan(found).caveats)


def beside_another(row: list[str]) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """What is read of a card in that row, with a good one behind it, which is read whole; what is said of it; and the
    plan's caveats."""
    found = read([row, OTHER])
    card, other = found["gpus"]
    assert other == {**WHOLE, "index": 1, "uuid": OTHER[2], "pci_bus_id": OTHER[3]}
    made = plan(found, 2)
    assert made.steps or made.refusals
    odd = {part: why for part, why in found["problems"].items() if why.startswith("nvidia-smi says")}
    return card, odd, [*made.caveats, *(refusal.what for refusal in made.refusals)]


@pytest.mark.parametrize("column", range(len(HEADER)), ids=HEADER)
def test_an_odd_word_is_no_value_costs_no_other_cell_and_is_said(column: int) -> None:
    for word in (*WORDS, *MORE):
        card, odd, caveats = beside_another([*GOOD[:column], word, *GOOD[column + 1:]])
        taken = VALUES.get(HEADER[column], {}).get(word)
        assert card == {**WHOLE, KEYS[column]: taken}, word
        if taken is None and word not in ANSWERS:
            name = f"{HEADER[column].split()[0]} of GPU 0"
            assert name in odd and any(name in caveat for caveat in caveats), word


@pytest.mark.parametrize("column", range(len(HEADER)), ids=HEADER)
@pytest.mark.parametrize("times", [0, 2, 3])
def test_a_cell_that_is_lacking_or_there_twice_makes_no_other_value(column: int, times: int) -> None:
    card, odd, caveats = beside_another([*GOOD[:column], *[GOOD[column]] * times, *GOOD[column + 1:]])
    assert all(card[key] in (None, WHOLE[key]) for key in KEYS)
    assert card["name"] or card["uuid"], "it's known which card it is"
    assert card == WHOLE or {part.rpartition(" of ")[2] for part in odd} == {"GPU 0"}
    assert all(any(part in caveat for caveat in caveats) for part in odd)


@pytest.mark.parametrize("word", [*WORDS, *MORE])
def test_odd_words_in_the_list_and_in_the_table_are_said_or_unknown(word: str) -> None:
    """A driver that refuses the query is asked with -L; the table has CUDA's version, and who computes."""
    table = (f"| NVIDIA-SMI 580.95.05   Driver Version: {word}   CUDA Version: {word} |\n"
             f"|    0   N/A  N/A   {word}   C   {word}   {word} |\n|  {word}  N/A  N/A  12  C  python  512MiB |")
    for line in (f"GPU {word}: {GOOD[1]} (UUID: {GOOD[2]})", f"GPU 0: {word} (UUID: {GOOD[2]})",
                 f"GPU 0: {GOOD[1]} (UUID: {word})", f"GPU 0: {word}", word):
        said = {**PROBE, "smi": PROBE["smi"].format(rc=0), "smi.csv": 'Field "index" is not a valid field to query.',
                "smi.list": f"{line}\nGPU 1: {GOOD[1]} (UUID: {OTHER[2]})", "smi.table": table}
        found = HostState().process(
            [text for part, words in said.items() for text in (f"##rig {part}", *words.split("\n"))])
        assert found["gpus"][-1]["uuid"] == OTHER[2] and found["driver"]["loaded_version"] == "580.95.05"
        assert found["driver"]["cuda_version"] == ("12.0" if word == "12.0" else None)
        odd = [why for why in found["problems"].values() if why.startswith("nvidia-smi says")]
        for card in found["gpus"][:-1]:
            assert all(card[key] in (None, WHOLE[key]) or word in VALUES.get(key, {}) for key in KEYS)
            assert None not in (card["index"], card["name"], card["uuid"]) or odd or word in ANSWERS
        assert len(found["gpus"]) == 2 or odd or not line.strip()
        assert plan(found, 2).steps or plan(found, 2).refusals
