"""Text of strangers: a character that a terminal obeys, or that makes a line read otherwise, is shown by its number."""

from __future__ import annotations

import io
import json
import sys
import unicodedata

import pytest
from rich.console import Group
from rich.panel import Panel
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from qwen_rig import hosttext, render
from qwen_rig.errors import RigError
from qwen_rig.plan.model import Action, Step
from qwen_rig.run.progress import Board

OBEYED = ("Cc", "Cf", "Cs", "Zl", "Zp")
EVIL = ("\x1b]52;c;cm0gLXJmIH4=\x07", "\x1b[2J\x1b[H", "\x1bP$qm\x1b\\", "\x9b31m", "\x9d0;owned\x9c", "\u202egnp.exe",
        "\u2066x\u2069", "a\u200bb\u200fc", "\u2028line", "\rlab-01  ✓ no change", "\x08\x08\x7f", "\udc9b[2J", "\0",
        "\ufeffbom", "\U000e0041tag")
MARKUP = ("[bold]", "[/usr/include/x] warning: it", "[link=https://x]here[/link]", "[/]", ":smile:", "[red")


def obeyed(text: str) -> set[str]:
    """What a terminal would obey in a text, its newlines and tabs apart."""
    return {char for char in text if unicodedata.category(char) in OBEYED and char not in "\n\t"}


def test_every_character_of_unicode() -> None:
    for number in range(sys.maxunicode + 1):
        char = chr(number)
        made = hosttext.line(f"a{char}b")
        if unicodedata.category(char) in OBEYED and char != "\t":
            assert made.isascii() and made.isprintable() and "\\" in made, hex(number)
        elif unicodedata.category(char) not in ("Cn", "Co"):
            assert made == f"a{char}b", hex(number)


@pytest.mark.parametrize("text", [*EVIL, *MARKUP], ids=ascii)
def test_a_line_is_fit_and_stays_as_it_is_from_then_on(text: str) -> None:
    made = hosttext.line(text)
    assert not obeyed(made) and hosttext.line(made) == made and hosttext.shown(made) == made
    raw = text.encode("utf-8", "surrogateescape")
    assert not obeyed(hosttext.line(raw)) and not obeyed(hosttext.lines(raw + b"\n\xff\x9b\n"))
    assert hosttext.lines(f"{text}\n{text}\n").count("\n") == 2


def test_json_hides_nothing() -> None:
    said = json.dumps({EVIL[0]: [EVIL[1], {"x": EVIL[5]}, 1, None, True]})
    assert not obeyed(said)
    found = hosttext.value(json.loads(said))
    assert not obeyed(json.dumps(found, ensure_ascii=False))
    assert next(iter(found.values()))[2:] == [1, None, True]
    raw = json.dumps({"x": "\x9b31m\u202e"}, ensure_ascii=False)
    assert hosttext.value(json.loads(hosttext.line(raw))) == hosttext.value(json.loads(raw)), "in either order"


def test_sizes() -> None:
    assert len(hosttext.line("x" * (hosttext.LINE + 5000))) < hosttext.LINE + 50
    shown = hosttext.shown("x" * 10_000 + "\n" + "y" * 10)
    assert len(shown) < hosttext.SHOWN + 50 and shown.endswith("\n" + "y" * 10) and "8000 more" in shown


def _drawn(draw: object, terminal: bool = True) -> str:
    console = render.Console(file=io.StringIO(), force_terminal=terminal, width=100)
    console.print(draw)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("text", [*EVIL, *MARKUP], ids=ascii)
def test_the_console_lets_through_what_rich_itself_made(text: str) -> None:
    table = Table(text, title=text, caption=text)
    table.add_row(text)
    drawn = _drawn(Group(Text(text), text, Text(text, style="bold"), table, Panel(Text(text), title=Text(text))))
    own = {"\x1b"}
    assert obeyed(drawn) <= own
    plain = _drawn(Group(Text(text), Text(text, style="bold"), table), terminal=False)
    assert not obeyed(plain)
    for sequence in ("\x1b]", "\x1b[2J", "\x1b[H", "\x1bP", "\x9b", "\x07"):
        assert sequence not in drawn
    if text in MARKUP:
        assert text in plain, "what looks like markup is text"


@pytest.mark.parametrize("text", [*EVIL, *MARKUP], ids=ascii)
def test_cards_plans_and_the_board_take_any_text(text: str) -> None:
    card = render.Card(text, text, text, text, (text,), text, cause=text)
    step = Step(text, text, text, Action.ADD, text)
    drawn = "".join(_drawn(each, terminal=False) for each in
                    (render.card(card), render.report([(text, text, text)], [text]), render._steps([step]),
                     render.commands(text, [(text, [text])])))
    assert not obeyed(drawn)
    if text in MARKUP:
        assert drawn.count(text) >= 10
    board, console = Board(), render.Console(file=io.StringIO(), force_terminal=True, width=100)
    with board.drawn(console, {text: 3}):
        assert board.at(text, text)
        assert isinstance(board._progress, Progress)
        board._progress.refresh()
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b]" not in shown and not obeyed(shown) - {"\x1b", "\r"}, ascii(shown)
    assert text not in MARKUP or text in shown


def test_a_mistake_that_quotes_a_stranger_is_fit_too() -> None:
    error = RigError(*EVIL[:3])
    assert not obeyed(str(error) + error.what + error.where + error.remedy)
