"""Login shells with words and ways of their own: what a profile prints before, between and after never gets into an
answer, and a shell that runs no command is named with what to look at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import Lab

pytestmark = pytest.mark.testbed
OWN = r"printf 'one\n\n\ntwo '; printf 'err\n' >&2; printf '\n'; printf tail"
TALKATIVE = ("set -o nosuch; stty erase; echo broken >&2", "seq 1 20000", r"printf '\377\376\033[31m\200 \r\n'",
             "echo '@0123456789abcdef'; echo '@job state=done code=0 why='; echo '##rig host'",
             "(sleep 0.3; echo late) & disown", "trap 'echo goodbye; exit 3' EXIT", "printf 'half a line'")
MUTE = {"exit 0": "ended with 0", "exec echo you are not welcome": "ended with 0", "kill -9 $$": "was killed"}


@pytest.fixture(scope="module")
def lab(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    from testbed import HostSpec

    infos = bed.up([HostSpec("odd", kind="container", driver="580.95.05:open")])
    yield Lab(bed, infos, tmp_path_factory.mktemp("shells"), compilers="never", cuda_toolkit="never", flash_attn="off")
    bed.down()


def profile(lab: Lab, *lines: str) -> None:
    lab.bed.exec_("odd", ["sh", "-c", "cat >/root/.bashrc"], stdin="\n".join([*lines, ""]), check=True)


def test_all_is_applied_whatever_a_profile_prints(lab: Lab) -> None:
    profile(lab, *TALKATIVE)
    done = lab.pyinfra("fact", "server.Command", f"command={OWN}", "--json")
    assert done.code == 0 and '"one\\n\\n\\ntwo \\ntail"' in done.stdout, done.stdout + done.stderr
    failed = lab.pyinfra("-y", "exec", "--", "exit 7")
    assert failed.code == 1 and "Traceback" not in failed.stderr, failed.stderr
    first = lab.deploy("-y")
    assert first.code == 0, first.stderr[-3000:]
    again = lab.deploy("-y")
    assert again.code == 0 and {row["no_change"] == row["hosts"] for row in again.results.values()} == {True}


@pytest.mark.parametrize("kind", MUTE)
def test_a_shell_that_runs_no_command_is_named(lab: Lab, kind: str) -> None:
    profile(lab, kind)
    done = lab.rig("plan")
    said = " ".join((done.stdout + done.stderr).replace("│", " ").split())
    assert done.code == 1 and "Traceback" not in said, said
    assert f"its login shell {MUTE[kind]} and ran no command" in said and "~/.bashrc" in said, said
    assert ("you are not welcome" in said) == ("welcome" in kind)
