"""The base of every fact here: a probe of marked sections, and one function that reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar, cast

from pyinfra.api.exceptions import FactProcessError as FactProcessError  # for facts of several parts
from pyinfra.api.facts import FactBase

from qwen_rig.facts import _sh

T = TypeVar("T")


class ProbeFact(FactBase[T]):
    """A fact read from a probe's sections. What it can't read is a FactProcessError of one line (never a traceback)."""

    abstract = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.name = cls.name.removeprefix("qwen_rig.")  # pyinfra prints the short name, by which it is asked for

    def read(self, text: Mapping[str, str]) -> T:
        """The fact out of its sections. May raise; subclasses say what they return."""
        raise NotImplementedError

    def process(self, output: Iterable[str]) -> T:
        """What pyinfra calls with the lines of stdout."""
        value, problem = _sh.attempt(lambda: self.read(_sh.sections(output)))
        if problem:
            raise FactProcessError(problem)
        return cast(T, value)
