"""Tracebacks in what a program said: of each, the exceptions alone stay."""

from __future__ import annotations

import subprocess
import sys

import pytest

from qwen_rig.tracebacks import folded

PROGRAMS = {
    "one": ("open('/nosuch/file')", ["FileNotFoundError: [Errno 2] No such file or directory: '/nosuch/file'"]),
    "one that led to another": ("try:\n    {}['a']\nexcept KeyError:\n    int('x')",
                                ["KeyError: 'a'", "ValueError: invalid literal for int() with base 10: 'x'"]),
    "one raised from another": ("try:\n    {}['a']\nexcept KeyError as why:\n    raise OSError('so') from why",
                                ["KeyError: 'a'", "OSError: so"]),
    "words around it": ("print('before', flush=True)\nimport atexit\natexit.register(print, 'after')\n1 / 0",
                        ["before", "ZeroDivisionError: division by zero", "after"]),
    "of a syntax": ("compile('a b', 'x', 'exec')", ["SyntaxError: invalid syntax"]),
    "of several lines": ("raise ValueError('one\\ntwo')", ["ValueError: one", "two"]),
}


@pytest.mark.parametrize(("program", "said"), PROGRAMS.values(), ids=PROGRAMS)
@pytest.mark.parametrize("rank", ["", "[rank0]: "])
def test_the_exceptions_alone_stay(program: str, said: list[str], rank: str) -> None:
    """As this Python prints it, and as torch's launcher hands it on."""
    made = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False)
    lines = [rank + line for line in made.stdout.splitlines()]
    assert folded(lines) == [rank + line for line in said]


def test_what_is_no_traceback_stays_as_it_is() -> None:
    lines = ["epoch 1", "  File of three", "", "| a | b |", "+ 1", "Error: disk full"]
    assert folded(lines) == lines
