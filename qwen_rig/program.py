"""Shell programs for hosts: constant text out of .sh files, and arguments that travel beside that text. Pure.

Nothing of a host, knob or inventory is ever part of the text. The arguments are the first line of the program's
standard input, where no other user of the host sees them (qwen_rig/shell/arguments.sh reads that line).
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Iterable
from dataclasses import field
from functools import cache
from importlib.resources import files

from qwen_rig.frozen import frozen

# Whatever the login's umask: nobody else writes to what a program makes. Whatever its language: what we run speaks
# English, in UTF-8, so that the doctor reads it (LANGUAGE would win over C.UTF-8).
_HEAD = "set -eu\numask go-w\nunset LANGUAGE\nLC_ALL=C.UTF-8\nexport LC_ALL\n"
_NAME = re.compile("[a-z_][a-z0-9_]*")
SECRET = "secret_"  # variables whose names begin so are shown to nobody


@frozen
class Program:
    """POSIX sh, run under `set -eu`. `name`: for people. Called with arguments, it is a `Call`."""

    text: str = field(repr=False)
    name: str = "sh"

    def __call__(self, *words: str, **variables: str) -> Call:
        """The program with positional parameters and variables."""
        return Call(self, words, tuple(variables.items()))


@frozen
class Call:
    """A program and its arguments: positional parameters and variables."""

    program: Program
    words: tuple[str, ...] = field(default=(), repr=False)
    variables: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if wrong := [name for name, _ in self.variables if not _NAME.fullmatch(name)]:
            raise ValueError(f"{self.program.name}: {', '.join(wrong)} can't be a variable")

    @property
    def text(self) -> str:
        """What the shell runs."""
        return _HEAD + (load("shell/arguments.sh").text if self._arguments else "") + _owned() + self.program.text

    def stdin(self, more: str = "") -> str:
        """The standard input: the line of arguments, where there are any, then the program's own input. ValueError
        where one of these, or the text, holds a NUL: no shell carries that."""
        if "\0" in "".join((self.program.text, *self._arguments, more)):
            raise ValueError(f"{self.program.name}: its text, input or an argument holds a NUL")
        if not self._arguments:
            return more
        encoded = (base64.b64encode(f"{word}.".encode()).decode() for word in self._arguments)
        return f"{' '.join(encoded)}\n{more}"

    @property
    def _arguments(self) -> tuple[str, ...]:
        if not self.words and not self.variables:
            return ()
        return (*(f"{name}={value}" for name, value in self.variables), "--", *self.words)

    def __str__(self) -> str:
        """The program's name and its arguments, as a shell's command line; without what is secret."""
        variables = (f"{name}={'***' if value and name.startswith(SECRET) else shlex.quote(value)}"
                     for name, value in self.variables)
        return " ".join([self.program.name, *variables, *map(shlex.quote, self.words)])


@cache
def load(*paths: str) -> Program:
    """A program of .sh files: the libraries first, at last the file that it is named after."""
    return Program("".join(_read(path) for path in paths), paths[-1])


def _owned() -> str:
    """What every program checks with whose a path is, before it runs, reads or writes that."""
    return _read("shell/owned.sh")


@cache
def _read(path: str) -> str:
    """A .sh file by its path in the package."""
    return files("qwen_rig").joinpath(*path.split("/")).read_text(encoding="utf-8")


def lines(rows: Iterable[str]) -> str:
    """A list as one argument, a row a line. ValueError where a row is several lines."""
    rows = list(rows)
    if wrong := next((row for row in rows if "\n" in row), None):
        raise ValueError(f"{wrong!r} is more than one line")
    return "\n".join(rows)
