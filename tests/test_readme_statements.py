"""Statements of README.md, checked by running what it shows: commands, tables and files are read from the page.

What needs a host (dry runs, applies, certificates) is shown by tests/e2e; here is what a newcomer can do without one.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from qwen_rig import cli
from qwen_rig.catalog.stack import load_stack
from qwen_rig.cloud.inventory import load_cloud
from qwen_rig.deploy.planning import make_plan
from qwen_rig.errors import RigError
from qwen_rig.finetune import data
from qwen_rig.lab import load_hosts
from tests.plan.states import RTX5090, bare, context
from tests.test_docs import commands

REPO = Path(__file__).parents[1]
PAGE = (REPO / "README.md").read_text(encoding="utf-8")
SHOWN = commands(REPO / "README.md")
Ran = Callable[[str], tuple[int, str]]


def shown(start: str) -> str:
    """The command of README.md that begins so, as a reader copies it."""
    found = [line for line in SHOWN if line.startswith(start)]
    assert found, f"README.md no longer shows `{start}`"
    return found[0]


def row(name: str) -> str:
    """A row of a table of README.md, by what stands in its first column."""
    found = re.search(rf"^\| `{re.escape(name)}`[^|]*\| (.+) \|$", PAGE, re.MULTILINE)
    assert found, f"README.md has no row {name}"
    return found[1]


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ran:
    """Run a command of `qwen-rig` in an empty folder, as a user without any records: (exit status, what it said)."""
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> tuple[int, str]:
        words = shlex.split(line)
        assert words[0] == "qwen-rig"
        status = cli.main(words[1:])
        told = capsys.readouterr()
        return status, told.out + told.err

    return run


def test_fits_tells_whether_the_model_fits_the_card(ran: Ran) -> None:
    status, said = ran(shown("qwen-rig fits"))
    assert status == 0 and "Qwen/Qwen3-8B" in said and "GeForce RTX 5090" in said
    assert re.search(r"LoRA +(yes|no): ", said) and re.search(r"QLoRA +(yes|no): ", said), said


def test_init_makes_a_project_whose_hosts_are_entered_in_one_file(ran: Ran, tmp_path: Path) -> None:
    made, folder = shown("qwen-rig init").split(" && cd ")
    status, said = ran(made)
    assert status == 0 and "qwen-rig plan" in said
    assert [name for name, _ in load_hosts(_with_a_key(tmp_path / folder / "inventories" / "lab.yml"))]


def test_the_example_of_hosts_can_be_copied_and_is_read(tmp_path: Path) -> None:
    _, example, target = shown("cp inventories/lab.example.yml").split()
    to = tmp_path / Path(target).name
    to.write_text((REPO / example).read_text())
    assert load_hosts(_with_a_key(to))


def test_the_example_of_rented_machines_serves_once_other_providers_are_deleted(tmp_path: Path) -> None:
    _, example, target = shown("cp inventories/cloud.example.yml").split()
    assert "delete the other" in PAGE, "the example as it is asks each provider's own command"
    given = yaml.safe_load((REPO / example).read_text())
    given["sources"] = {name: entry for name, entry in given["sources"].items() if entry["source"] == "ssh"}
    to = tmp_path / Path(target).name
    to.write_text(yaml.safe_dump(given))
    assert load_cloud(_with_a_key(to), tmp_path / "known").groups


def _with_a_key(file: Path) -> Path:
    """The file, its keys replaced by one that is there."""
    key = file.with_name("id_ed25519")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, timeout=60)
    file.write_text(re.sub(r"(key: *)\S+", rf"\g<1>{key}", file.read_text()))
    return file


def test_a_pasted_ssh_line_is_a_host(tmp_path: Path) -> None:
    block = re.search(r"^ +sources:\n(?: {7,}.*\n)+", PAGE, re.MULTILINE)
    assert block, "README.md no longer shows what to paste into cloud.yml"
    [(group, entry)] = yaml.safe_load(block[0])["sources"].items()
    (name, line), = entry["hosts"].items()
    (tmp_path / "cloud.yml").write_text(yaml.safe_dump({"sources": {group: entry}}))
    [[(found, host)]] = load_cloud(tmp_path / "cloud.yml", tmp_path / "known").groups.values()
    assert found == name and line == f"ssh -p {host['ssh_port']} {host['ssh_user']}@{host['ssh_hostname']}"
    assert f"qwen-rig train {name} " in shown("qwen-rig train") + " ", "the next steps are of that host"


@pytest.mark.parametrize("form", [["messages"], ["prompt", "completion"], ["text"]])
def test_the_data_file_takes_each_form_that_is_named(form: list[str], tmp_path: Path) -> None:
    told = re.search(r"`chats\.jsonl` has one JSON object a line[^.]*\.", PAGE, re.DOTALL)
    assert told and all(f"`{name}`" in told[0] for name in form)
    values = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}
    sample = {name: values.get(name, "some words") for name in form}
    file = tmp_path / re.findall(r"--dataset_name (\S+)", shown("qwen-rig train"))[0]
    file.write_text(json.dumps(sample) + "\n")
    assert data.looked_at(str(file)).samples == 1
    file.write_text(json.dumps({"question": "hi"}) + "\n")
    with pytest.raises(RigError, match="it takes messages"):
        data.looked_at(str(file))


def test_runs_lists_runs_and_the_doctor_reads_a_log(ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "`qwen-rig runs` lists runs" in PAGE
    assert ran("qwen-rig runs")[0] == 0
    assert re.search(r"qwen-rig doctor.*doctor < some\.log reads a log", PAGE)
    log = tmp_path / "some.log"
    for text, status, words in (("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n", 1,
                                 "memory"), ("step 1 of 600 done\n", 0, "unknown")):
        log.write_text(text)
        with log.open() as opened:
            monkeypatch.setattr("sys.stdin", opened)
            told, said = ran("qwen-rig doctor")
        assert told == status and words in said, said


def test_help_lists_all_commands_that_the_page_shows(ran: Ran) -> None:
    assert "`qwen-rig --help` lists all commands" in PAGE
    status, said = ran("qwen-rig --help")
    used = {line.split()[1] for line in SHOWN if line.startswith("qwen-rig ")} - {"--help"}
    listed = set(re.findall(r"^ {2,6}([a-z][a-z-]+)\b", said, re.MULTILINE))
    assert status == 0 and used <= listed, used - listed


def test_a_knob_of_the_table_takes_what_the_table_says(ran: Ran) -> None:
    choices = re.findall(r"`(\w+)`", row("flash_attn"))
    ran(shown("qwen-rig init").split(" && ")[0])
    status, said = ran("qwen-rig plan --data flash_attn=perhaps")
    assert status == 1 and f"it takes {', '.join(choices)}" in said, said


def test_another_number_of_gpus_is_refused() -> None:
    assert "another number is refused" in row("expect_gpus")
    refused = make_plan(context(bare(RTX5090), expect_gpus=2)).refusals
    assert [refusal.what for refusal in refused] == ["1 GPU here, and expect_gpus=2"]
    assert not make_plan(context(bare(RTX5090), expect_gpus=1)).refusals


@pytest.mark.parametrize("name", ["guide", "qwen3", "qwen3.5", "qwen3.5-cu128"])
def test_a_stack_has_the_versions_that_the_table_says(name: str) -> None:
    told = row(name).partition("replaces")[0]  # what the guide had is no longer in it
    stack = load_stack(name)
    python = next(iter(stack.pythons))
    packages = stack.requirements(python)
    versions = re.findall(r"\b(torch|transformers) (\d+(?:\.\d+)+)", told)
    assert versions, f"the table tells no version of {name}"
    for package, version in versions:
        assert str(packages[package].version).partition("+")[0] == version, (name, package)


def test_each_target_of_make_that_is_shown_can_be_run() -> None:
    for target in (line.split()[1] for line in SHOWN if re.fullmatch(r"make \S+", line)):
        done = subprocess.run(["make", "-n", target], cwd=REPO, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (target, done.stderr)
