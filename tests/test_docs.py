"""What users read: the READMEs and docs/, held to the code that they tell of and to each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qwen_rig import cli, knobs
from scripts import docs

REPO = Path(__file__).parents[1]
READMES = (REPO / "README.md", REPO / "README.zh-CN.md")
PAGES = (*READMES, REPO / "CONTRIBUTING.md", REPO / "CHANGELOG.md", *sorted((REPO / "docs").glob("*.md")))
NOW = [page for page in PAGES if page.name not in ("CHANGELOG.md", "screens.md")]  # they tell of today's commands
SHOWN = ("make demo", "make demo-quick", "make test", "pyinfra inventories/lab.py deploy/5090.py",
         "pyinfra inventories/lab.py deploy/5090.py --dry")
NOT_OURS = re.compile(r"\bKB §|\bKB(?=: )|\(KB\b|\bDESIGN\b|\b(KB|DESIGN|GUIDE|MEASURED|FIELD)\.md\b")
LINK = re.compile(r"\]\(([^()\s]+)\)")
named = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def commands(page: Path) -> list[str]:
    """The lines of a page's code blocks, indented or fenced, without their comments."""
    text = re.sub(r"^```.*?^```", lambda block: re.sub(r"^", "    ", block[0], flags=re.MULTILINE),
                  page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"^(?: {4}|\t)\s*(\S.*)$", text, re.MULTILINE)
    return [line for each in found if (line := re.sub(r"\s+# .*", "", each).strip()) and not line.startswith("```")]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    bare = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)
    return {docs.anchor(title) for title in re.findall(r"^#+ (.+)$", bare, re.MULTILINE)}


@pytest.mark.parametrize("page", docs.pages(), ids=lambda page: page.name)
def test_a_made_page_is_as_make_docs_makes_it(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == docs.pages()[page], "the data have changed: make docs"


def test_every_knob_and_every_row_of_the_doctor_is_told() -> None:
    told = (REPO / "docs" / "knobs.md").read_text(encoding="utf-8")
    assert {name for name in knobs.NAMES if f"| `{name}` |" not in told} == set()
    assert all("|  |" not in line for line in told.splitlines() if line.startswith("| `")), "a knob without a meaning"
    causes = (REPO / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert all(f"### {row.name}" in causes for row in docs.forms.load())
    assert not re.search(r"\{\w+\}|\[\?", causes), "a place that only a host could fill"


def test_the_readme_is_short_and_both_show_the_same_commands() -> None:
    english, chinese = (commands(readme) for readme in READMES)
    assert english == chinese
    assert set(SHOWN) <= set(english)
    assert len(READMES[0].read_text(encoding="utf-8").split()) <= 1200
    assert not re.search("第二扇门|测试床|善终", READMES[1].read_text(encoding="utf-8"))


@named
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), f"{page.name}: {target}"


@pytest.mark.parametrize("page", NOW, ids=lambda page: page.name)
def test_commands_knobs_and_targets_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"^([\w-]+):", (REPO / "Makefile").read_text(), re.MULTILINE)
    shown = "\n".join([*commands(page), *re.findall(r"`([^`\n]+)`", text)])
    assert {verb for verb in re.findall(r"^qwen-rig ([a-z][a-z-]*)", shown, re.MULTILINE)} <= set(cli.VERBS)
    assert {target for target in re.findall(r"^make ([\w-]+)", shown, re.MULTILINE)} <= set(targets)
    assert set(re.findall(r"--data ([a-z_]+)=", shown)) <= knobs.NAMES
    assert all((REPO / name).is_file() for name in re.findall(r"\b((?:deploy|inventories)/\w+\.py)\b", shown))


def test_no_authority_is_cited_that_a_reader_does_not_have() -> None:
    folders = ("deploy", "facts", "qwen_rig", "group_data", "inventories", "testbed", "tests", "scripts", "benchmarks")
    ours = [path for folder in folders for path in (REPO / folder).rglob("*")
            if path.suffix in (".py", ".sh", ".yml", ".yaml", ".j2") and path.is_file() and path != Path(__file__)]
    assert len(ours) > 300
    cited = [f"{path.relative_to(REPO)}: {found[0]}" for path in [*ours, *PAGES]
             if (found := NOT_OURS.search(path.read_text(encoding="utf-8", errors="replace")))]
    assert cited == []


def test_no_source_is_cut_off_by_a_comment() -> None:
    """`source: a#1, #2` ends after the comma in YAML: the second is a comment."""
    cut = [f"{path.name}: {line.strip()}" for path in (REPO / "qwen_rig" / "data").rglob("*.yml")
           for line in path.read_text(encoding="utf-8").splitlines()
           if re.match(r"""\s*(- )?\w*source: [^"'>|{#][^#]*(\S#[^#]*)* #\d""", line)]
    assert cut == []
