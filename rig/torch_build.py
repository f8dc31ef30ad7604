"""Whether a stack's CUDA and its torch build can exist, by the tables of rules.yml. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import RigError
from .rules import load_rules

if TYPE_CHECKING:
    from .stack import Stack


def check(stack: Stack) -> None:
    """Raises RigError where the rules know no driver for the stack's CUDA."""
    rules = load_rules()
    if stack.cuda not in rules.cuda:
        raise RigError(f"{'torch.' if stack.torch else ''}cuda can't be {stack.cuda!r}: no driver is known for it",
                       str(stack.path), f"it takes {', '.join(rules.cuda)}")
