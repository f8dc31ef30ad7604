"""The verbs of `qwen-rig`: a module each, found by the name it has here.

A verb's module has SUMMARY (one line), EXAMPLES (command lines, for --help), arguments(parser) and run(options) → exit
status. It imports what is heavy (pyinfra, deploy) inside run(), so that --help is instant and gevent patches before
anything else is loaded. --json, -q and -v are given to each verb here (_output.py).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NoReturn, Protocol, cast

from qwen_rig import __version__, exits, hosttext, say
from qwen_rig.cli import _output
from qwen_rig.errors import RigError

# The order of --help. A new verb: its name here, its module beside this one (`host-keys` is host_keys.py).
VERBS = (
    "init",
    "plan",
    "apply",
    "certify",
    "explain",
    "diff",
    "undo",
    "certificate",
    "doctor",
    "fits",
    "train",
    "runs",
    "fetch",
    "eval",
    "watch",
    "remove",
    "launch",
    "host-keys",
    "bundle",
    "completion",
    "verify",
)
PROGRAMS = ("qwen-rig", "rig")
COMPLETING = "_ARGCOMPLETE"  # set by the shell's function of `qwen-rig completion`


class Verb(Protocol):
    """What a verb's module offers."""

    SUMMARY: str
    EXAMPLES: tuple[str, ...]

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare its options."""

    def run(self, options: argparse.Namespace) -> int:
        """Do it. Returns the exit status (qwen_rig/exits.py); a RigError ends in one line and exits.FAILED."""


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one line and status 1: its own 2 would say that changes are pending."""

    def error(self, message: str) -> NoReturn:
        self.exit(exits.FAILED, f"{self.prog}: {hosttext.line(message)} · see {self.prog} --help\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """argparse's own, with what a mistyped verb, step or word was meant to be."""
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError:
            close = get_close_matches(str(value), [str(choice) for choice in action.choices or ()], 1)
            if close:
                raise argparse.ArgumentError(action, f"there is no {value!r} · did you mean {close[0]}?") from None
            raise

    def _print_message(self, message: str, file: Any = None) -> None:
        """argparse's own, which passes over what can't be written."""
        if file is sys.stdout:
            say.out(message.rstrip("\n"))
        else:
            say.err(message, end="")


def verb(name: str) -> Verb:
    """The module of a verb."""
    return cast(Verb, import_module(f"{__name__}.{name.replace('-', '_')}"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb. Returns the exit status; whatever is raised ends here, in one line."""
    say.begin()
    try:
        status = _run(arguments)
    except SystemExit as left:  # argparse's: --help, a mistake
        if isinstance(left.code, str):
            say.err(left.code)
        status = left.code if isinstance(left.code, int) else exits.OK if left.code is None else exits.FAILED
    if not say.end() and status == exits.OK:
        say.err("qwen-rig: what was asked for can't be written · standard output · send it elsewhere")
        status = exits.FAILED
    return status


def _run(arguments: Sequence[str] | None) -> int:
    verb_, began = "", time.monotonic()
    try:
        words = sys.argv[1:] if arguments is None else arguments
        made = parser(words[0] if words and COMPLETING not in os.environ else "")
        if COMPLETING in os.environ:
            import argcomplete

            argcomplete.autocomplete(made)
        options = made.parse_args(words)
        verb_ = str(options.verb)
        status = int(options.run(options))
        if options.verbose:
            say.err(f"qwen-rig {verb_}: {time.monotonic() - began:.1f} s, exit status {status}")
        return status
    except RigError as error:
        say.err(f"qwen-rig: {error}")
        return exits.FAILED
    except KeyboardInterrupt:
        say.err("qwen-rig: interrupted")
        return exits.INTERRUPTED
    except Exception as error:  # of the run as a whole: a host's own is its card (Report.contained)
        from qwen_rig.run import stumble

        say.err(f"qwen-rig: {stumble.ended_by(error, verb_)}")
        return exits.FAILED


def parser(first: str = "") -> Parser:
    """The parser of all verbs. Where the first word of the command line is a verb, it is the only one whose module is
    loaded and whose options are known: most have something heavy to load."""
    made = Parser(prog="qwen-rig", description="Turn hosts with an NVIDIA GPU into hosts that can fine-tune Qwen.",
                  epilog=exits.MEANING, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--version", action="version", version=f"qwen-rig {__version__}")
    verbs = made.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    for name in VERBS:
        if first in VERBS and name != first:
            verbs.add_parser(name)
            continue
        module = verb(name)
        own = verbs.add_parser(name, help=module.SUMMARY, description=module.SUMMARY)
        module.arguments(own)
        own.set_defaults(run=module.run, json=False, quiet=False, verbose=0)
        for leaf in leaves(own):
            _output.arguments(leaf)
            leaf.formatter_class = argparse.RawDescriptionHelpFormatter
            leaf.epilog = "\n  ".join(["examples:", *_examples(module, leaf.prog)])
    return made


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers that take a command line to its end: of verbs without verbs of their own."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield parser
    for action in below:
        for each in action.choices.values():
            yield from leaves(each)


def _examples(module: Verb, prog: str) -> list[str]:
    """A verb's examples; of a verb's own verb those that begin with it."""
    return [line for line in module.EXAMPLES if line.startswith(prog)] or list(module.EXAMPLES)
