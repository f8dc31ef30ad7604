"""What ran, in words: on a failure's card, in its log and with -v."""

from __future__ import annotations

from pyinfra.api import FunctionCommand, MaskString, StringCommand

from qwen_rig.deploy.repository.apply import _trust
from qwen_rig.program import Program
from qwen_rig.run.command_text import shown
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
