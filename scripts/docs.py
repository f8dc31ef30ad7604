"""`make docs`: the pages of docs/ that repeat the tool's own data: knobs, sources, doctor rows, exit statuses.

tests/test_docs.py holds the pages equal to what stands here.
"""

from __future__ import annotations

import re
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from qwen_rig import exits, knobs
from qwen_rig.catalog import datafile
from qwen_rig.doctor import forms

REPO = Path(__file__).resolve().parent.parent
DOCS = REPO / "docs"
MADE = "<!-- made by `make docs` from {}; change that, not this page -->"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast; not in every build
SOURCE = re.compile(r"(.*_)?source")
EXCERPT = 150  # characters of a message by which a reader finds its row
NOT_PAGES = ("locks", "keys", "doctor")
GROUPS = {
    "driver": "NVIDIA driver", "gpu": "The card", "nccl": "NCCL and several GPUs", "cuda": "CUDA and memory",
    "python": "Python, torch and libraries", "packages": "apt, pip, uv and conda", "host": "The host",
    "network": "SSH and the network"}
PLACES = {"container": "In a container", "vm": "In a virtual machine", "wsl": "In WSL", "bare_metal": "On bare metal"}
CODES = {
    "xid": "Xid (NVIDIA's kernel messages)", "cuda": "CUDA errors", "nvml": "NVML results", "nccl": "NCCL results",
    "exits": "Exit statuses and signals", "aer": "PCIe errors (AER)"}


def main() -> int:
    """Write every page that differs."""
    for path, text in pages().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"{path.relative_to(REPO)} made anew")
    return 0


@cache
def pages() -> dict[Path, str]:
    """Each page, with the text that it should have."""
    return {DOCS / "knobs.md": knobs_page(REPO / "group_data" / "all.py"), DOCS / "troubleshooting.md": doctor_page(),
            DOCS / "exit-status.md": exits_page(), DOCS / "sources.md": sources_page(DOCS / "sources.md")}


def _cell(text: object) -> str:
    """A text as a cell of a table: one line, with no mark that ends the cell or begins HTML."""
    parts = " ".join(str(text).split()).replace("|", "\\|").split("`")
    step = 2 if len(parts) % 2 else 1  # every second part is code, which is shown as it is
    parts[::step] = [part.replace("<", "&lt;").replace("*", "\\*").replace("__", "\\_\\_") for part in parts[::step]]
    return "`".join(parts)


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]


# -- knobs ---------------------------------------------------------------------------------------------


def knobs_page(path: Path) -> str:
    """docs/knobs.md: each knob of group_data/all.py, its default and its comment."""
    lines = ["# Knobs", "", MADE.format("group_data/all.py"), "",
             "A knob is a setting of a run. The places to set one, strongest first:", "",
             "1. the command line: `--data KNOB=VALUE`, for all hosts of the run;",
             "2. the host's entry in `inventories/lab.yml` (or `cloud.yml`);",
             "3. `defaults:` of that file;",
             "4. `group_data/GROUP.py`, for a group of hosts;",
             "5. `group_data/all.py`, which holds the defaults below.", "",
             "A wrong type or an unknown word is refused in one line before a host is dialled. Names that begin with "
             "`x_` are for deploy files of your own."]
    for title, rows in _sections(path):
        if rows:
            lines += ["", f"## {title}", "",
                      *_table(["knob", "default", "meaning"],
                              [[f"`{name}`", f"`{value}`", _cell(what)] for name, value, what in rows])]
    return "\n".join(lines) + "\n"


def _sections(path: Path) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """The sections of a file of knobs: title, and (name, default, comment) of each knob in it."""
    title, rows, assigned, said = "", list[tuple[str, str, str]](), "", list[str]()
    with path.open("rb") as file:
        tokens = list(tokenize.tokenize(file.readline))
    for token in tokens:
        heading = re.fullmatch(r"# -- (.+?) -+", token.string)
        if heading or (token.type == tokenize.NAME and token.start[1] == 0):
            _keep(rows, assigned, said)
            assigned, said = "" if heading else token.line, []
        if heading:
            if title:
                yield title, rows
            title, rows = heading[1].split(" (see ")[0], []
        elif token.type == tokenize.COMMENT and assigned:
            said.append(token.string.lstrip("# "))
    _keep(rows, assigned, said)
    yield title, rows


def _keep(rows: list[tuple[str, str, str]], assigned: str, said: list[str]) -> None:
    """Add the knob that a line assigns, if it is one."""
    found = re.match(r"(\w+) = (.+?)(?:\s+#.*)?$", assigned.rstrip("\n"))
    if found and found[1] in knobs.NAMES:
        rows.append((found[1], found[2], " ".join(said)))


# -- sources -------------------------------------------------------------------------------------------


def sources_page(path: Path) -> str:
    """docs/sources.md with its table of data made anew; the facts above it are written by hand."""
    begin, end = "<!-- data -->", "<!-- /data -->"
    text = path.read_text(encoding="utf-8") if path.exists() else f"# Sources\n\n{begin}\n{end}\n"
    made = [begin, MADE.format("qwen_rig/data")]
    for file in sorted(datafile.DATA.rglob("*.yml")):
        relative = file.relative_to(datafile.DATA)
        if relative.parts[0] in NOT_PAGES:
            continue
        rows = [[_cell(where), _cell(source)] for where, source in _cited(yaml.load(file.read_bytes(), LOADER))]
        if rows:
            made += ["", f"### {relative}", "", *_table(["what", "source"], rows)]
    before, _, rest = text.partition(begin)
    return before + "\n".join([*made, end]) + rest.partition(end)[2]


def _cited(node: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Each source in a file of data, with the keys that lead there and the version that it vouches for."""
    if isinstance(node, dict):
        for key, value in node.items():
            if SOURCE.fullmatch(str(key)) and isinstance(value, str):
                said = node.get("version", node.get("url", ""))
                part = "" if key == "source" else str(key).removesuffix("_source")
                yield " ".join(filter(None, (where or "the file", part, str(said)))), value
            else:
                yield from _cited(value, f"{where} › {key}" if where else str(key))
    elif isinstance(node, list):
        for at, value in enumerate(node):
            name = value.get("name", value.get("text", at + 1)) if isinstance(value, dict) else at + 1
            yield from _cited(value, f"{where} › {name}")


# -- troubleshooting -----------------------------------------------------------------------------------


def doctor_page() -> str:
    """docs/troubleshooting.md: every cause and every code that `qwen-rig doctor` knows."""
    lines = ["# Troubleshooting", "", MADE.format("qwen_rig/data/doctor"), "",
             "`qwen-rig doctor HOST` asks a host; `qwen-rig doctor < some.log` reads a log. A failed step asks the "
             "doctor by itself and prints its answer on the card. This page lists what the doctor knows: search it for "
             "a word of your error. `…` stands for what differs from case to case. Rows that are marked *symptom* "
             "appear only where no row names the cause.", "", "Sections: " + " · ".join(
                 f"[{title}](#{anchor(title)})" for title in (*GROUPS.values(), *CODES.values()))]
    for name in forms.FILES:
        entries = datafile.load(forms.DATA / f"{name}.yml", forms.SignaturesFile).signatures
        lines += ["", f"## {GROUPS[name]}"]
        for entry in entries:
            lines += _signature(entry.row())
    for name in forms.TABLES:
        lines += _codes(CODES[name], forms.table(name))
    return "\n".join(lines) + "\n"


def anchor(title: str) -> str:
    """GitHub's anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _signature(row: forms.Row) -> list[str]:
    lines = ["", f"### {row.name}{' (symptom)' if row.symptom else ''}", ""]
    seen = next((str(each["text"]) for each in row.captures if "text" in each), "")
    if seen:
        fence = "```" if "```" not in seen else "~~~"
        shown = [line[:EXCERPT] for line in seen.strip("\n").splitlines()][:4]
        lines += [f"{fence}text", *shown, fence, ""]
    step = {"{do}": "told by the code's row in the tables below, or by the doctor from the log",
            "{said}": "as the host itself says"}.get(row.next) or _prose(row.next)
    lines += [f"- Cause: {_prose(row.cause)}", f"- Next: {step}"]
    lines += [f"- {PLACES[place]}: {_prose(text)}" for place, text in row.places.items()]
    return [*lines, f"- Source: {_prose(row.source)}"]


def _prose(text: str) -> str:
    """A text of a row without a case's own words: optional parts left out, names as …."""
    return _cell(re.sub(r"\{\w+\}", "…", re.sub(r"\[\?[^\[\]]*\]", "", text)))


def _codes(title: str, table: forms.Table) -> list[str]:
    rows = [[str(code.number if code.number is not None else ""), f"`{code.name}`", _prose(code.means),
             _prose(code.next)] for code in table.codes]
    return ["", f"## {title}", "", f"Source: {_prose(table.source)}", "",
            *_table(["code", "name", "meaning", "next step"], rows)]


# -- exit status ---------------------------------------------------------------------------------------


def exits_page() -> str:
    """docs/exit-status.md: what a script may rely on."""
    found = re.findall(r"^  ((?:\d+(?:, )?)+)  (.+)$", exits.MEANING, re.MULTILINE)
    last = exits.MEANING.rstrip().splitlines()[-1]
    return "\n".join([
        "# Exit status", "", MADE.format("qwen_rig/exits.py"), "", "The same for every verb of `qwen-rig`:", "",
        *_table(["status", "meaning"], [[f"`{code}`", _cell(what)] for code, what in found]), "", last, "",
        "`pyinfra …` ends with pyinfra's own status: `0`, and `1` where a host failed or an input was refused. A dry",
        "run (`--dry`) ends with `0` also where changes are pending; `qwen-rig plan` ends with `2` there.", ""])


if __name__ == "__main__":
    sys.exit(main())
