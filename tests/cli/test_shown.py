"""What ran, in words: on a failure's card, in its log and with -v."""

from __future__ import annotations

import shlex

import pytest
from pyinfra.api import FunctionCommand, MaskString, StringCommand

from qwen_rig import cli
from qwen_rig.deploy.repository.apply import _trust
from qwen_rig.program import Program
from qwen_rig.run.command_text import OURS, shown, with_inventory
from qwen_rig.run.converge import script
from qwen_rig.run.job import JobCommand
from qwen_rig.run.job_protocol import Job


def test_a_function_says_what_it_does_and_shows_nothing_that_it_was_given() -> None:
    command = FunctionCommand(_trust, ({"state": "x" * 5000}, "step"), {"password": "secret"})
    assert shown(command).startswith("(from here) Write key, source and pins")
    assert len(shown(command)) < 200 and "secret" not in shown(command)


def test_a_job_is_its_script_or_its_name() -> None:
    command = JobCommand(Job("env", "Env", Program("pip install six")("-q", url="https://me:secret@x"), 60, "input"))
    assert shown(command).endswith("pip install six")
    assert shown(command).startswith(f"(as a job, key {command.job.key[:12]}) sh url=https://***@x -q\n")
    assert shown(command, whole=False) == f"job env (key {command.job.key[:12]}) on the host"


def test_a_shell_command_with_its_secrets_masked() -> None:
    assert shown(StringCommand("login", MaskString("secret"))) == "login *MASKED*"


def test_a_short_program_is_its_name_and_arguments_and_its_text() -> None:
    command = script(Program("rm -f \"$1\"\n", "deploy/x.sh")("it's", url="https://me:secret@x"), 60)
    line = "timeout -k 30 60 deploy/x.sh url=https://***@x 'it'\"'\"'s'"
    assert shown(command, whole=False) == line and shown(command) == f'{line}\nrm -f "$1"\n'
    assert "secret" not in str(command) and "it's" not in str(command), "no command line shows its arguments"


@pytest.mark.parametrize(("text", "told"), [
    ("qwen-rig fits box-1      # LoRA up to 7B", "qwen-rig fits box-1 -i 'my cloud.yml'      # LoRA up to 7B"),
    ("`qwen-rig fits box-1` tells which fit", "`qwen-rig fits box-1 -i 'my cloud.yml'` tells which fit"),
    ("there? qwen-rig plan --limit box-1", "there? qwen-rig plan --limit box-1 -i 'my cloud.yml'"),
    ("qwen-rig launch box-1 box-2; then more", "qwen-rig launch box-1 box-2 -i 'my cloud.yml'; then more"),
    ("qwen-rig apply -i a.yml --limit box-1", None), ("`qwen-rig certify` tries that", None),
    ("qwen-rig doctor < some.log", None), ("qwen-rig runs resume box-1", None), ("qwen-rig fetch box-1", None),
    ("qwen-rig fits other-1", None), ("mend that, and run the same command again", None), ("", None),
])
def test_a_command_that_is_named_next_finds_its_host_where_this_one_did(text: str, told: str | None) -> None:
    assert with_inventory(text, "my cloud.yml", {"box-1", "box-2"}) == (told or text)
    assert with_inventory(text, None, {"box-1"}) == text


def test_the_verbs_that_are_named_with_an_inventory_are_those_that_read_one_by_default() -> None:
    reading = {leaf.prog.split()[1] for leaf in cli.leaves(cli.parser()) for action in leaf._actions
               if "-i" in action.option_strings and "lab.py" in str(action.help)}
    for leaf in cli.leaves(cli.parser()):
        verb = leaf.prog.split()[1]
        assert bool(OURS.search(shlex.join(["qwen-rig", verb, "box-1"]))) == (verb in reading), verb
