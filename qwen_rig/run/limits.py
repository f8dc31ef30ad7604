"""What a host does that ends the work on it: it is too slow, or sends too much. Pure."""

from __future__ import annotations


class Overdue(Exception):
    """A host didn't do in time what it was asked. Another try may find it better: the connection may be dead."""


class Flooded(Exception):
    """A host sent more than it may; its connection was closed. Another try would bring the same."""
