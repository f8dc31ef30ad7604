"""What a host does that ends the work on it: it is too slow, sends too much, or runs no command. Pure.

All are what pyinfra expects of a connection that fails, so that a user's own operations and facts fail well, too.
"""

from __future__ import annotations


class Overdue(TimeoutError):
    """A host didn't do in time what it was asked. Another try may find it better: the connection may be dead."""


class Hopeless(OSError):
    """What another try would bring again."""


class Flooded(Hopeless):
    """A host sent more than it may; its connection was closed."""


class Unanswered(Hopeless):
    """A host's login shell ended without having run the command."""
