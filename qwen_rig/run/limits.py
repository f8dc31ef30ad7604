"""What a host does that ends the work on it: it is too slow, or sends too much. Pure.

Both are what pyinfra expects of a connection that fails, so that a user's own operations and facts fail well, too.
"""

from __future__ import annotations


class Overdue(TimeoutError):
    """A host didn't do in time what it was asked. Another try may find it better: the connection may be dead."""


class Flooded(OSError):
    """A host sent more than it may; its connection was closed. Another try would bring the same."""
