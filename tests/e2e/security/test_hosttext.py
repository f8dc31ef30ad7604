"""A host whose every answer carries what a terminal obeys, and markup: every verb shows it by number on a terminal."""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any

import pytest

from ..conftest import REPO, Lab
from .pty_run import Shown, on_terminal

pytestmark = pytest.mark.testbed
# Clipboard, title, screen, cursor, concealed text, a DCS, C1 in UTF-8 and as a byte, bidi, line ends, markup.
EVIL = ("\x1b]52;c;cm0gLXJmIH4=\x07\x1b]0;owned\x07\x1b[2J\x1b[3;4H\x1b[8m\x1bP$qm\x1b\\\u009b31m\u202egnp\u2069\u200b"
        "\u2028\x08\x7f[bold][/x][link=https://x]y[/link][red").encode() + b"\x9b2J\xff"
OWN = re.compile(r"\x1b\[(\?25[lh]|[0-9;]*m|[0-9]?[AK])|\r|\n|\t")  # what rich and pyinfra themselves use
CONCEALED = "\x1b[8m"


@pytest.fixture(scope="module")
def lab(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """`sly` works and says evil things wherever a fact or a log is free text; `loud` says them behind every line."""
    from testbed import HostSpec

    infos = bed.up([HostSpec("sly", driver="580.95.05:open"), HostSpec("loud", driver="580.95.05:open")])
    lab = Lab(bed, infos, tmp_path_factory.mktemp("hosttext"))
    for name in lab.hosts:
        bed.exec_(name, ["sh", "-c", "base64 -d >/root/evil"], stdin=base64.b64encode(EVIL).decode(), check=True)
    lab.on("loud", """cat >/root/.bashrc <<'.'
case "$BASH_EXECUTION_STRING" in ?*) bash --norc -c "$BASH_EXECUTION_STRING" 2>&1 |
  perl -e 'open F, "</root/evil"; $evil = <F>; while (<STDIN>) { chomp; print "$_$evil\\n" }'; exit 3 ;; esac
.""")
    lab.on("sly", """evil=$(tr -d '\\0' </root/evil)
printf 'PRETTY_NAME="Debian%s"\\n' "$evil" | cat - /etc/os-release | awk '!/^PRETTY/ || NR == 1' >/etc/os-release.new
rm /etc/os-release; mv /etc/os-release.new /etc/os-release
for program in nvidia-smi apt-get; do
  real=$(readlink -f "$(command -v $program)"); cp "$real" /opt/$program; rm -f "$(command -v $program)"
done
cat >/usr/bin/nvidia-smi <<'.'
#!/bin/sh
/opt/nvidia-smi "$@" |
  perl -e 'open F, "</root/evil"; $evil = <F>; while (<STDIN>) { s/RTX 5090/RTX 5090$evil/; print }'
.
cat >/usr/bin/apt-get <<'.'
#!/bin/sh
echo "cc1plus: warning: ignoring [/usr/include/x] $(cat /root/evil)"; cat /root/evil >&2; exit 100
.
chmod 755 /usr/bin/nvidia-smi /usr/bin/apt-get""")
    bed.exec_("sly", ["sh", "-c", """cd /; setsid perl -e 'open F, "</root/evil" or $evil = "\\e]52;c;cm0=\\a\\e[8m";
$0 = "$evil"; open F, "<", "/dev/nvidia0"; sleep 600' >/dev/null 2>&1 </dev/null &"""], user="nosudo", check=True)
    yield lab
    bed.down()


def _shown(lab: Lab, *arguments: str, door: str = "qwen_rig") -> Shown:
    command = [sys.executable, "-m", "qwen_rig", *arguments, "-i", str(lab.file)] if door == "qwen_rig" else \
        [sys.executable, "-m", "pyinfra", *arguments]
    environment = {**os.environ, "LAB_HOSTS": str(lab.file), "COLUMNS": "120", "LINES": "50",
                   "XDG_STATE_HOME": str(lab.folder / "state"), "HOME": str(lab.folder)}
    return on_terminal(command, lab.folder if door == "qwen_rig" else REPO, environment)


def _fit(shown: Shown) -> str:
    """What was shown, once it is seen to hold nothing that a terminal obeys but its own."""
    text = shown.raw.decode("utf-8")  # no stray byte
    rest = OWN.sub("", text)
    odd = sorted({ascii(char) for char in rest if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")})
    assert not odd and CONCEALED not in text, (odd, ascii(rest[-2000:]))
    assert "Traceback" not in text and "MarkupError" not in text, text[-3000:]
    return text


VERBS = {
    "plan": ((2,), ("plan", "-v", "--limit", "sly")),
    "both": ((1, 3), ("plan",)),
    "apply": ((1,), ("apply", "--yes")),
    "explain": ((0,), ("explain", "sly", "env")),
    "diff": ((0, 1, 3), ("diff",)),
    "doctor": ((0, 1), ("doctor", "sly", "loud")),
    "fits": ((0, 1), ("fits", "sly", "loud")),
    "undo": ((1,), ("undo", "--yes")),
    "launch": ((1,), ("launch", "sly", "loud")),
    "certify": ((1,), ("certify",)),
}


@pytest.mark.parametrize("name", VERBS)
def test_a_verb(lab: Lab, name: str) -> None:
    codes, arguments = VERBS[name]
    shown = _shown(lab, *arguments)
    text = _fit(shown)
    assert shown.code in codes, text[-2000:]
    told = {"plan": r"\u001b]52;c;cm0gLXJmIH4=", "apply": "[bold][/x][link=https://x]y[/link][red"}  # not swallowed
    if name in told:
        assert told[name] in re.sub(r"[\s│]|\x1b\[[0-9;]*m", "", text), text[-3000:]


@pytest.mark.parametrize("arguments", [
    ("-y", "-v", "deploy/5090.py", "--dry"), ("exec", "--", "cat", "/root/evil", ";", "cat /root/evil >&2; exit 1"),
    ("fact", "facts.probe.HostState")], ids=lambda words: words[0])
def test_a_door_of_pyinfra(lab: Lab, arguments: tuple[str, ...]) -> None:
    shown = _shown(lab, "inventories/lab.py", *arguments, door="pyinfra")
    text = _fit(shown)
    assert shown.code in (0, 1) and "[bold][/x]" in text, text[-2000:]


def test_json_and_logs_hold_it_by_number(lab: Lab) -> None:
    planned = lab.rig("plan", "--json", "--limit", "sly")
    texts = json.dumps(json.loads(planned.stdout), ensure_ascii=False)
    kept = [path.read_text("utf-8") for folder in ("state", ".cache/qwen-rig/logs")
            for path in (lab.folder / folder).rglob("*") if path.is_file()]
    assert kept, "a failure has a log"
    for text in (texts, *kept):
        assert not {ascii(c) for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\t"}
