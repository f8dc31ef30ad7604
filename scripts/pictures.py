"""`make pictures`: docs/dry-run.svg, docs/live-run.svg and the same words in docs/screens.md, from a real testbed run.

The host is real OpenSSH on a real Debian; its GPU, NVIDIA's packages and the conda installer are emulated, and the
stack is the stand-in: the pictures say so.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from qwen_rig.catalog.stack import load_stack
from testbed import cli, demo, paths
from testbed.bed import Testbed

REPO = Path(__file__).resolve().parent.parent
WIDTH = 100
HOST = "lab-02"  # the one with an old driver and an old toolkit
EMULATED = "testbed: real SSH and Debian; emulated GPU, NVIDIA packages and conda; stand-in stack"
RUNS = {"dry-run": ["plan"], "live-run": ["apply", "--yes"]}


def main() -> int:
    """Write the pictures and the page; a run with another exit status than it should have ends this too."""
    stack = load_stack("standin")
    bed = Testbed(paths.instance("pictures"))
    demo.fetch(stack)
    with bed:
        bed.up(cli.demo_specs(2))
        inventory = demo.write_inventory(bed, stack)
        state = bed.folder / "state"
        shutil.rmtree(state, ignore_errors=True)
        for name, verb in RUNS.items():
            shown, wanted = f"qwen-rig {' '.join(verb)} --limit {HOST}", 2 if verb == ["plan"] else 0
            done = subprocess.run([sys.executable, "-m", "qwen_rig", *verb, "--limit", HOST, "-i", str(inventory)],
                                  cwd=REPO,
                                  env={**os.environ, "COLUMNS": str(WIDTH), "FORCE_COLOR": "1",
                                       "XDG_STATE_HOME": str(state)},
                                  stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
            if done.returncode != wanted:
                print(done.stderr, file=sys.stderr)
                return 1
            text = Text.from_ansi(done.stderr.strip("\n"))
            _picture(REPO / "docs" / f"{name}.svg", shown, text)
            _transcript(REPO / "docs" / "screens.md", name, shown, text.plain)
    return 0


def _picture(path: Path, shown: str, text: Text) -> None:
    """The run as rich draws it."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True, highlight=False)
        console.print(Text(f"# {EMULATED}", style="dim"))
        console.print(Text(f"$ {shown}", style="bold"))
        console.print(text)
        svg = console.export_svg(title=f"{shown}  ({EMULATED.partition(';')[2].strip()})", unique_id=path.stem)
    # Without the fonts that rich would have a viewer fetch from elsewhere; any monospaced one serves.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
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
