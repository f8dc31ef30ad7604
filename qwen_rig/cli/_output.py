"""How a verb tells what was asked: words or JSON on standard output, all else on standard error."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qwen_rig import say
from qwen_rig.frozen import frozen

if TYPE_CHECKING:
    from rich.console import RenderableType

    from qwen_rig.run.screens import Screens


def arguments(parser: argparse.ArgumentParser) -> None:
    """--json, -q and -v: every verb has them."""
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true",
                       help="the result as JSON on standard output, and nothing else there")
    less_or_more = group.add_mutually_exclusive_group()
    less_or_more.add_argument("-q", "--quiet", action="store_true", help="results, questions and failures alone")
    less_or_more.add_argument("-v", "--verbose", action="count", default=0,
                              help="more detail: steps that are right, the commands of each step, how long it took")


@frozen
class Output:
    """What --json, -q and -v ask for."""

    json: bool
    quiet: bool
    verbose: int

    @classmethod
    def of(cls, options: argparse.Namespace) -> Output:
        """The output that a verb's options ask for."""
        return cls(bool(options.json), bool(options.quiet), int(options.verbose))

    def result(self, document: object, words: Callable[[], str | RenderableType]) -> None:
        """Tell the result: the document with --json, else the words."""
        if self.json:
            say.as_json(document)
        elif isinstance(told := words(), str):
            if told:
                say.out(told)
        else:
            from qwen_rig import render

            render.out().print(told)

    def talk(self, text: str) -> None:
        """A line that is no result."""
        if not self.quiet:
            say.err(text)

    def screens(self, plans: bool = False, asked: bool = False) -> Screens:
        """The screens of a run. `plans`: its plans are the result; `asked`: a question about the plans follows."""
        from qwen_rig.run import screens

        return screens.of_verb(plans and not self.json, self.json, self.quiet, asked)


def with_form(form: int, **found: Any) -> dict[str, Any]:
    """A document: the number of its form, then what was found."""
    return {"form": form, **found}
