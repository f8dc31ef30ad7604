"""Frozen dataclasses that are quick to make: what compares, hashes and shows them is compiled once, not in each class.

A run loads some 170 of them, and the standard library compiles six functions for each: a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

T = TypeVar("T")

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:
    def dataclass_transform(**_: Any) -> Callable[[T], T]:
        """typing's, for type checkers alone."""
        return lambda function: function


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    """The class as `dataclass(frozen=True)` makes it: the same fields, comparison, hash and text."""
    for method in (__eq__, __hash__, __repr__):
        if method.__name__ not in vars(cls):
            setattr(cls, method.__name__, method)
    return dataclass(frozen=True, eq=False, repr=False)(cls)


def _compared(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, each.name) for each in self.__dataclass_fields__.values() if each.compare)


def __eq__(self: Any, other: object) -> Any:
    return _compared(self) == _compared(other) if other.__class__ is self.__class__ else NotImplemented


def __hash__(self: Any) -> int:
    return hash(_compared(self))


def __repr__(self: Any) -> str:
    shown = (f"{each.name}={getattr(self, each.name)!r}" for each in self.__dataclass_fields__.values() if each.repr)
    return f"{self.__class__.__qualname__}({', '.join(shown)})"
