"""Operations that end no other host's run: whatever our command raises on a host is that host's card.

pyinfra lets an exception out of a host's operation end the run of all, and prints a traceback for a function's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from functools import wraps
from typing import Any, ParamSpec

from qwen_rig import project
from qwen_rig.errors import RigError

from . import adapter
from .adapter import FunctionCommand, Host, State, StringCommand
from .run import Run

P = ParamSpec("P")
Command = StringCommand | FunctionCommand


def operation(is_idempotent: bool = True) -> Callable[[Callable[P, Iterator[Command]]], Callable[..., Any]]:
    """pyinfra's decorator for an operation, contained, and done as the SSH user unless it asks for root (_sudo); the
    only one that this package uses."""

    def decorate(function: Callable[P, Iterator[Command]]) -> Callable[..., Any]:
        @wraps(function)
        def commands(*args: P.args, **kwargs: P.kwargs) -> Generator[Command, None, None]:
            return _contained(lambda: function(*args, **kwargs))

        made: Callable[..., Any] = adapter.operation(is_idempotent=is_idempotent)(commands)

        @wraps(made)
        def as_user(*args: Any, **kwargs: Any) -> Any:
            return made(*args, **{**adapter.as_user(), **kwargs})

        return as_user

    return decorate


def entry(declare: Callable[[], None]) -> Callable[[], None]:
    """What a file of deploy/ declares for the current host, contained: a host on which that raises is left out."""

    @wraps(declare)
    def declared() -> None:
        host = adapter.current_host()
        if adapter.attached(host.state) is None:  # nothing was looked at before this host was dialled
            try:
                project.refuse_unread()
            except RigError as error:
                raise adapter.PyinfraError(str(error)) from None

        def whole() -> bool:
            declare()
            return True

        if not Run.of(host).report.contained(host.name, whole):
            adapter.leave_out(host)

    return declared


def _contained(make: Callable[[], Iterator[Command]]) -> Generator[Command, None, None]:
    """What a generator of commands yields, and last a failure where it raises."""
    host = adapter.current_host()
    left: list[Iterator[Command]] = []
    while True:
        command = Run.of(host).report.contained(host.name, lambda: _next(left, make))
        if command is None:
            yield FunctionCommand(_failed, (), {})  # the card is written
            return
        if command is _END:
            return
        yield Contained(command) if isinstance(command, FunctionCommand) else command


def _next(left: list[Iterator[Command]], make: Callable[[], Iterator[Command]]) -> Command:
    if not left:
        left.append(iter(make()))
    return next(left[0], _END)


def _failed(state: State, host: Host) -> bool:
    """Fail this host alone: its card says why."""
    return False


class Contained(FunctionCommand):
    """A function command whose exception is its host's card."""

    def __init__(self, inner: FunctionCommand) -> None:
        super().__init__(inner.function, inner.args, inner.kwargs, **inner.connector_arguments)
        self.inner = inner
        if job := getattr(inner, "job", None):
            self.job = job

    def __repr__(self) -> str:
        return repr(self.inner)

    def execute(self, state: State, host: Host, connector_arguments: Any) -> bool:
        done = Run.of(host).report.contained(host.name, lambda: self.inner.execute(state, host, connector_arguments))
        return bool(done)


_END = FunctionCommand(_failed, (), {})
