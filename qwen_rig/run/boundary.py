"""The boundary between pyinfra and a host: no secret goes out in an argument, and what comes in is fit to be shown.

pyinfra puts sudo's password into the command line of the host's shell, asks its user for one where a host prints that
sudo wants it, and prints what hosts say as they say it. It is told otherwise here, for all of its doors.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, NoReturn

import click
from paramiko.file import BufferedFile
from pyinfra.api import QuoteString, StringCommand
from pyinfra.api import output as printing
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.host import Host
from pyinfra.connectors import util

from qwen_rig import hosttext
from qwen_rig.program import load

SECRET = "_qwen_rig_sudo_password"  # in a host's connector data: pyinfra must not know it, it would pass it on
SUDO = load("shell/sudo.sh")
_STYLE = re.compile(r"(\x1b\[[0-9;]*m)")  # what pyinfra colours its own words with


def guard(host: Host) -> None:
    """Put the boundary between pyinfra and one host's connector."""
    connector = host.connector
    for name in ("connect", "put_file", "get_file", "run_shell_command"):
        setattr(connector, name, _fit_errors(getattr(connector, name)))
    setattr(connector, "run_shell_command", _commands(host, connector.run_shell_command))  # noqa: B010  mypy


def settle() -> None:
    """Have pyinfra ask nobody for what a host says, and print only what is fit; for the whole process."""
    util.SUDO_PASSWORD_REQUIRED_LINES = ()  # type: ignore[assignment]
    util.getpass = _ask_nobody
    util.read_buffer = _read_buffer
    if printing.is_output_active():
        echo = printing._echo
        printing.set_echo(lambda message=None, **more: echo(_styled(message), **more))
    logging.getLogger("pyinfra").addFilter(_fit_record)


def tell_in_a_line(tell: Callable[[Exception, str], None]) -> None:
    """Have `tell` hear of whatever ends pyinfra's command line, where that would print a traceback: the exception, and
    the user's file that raised it ("" for pyinfra itself)."""
    from pyinfra_cli import exceptions

    def show(error: Any, file: Any = None) -> None:
        tell(error.exception, str(getattr(error, "filename", "")))

    for kind in (exceptions.UnexpectedExternalError, exceptions.UnexpectedInternalError):
        kind.show = show


def fold(said: str = "Detected changes") -> None:
    """Have pyinfra say nothing of the changes that it detects, as the plan has told them with their reasons; and leave
    operations that changed nothing out of its table of results, unless -v asks for them. Errors stay in both."""
    from pyinfra_cli import cli

    class Click:
        """click, for pyinfra's command line: it doesn't echo the text about that list."""

        def __getattr__(self, name: str) -> Any:
            return getattr(click, name)

        @staticmethod
        def echo(message: Any = None, **more: Any) -> None:
            if not (isinstance(message, str) and message.lstrip().startswith(f"{said} may not")):
                click.echo(message, **more)

    cli.print_meta = lambda state: None
    cli.print_results = _with_fewer_rows(cli.print_results)
    cli.click = Click()
    logging.getLogger("pyinfra").addFilter(lambda record: record.msg != f"--> {said}:")


def _with_fewer_rows(print_results: Callable[[Any], None]) -> Callable[[Any], None]:
    """pyinfra's table of results without the operations that succeeded without a change on each host."""
    from pyinfra_cli import prints

    def changed(row: tuple[Any, Any]) -> bool:
        cells = row[1]
        return isinstance(cells, str) or len(cells) < 4 or cells[2:4] != ["-", "-"]  # of success and error

    def shown(state: Any) -> None:
        if state.print_noop_info:  # -v
            return print_results(state)
        whole: Callable[[Any], None] = prints.print_rows
        prints.print_rows = lambda rows: whole([*rows[:1], *filter(changed, rows[1:-1]), *rows[-1:]])
        try:
            print_results(state)
        finally:
            prints.print_rows = whole

    return shown


def _commands(host: Host, ask: Callable[..., Any]) -> Callable[..., Any]:
    """A connector's run_shell_command, by which sudo gets its password on standard input."""

    def run(command: StringCommand, print_output: bool = False, print_input: bool = False, **arguments: Any) -> Any:
        password = arguments.pop("_sudo_password", None) or host.connector_data.get(SECRET)
        if password and arguments.get("_sudo"):
            command, arguments = _with_password(command, arguments, password)
        good, output = ask(command, print_output=print_output, print_input=print_input, **arguments)
        for row in output.combined_lines:
            row.line = hosttext.line(row.line)
        return good, output

    return run


def _with_password(command: StringCommand, arguments: dict[str, Any], password: str,
                   ) -> tuple[StringCommand, dict[str, Any]]:
    """The command and the arguments that run it under sudo, the password ahead of what the command reads."""
    control: dict[str, Any] = {**util.extract_control_arguments(arguments)}  # type: ignore[arg-type]
    if control.get("_get_pty"):
        raise PyinfraError("a terminal on the host would show sudo's password: leave _get_pty out, or the password")
    user = arguments.pop("_sudo_user", None) or ""
    options = ["-H", *(word for word, name in (("-i", "_use_sudo_login"), ("-E", "_preserve_sudo_env"))
                       if arguments.pop(name, False))]
    for name in ("_sudo", "_sudo_askpass_path"):
        arguments.pop(name, None)
    inner = util.make_unix_command(command, **arguments)
    made = StringCommand("sh", "-c", QuoteString(SUDO.text), "sudo", QuoteString(user), QuoteString(" ".join(options)),
                         inner)
    given = control.get("_stdin") or []
    given = given.readlines() if hasattr(given, "readlines") else given
    stdin = [password, *(given if isinstance(given, (list, tuple)) else [given])]
    return made, {**control, "_stdin": stdin, "_shell_executable": None}


def _fit_errors(act: Callable[..., Any]) -> Callable[..., Any]:
    """The same function; what it raises may hold a host's words (a banner, SFTP's answer)."""

    @wraps(act)
    def acting(*args: Any, **more: Any) -> Any:
        try:
            return act(*args, **more)
        except Exception as error:
            error.args = tuple(hosttext.lines(each) if isinstance(each, str) else each for each in error.args)
            if isinstance(error, OSError) and isinstance(error.strerror, str):
                error.strerror = hosttext.line(error.strerror)
            raise

    return acting


def _ask_nobody(*_: Any, **__: Any) -> NoReturn:
    raise PyinfraError("a host can't have its user asked for a password: name it in the inventory")


def _read_buffer(name: str, io: Iterable[Any], output_queue: Any, print_output: bool = False,
                 print_func: Callable[[str], str] | None = None) -> None:
    """pyinfra's reader of one stream, whose lines are fit to be shown from here on; what isn't UTF-8 too."""
    if isinstance(io, BufferedFile):
        io._flags |= io.FLAG_BINARY  # type: ignore[attr-defined]
    for raw in io:
        text = hosttext.line(raw)
        output_queue.put(util.OutputLine(name, text))
        if print_output:
            printing.echo(print_func(text) if print_func else text, err=True)


def _styled(message: Any) -> Any:
    """What pyinfra prints: its own colours stay, nothing else that a terminal obeys."""
    if not isinstance(message, str):
        return message
    return "".join(each if index % 2 else hosttext.lines(each) for index, each in enumerate(_STYLE.split(message)))


def _fit_record(record: logging.LogRecord) -> bool:
    """A filter that drops nothing: a line of pyinfra's log made fit."""
    if isinstance(record.msg, str):
        record.msg, record.args = _styled(record.msg % record.args if record.args else record.msg), ()
    return True
