"""Every verb by its parser: --json, -q and -v, examples that are command lines of its own, completion, hints; and what
verbs that ask no host print where."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from qwen_rig import cli, exits
from qwen_rig.cli import completion
from qwen_rig.deploy import ORDER
from tests import HANG_S
from tests.certificate.synthesized import h100

REPO = Path(__file__).parents[2]
LEAVES = list(cli.leaves(cli.parser()))


@dataclass(frozen=True)
class Told:
    """One verb, run in this process."""

    status: int
    out: str
    err: str


@pytest.fixture
def ran(capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    def run(*words: str) -> Told:
        status = cli.main(words)
        return Told(status, *capsys.readouterr())

    return run


def rig(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "qwen_rig", *arguments], capture_output=True, text=True, cwd=REPO,
                          env={**os.environ, **environment}, stdin=subprocess.DEVNULL, timeout=HANG_S)


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.prog)
def test_each_verb_has_the_output_options_and_examples_that_it_takes(leaf: argparse.ArgumentParser) -> None:
    assert {"--json", "--quiet", "--verbose", "-q", "-v"} <= set(leaf._option_string_actions)
    title, *examples = (leaf.epilog or "").splitlines()
    assert title == "examples:" and examples
    for line in examples:
        _, *words = shlex.split(line.partition("$(")[2].rstrip(')"') if "$(" in line else line, comments=True)
        words = words[:next((at for at, word in enumerate(words) if word in ("<", "|")), None)]
        options = cli.parser().parse_args([word.rstrip(')"') for word in words])
        assert callable(options.run) and options.json == ("--json" in words) and not options.quiet


def test_help_names_every_verb_and_each_summary_is_one_line() -> None:
    told = " ".join(cli.parser().format_help().split())
    for name in cli.VERBS:
        summary = cli.verb(name).SUMMARY
        assert name in told and " ".join(summary.split()) in told and "\n" not in summary


@pytest.mark.parametrize(("words", "meant"), [
    (["aply"], "apply"), (["explain", "lab-01", "flash-attn"], "flash_attn"), (["plan", "--only", "drivr"], "driver"),
    (["plan", "--skip", "reboott"], "reboot"), (["certificate", "dif", "lab-01"], "diff"),
    (["host-keys", "acept"], "accept"), (["completion", "fsh"], "fish"), (["certfy"], "certify")])
def test_a_mistyped_word_is_told_what_it_was_meant_to_be(words: list[str], meant: str,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == exits.FAILED
    told = capsys.readouterr()
    assert f"did you mean {meant}?" in told.err and told.out == "" and told.err.count("\n") == 1


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completion_is_for_both_names_of_the_program(shell: str, ran: Callable[..., Told]) -> None:
    told, as_json = ran("completion", shell), ran("completion", shell, "--json")
    assert told.status == 0 and all(name in told.out.split() or f"{name};" in told.out for name in cli.PROGRAMS)
    assert json.loads(as_json.out)["script"].strip() == told.out.strip()


@pytest.mark.parametrize(("line", "comes"), [("qwen-rig pl", {"plan"}), ("rig plan --only ", set(ORDER)),
                                             ("rig certificate ", {"list", "show", "diff", "html", "read"}),
                                             ("rig fits --mod", {"--model"})])
def test_what_a_shell_is_given_to_complete(line: str, comes: set[str], tmp_path: Path) -> None:
    told = tmp_path / "told"
    rig(_ARGCOMPLETE="1", _ARGCOMPLETE_SHELL="fish", _ARGCOMPLETE_IFS="\n", COMP_LINE=line, COMP_POINT=str(len(line)),
        _ARGCOMPLETE_STDOUT_FILENAME=str(told))
    found = {each.partition("\t")[0].strip() for each in told.read_text().splitlines()}
    assert comes <= found and all(each.startswith(line.rpartition(" ")[2]) for each in found)


def quiet_verbs(tmp_path: Path) -> list[list[str]]:
    """Command lines of the verbs that ask no host, each with a result."""
    log = tmp_path / "log"
    log.write_text("NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.\n")
    measured = tmp_path / "measured.json"
    measured.write_text(json.dumps(h100()))
    later = tmp_path / "later.json"
    later.write_text(json.dumps({**h100(), "began": h100()["began"] + 3600}))
    card = "lab-01"
    return [["certificate", "list"], ["certificate", "read", str(measured), "--host", card],
            ["certificate", "read", str(later), "--host", card],
            ["fits", "--card", "5090"], ["fits", "--card", "5090", "--model", "27B"], ["doctor", "--log", str(log)],
            ["certificate", "show", card], ["certificate", "diff", card], ["completion", "bash"],
            ["certificate", "html", card, "-o", str(tmp_path / "page.html")], ["init", str(tmp_path / "lab")],
            ["host-keys", "list", "--file", str(tmp_path / "known")]]


def test_a_result_is_on_standard_output_and_json_is_alone_there(
        tmp_path: Path, ran: Callable[..., Told], monkeypatch: pytest.MonkeyPatch) -> None:
    shown: dict[str, Any] = {}
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for words in quiet_verbs(tmp_path):
        plain = ran(*words, "-q")
        assert plain.err == "" and (plain.out.strip() or words[1] == "list"), (words, plain)
        assert plain.status == (words[0] == "doctor"), (words, plain)
        if words[0] == "init":  # it makes a new folder only
            words = ["init", str(tmp_path / "other")]
        found = ran(*words, "--json")
        shown[" ".join(words[:2])] = json.loads(found.out)
        assert (found.status, found.err) == (plain.status, ""), words
    schema = json.loads((REPO / "docs" / "certificate.schema.json").read_text())
    for found in (shown["certificate show"], *shown["certificate read"]):
        jsonschema.validate(found, schema)
    assert shown["certificate diff"]["changes"] == []
    assert shown["fits --card"] and shown["doctor --log"]["the log"]["findings"] and shown["certificate list"] == []


def test_v_tells_how_long_it_took_and_bad_input_leaves_standard_output_empty(ran: Callable[..., Told]) -> None:
    done = ran("fits", "--memory", "32607", "-v")
    assert done.err.splitlines()[-1].startswith("qwen-rig fits: ") and done.err.endswith("exit status 0\n")
    bad = ran("fits", "--card", "nosuch", "--json")
    assert bad.status == exits.FAILED and bad.out == "" and bad.err.count("\n") == 1


def test_a_reader_that_leaves_ends_nothing() -> None:
    shell = f"{shlex.quote(sys.executable)} -m qwen_rig fits --memory 32607 -q; echo $? >&2"
    done = subprocess.run(["bash", "-c", f"({shell}) | head -n 1"], capture_output=True, text=True, cwd=REPO,
                          timeout=HANG_S)
    assert done.stdout.startswith("a card: 32607 MiB") and done.stderr == "0\n"
