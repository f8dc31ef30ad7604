"""`make pictures`: docs/*.svg and the words of two of them in docs/screens.md, from a real testbed run.

The hosts are real OpenSSH on a real Debian; their GPUs, NVIDIA's packages and the conda installer are emulated, and the
stack is the stand-in: the pictures say so.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, SVG_EXPORT_THEME
from rich.text import Text

from qwen_rig.catalog.stack import load_stack
from testbed import cli, demo, paths
from testbed.bed import Testbed

REPO = Path(__file__).resolve().parent.parent
DOCS = REPO / "docs"
WIDTH, LINES = 100, 40
WIDTHS = (80, 100, 160)
HOST, OTHERS = "lab-02", ("lab-01", "lab-03")  # the first has an old driver and an old toolkit
EMULATED = "testbed: real SSH and Debian; emulated GPU, NVIDIA packages and conda; stand-in stack"
THEMES = {"dark": SVG_EXPORT_THEME, "light": DEFAULT_TERMINAL_THEME}


def main() -> int:
    """Write the pictures and the page; a run with another exit status than it should have ends this too."""
    stack = load_stack("standin")
    bed = Testbed(paths.instance("pictures"))
    demo.fetch(stack)
    with bed:
        bed.up(cli.demo_specs(3))
        inventory = demo.write_inventory(bed, stack)
        state = bed.folder / "state"
        shutil.rmtree(state, ignore_errors=True)
        environment = {**os.environ, "LAB_HOSTS": str(inventory), "XDG_STATE_HOME": str(state),
                       "TERM": "xterm-256color"}
        try:
            for width in WIDTHS:
                text = _told(["plan", "--limit", HOST], 2, width, environment)
                for theme in THEMES:
                    path = DOCS / "screens" / f"plan-{width}-{theme}.svg"
                    _picture(path, f"qwen-rig plan --limit {HOST}", text, width, theme)
            _both("dry-run", ["plan", "--limit", HOST], 2, environment)
            _both("live-run", ["apply", "--yes", "--limit", HOST], 0, environment)
            _board(["apply", "--yes", *(word for name in OTHERS for word in ("--limit", name))], environment)
        except subprocess.CalledProcessError as error:
            print(f"pictures: {error}\n{error.output}", file=sys.stderr)
            return 1
    return 0


def _told(words: list[str], wanted: int, width: int, environment: Mapping[str, str]) -> Text:
    """What a run of the tool prints, with its colours. Raises CalledProcessError for another exit status."""
    done = subprocess.run([sys.executable, "-m", "qwen_rig", *words], cwd=REPO, stdin=subprocess.DEVNULL,
                          env={**environment, "COLUMNS": str(width), "FORCE_COLOR": "1"}, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != wanted:
        raise subprocess.CalledProcessError(done.returncode, words, done.stdout)
    return Text.from_ansi(done.stdout.strip("\n"))


def _both(name: str, words: list[str], wanted: int, environment: Mapping[str, str]) -> None:
    """A run as a picture and as words."""
    shown, text = f"qwen-rig {' '.join(words)}", _told(words, wanted, WIDTH, environment)
    _picture(DOCS / f"{name}.svg", shown, text, WIDTH)
    _transcript(DOCS / "screens.md", name, shown, text.plain)


def _board(words: list[str], environment: Mapping[str, str]) -> None:
    """The live board on a terminal, at the moment when it tells most: the screen with both hosts at a step."""
    screen, best, most = pyte.Screen(WIDTH, LINES), Text(""), 0
    stream = pyte.ByteStream(screen)
    for part in _terminal([sys.executable, "-m", "qwen_rig", *words], environment):
        stream.feed(part)
        rows = [line for line in screen.display if all(mark in line for mark in ("/", ":"))
                and any(name in line for name in OTHERS) and "waits" not in line and "━" in line]
        done = sum(int(found[1]) for line in rows if (found := re.search(r"(\d+)/\d+", line)))
        if len(rows) == len(OTHERS) and all(line.rstrip()[-1] not in "0123456789" for line in rows) and done >= most:
            most, best = done, _screen(screen)
    _picture(DOCS / "live-board.svg", f"qwen-rig {' '.join(words)}", best, WIDTH)


def _terminal(command: list[str], environment: Mapping[str, str]) -> Iterator[bytes]:
    """What a command writes on a terminal of WIDTH columns, part by part. Raises CalledProcessError where it fails."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, WIDTH, 0, 0))
    with subprocess.Popen(command, cwd=REPO, env=dict(environment), stdin=subprocess.DEVNULL, stdout=theirs,
                          stderr=theirs) as process:
        os.close(theirs)
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # EIO: the other end is closed
                break
            yield part
    os.close(ours)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def _screen(screen: pyte.Screen) -> Text:
    """A terminal's screen with its colours, without the empty lines below."""
    text = Text()
    last = max((at for at, line in enumerate(screen.display) if line.strip()), default=0)
    for at in range(last + 1):
        runs: list[tuple[str, Style]] = []
        for column in range(screen.columns):
            cell = screen.buffer[at][column]
            colour = None if cell.fg == "default" else f"#{cell.fg}" if re.fullmatch("[0-9a-f]{6}", cell.fg) else \
                cell.fg.replace("brown", "yellow")
            style = Style(color=colour, bold=cell.bold)
            if runs and runs[-1][1] == style:  # one element of the picture for a run of like cells
                runs[-1] = (runs[-1][0] + cell.data, style)
            else:
                runs.append((cell.data, style))
        text.append_tokens(runs)
        text.append("\n")
    text.rstrip()
    return text


def _picture(path: Path, shown: str, text: Text, width: int, theme: str = "dark") -> None:
    """The run as rich draws it."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=width, file=nowhere, force_terminal=True, highlight=False)
        console.print(Text(f"# {EMULATED}", style="dim"))
        console.print(Text(f"$ {shown}", style="bold"))
        console.print(text)
        title = f"{shown}  ({EMULATED.partition(';')[2].strip()})"
        svg = console.export_svg(title=title if len(title) < width - 10 else shown,  # clear of the window's buttons
                                 unique_id=path.stem, theme=THEMES[theme])
    # Without the fonts that rich would have a viewer fetch from elsewhere; any monospaced one serves.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    path.parent.mkdir(exist_ok=True)
    path.write_text(re.sub(r"<!-- .*? -->\s*", "", svg) + "\n", encoding="utf-8")


def _transcript(path: Path, name: str, shown: str, text: str) -> None:
    """The same words between the marks of a page."""
    lines = [f"$ {shown}", *(line.rstrip() for line in text.splitlines())]
    block = f"<!-- {name} -->\n```text\n" + "\n".join(lines) + f"\n```\n<!-- /{name} -->"
    before = path.read_text(encoding="utf-8")
    after, found = re.subn(rf"<!-- {name} -->.*?<!-- /{name} -->", lambda _: block, before, flags=re.DOTALL)
    if not found:
        raise SystemExit(f"{path.name} has no marks <!-- {name} --> … <!-- /{name} -->")
    path.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
