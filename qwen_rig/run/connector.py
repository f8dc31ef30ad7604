"""pyinfra's SSH connector for a stranger at the other end: every wait has an end, every answer and file a size.

pyinfra limits the reading of output alone, and only in time: opening a channel, writing, the exit status, a file and a
login may take for ever, and an answer is kept whatever its size.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, TypeVar, cast

import gevent  # type: ignore[import-untyped]
import paramiko
from gevent.event import Event  # type: ignore[import-untyped]
from pyinfra.api import StringCommand
from pyinfra.api.exceptions import ConnectError
from pyinfra.api.output import echo
from pyinfra.api.state import StateStage
from pyinfra.api.util import get_file_io
from pyinfra.connectors.scp import SCPClient
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.util import (
    CommandOutput,
    OutputLine,
    execute_command_with_sudo_retry,
    make_unix_command_for_host,
)

from qwen_rig import hosttext
from qwen_rig.catalog.bounds import load_bounds
from qwen_rig.program import load
from qwen_rig.units import size, span

from . import channel as channels
from .limits import Flooded, Overdue, Unanswered

T = TypeVar("T")
FRAME = load("shell/frame.sh").text
SHOWN = 200  # letters of what a host printed in place of an answer
CHUNK, AT_ONCE = 65536, 64  # AT_ONCE: parts of a file that are asked for before the first has come
SFTP_MESSAGE = 256 * 1024  # bytes: OpenSSH's SFTP_MAX_MSG_LENGTH
CLOSE_S = 5  # for a farewell


@contextmanager
def within(seconds: float | None, what: str) -> Iterator[None]:
    """Raise Overdue out of the block once it has taken so long, whatever it waits for; None: never."""
    timer = gevent.Timeout.start_new(seconds)
    try:
        yield
    except gevent.Timeout as hit:
        if hit is not timer:
            raise
        raise Overdue(f"{what} within {span(seconds or 0)}") from None
    finally:
        timer.close()


class BoundedSSH(SSHConnector):
    """A host's connection. Raises Overdue and Flooded; else what pyinfra's own raises where a connection breaks."""

    _files: Any = None
    _sent = Event()  # set when a command and all that it reads are sent
    failure: Exception | None = None  # of the last command: pyinfra's facts keep to themselves why there is nothing

    def connect(self) -> None:
        """Connect, or raise ConnectError: in time, and whatever the host's words make paramiko raise."""
        try:
            self.make_paramiko_kwargs()  # asks for a key's passphrase, which takes as long as a person takes
            seconds = load_bounds().connect.seconds * (1 + int(self.data["ssh_connect_retries"] or 0))
            with within(seconds, "it let nobody in"):
                super().connect()
        except ConnectError:
            raise
        except Overdue as error:
            self._hang_up()
            raise ConnectError(f"Could not connect ({error})") from None
        except Exception as error:
            self._hang_up()
            raise ConnectError(f"Could not connect ({type(error).__name__}: {error})") from error

    def disconnect(self) -> None:
        """End the file transfer, all that pyinfra's own ends here."""
        self._drop_files()

    # -- commands ----------------------------------------------------------------------------------------

    def run_shell_command(self, command: StringCommand, print_output: bool = False, print_input: bool = False,
                          **arguments: Any) -> tuple[bool, CommandOutput]:
        """As pyinfra's, where `_timeout` is for the whole command: preparing sudo, channel, input, output, status."""
        pty, stdin = arguments.pop("_get_pty", False), arguments.pop("_stdin", None)
        seconds = arguments.pop("_timeout", None) or self._without_limit()
        good = arguments.pop("_success_exit_codes", None) or [0]
        tell = self._echo if print_output else None

        def execute() -> tuple[int, CommandOutput]:
            with within(seconds, "its answer did not come to an end"):
                made = make_unix_command_for_host(self.state, self.host, command, **arguments)
                if print_input:
                    echo(f"{self.host.print_prefix}>>> {made}", err=True)
                mark = f"@{secrets.token_hex(8)}"
                framed = shlex.join(["sh", "-c", FRAME, "frame", mark, made.get_raw_value()])
                return self._ask(framed, mark, _input(stdin), bool(pty), tell)

        self.failure = None
        try:
            code, output = execute_command_with_sudo_retry(self.host, arguments, execute)  # type: ignore[arg-type]
        except Exception as error:
            self.failure = error
            raise
        return code in good, output

    def _without_limit(self) -> int | None:
        """Seconds for a command that has no limit: a user's own may take for ever, pyinfra's tidying not."""
        return load_bounds().command.seconds if self.state.current_stage == StateStage.Disconnect else None

    def _ask(self, command: str, mark: str, stdin: bytes, pty: bool, tell: Callable[[str], None] | None,
             ) -> tuple[int, CommandOutput]:
        """Run a command that is framed by a mark in a channel of its own: exit status, output. That channel is closed,
        however this ends."""
        channel = channels.session(self._transport())
        try:
            if pty:
                channel.get_pty()
            channel.exec_command(command)
            output = _Output(channel, mark, tell)
            try:
                channel.sendall(stdin)
                channel.shutdown_write()
            except OSError:
                if not channel.closed:  # else it ended before it had read all: its words and its status count
                    raise
            self._sent.set()
            lines = output.read()
            code = channel.recv_exit_status()
            if output.frame.begun or not self._transport().is_active():
                return output.frame.code if output.frame.code is not None else code, CommandOutput(lines)
            said = " ".join(line.line for line in [*output.frame.noise, *lines])
            raise Unanswered(f"its login shell {'was killed' if code < 0 else f'ended with {code}'} and ran no "
                             f"command"
                             f"{f'; it printed: {said[:SHOWN]}' if said else ''}")
        except Flooded:
            self._hang_up()
            raise
        finally:
            if not channel.closed:
                self._farewell(channel.close)

    def _echo(self, line: str) -> None:
        echo(f"{self.host.print_prefix}{line}", err=True)

    def begun(self, ask: Callable[[], T]) -> Callable[[], T]:
        """Begin to ask, by one command that is sent when this returns; what it returns waits for what `ask` does."""
        self._sent = Event()
        asking = gevent.spawn(_outcome, ask)
        gevent.wait([asking, self._sent], count=1)

        def answer() -> T:
            made, error = asking.get()
            if error is not None:
                raise error
            return cast(T, made)

        return answer

    # -- files -------------------------------------------------------------------------------------------

    def get_file_transfer_connection(self) -> Any:
        """The SFTP (or SCP) of this connection; made anew after a transfer that failed."""
        if self._files is None:
            if self.data["ssh_file_transfer_protocol"] == "scp":
                self._files = SCPClient(self._transport())
            else:
                self._files = _Files.from_transport(self._transport())
        return self._files

    def _get_file(self, remote_filename: str, filename_or_io: Any) -> None:
        with get_file_io(filename_or_io, "wb") as file, self._transfer(file) as (files, paced):
            files.getfo(remote_filename, paced)

    def _put_file(self, filename_or_io: Any, remote_location: str) -> None:
        with get_file_io(filename_or_io) as file, self._transfer(file) as (files, paced):
            files.putfo(paced, remote_location)

    @contextmanager
    def _transfer(self, file: IO[bytes]) -> Iterator[tuple[Any, _Paced]]:
        """The file with its bounds, and what transfers it. The channel of one that failed isn't used again."""
        paced = _Paced(file)
        try:
            with paced.watched():
                yield self.get_file_transfer_connection(), paced
        except BaseException as error:
            self._drop_files()
            if isinstance(error, Flooded):
                self._hang_up()
            if isinstance(error, Exception) and not isinstance(error, (OSError, EOFError, paramiko.SSHException)):
                raise paramiko.SSHException(f"{type(error).__name__}: {error}") from error  # SFTPError and the like
            raise

    def _drop_files(self) -> None:
        files, self._files = self._files, None
        if files is not None:
            self._farewell(files.close)

    # -- the connection ----------------------------------------------------------------------------------

    def _transport(self) -> paramiko.Transport:
        found = self.client.get_transport() if self.client else None
        if found is None:
            raise paramiko.SSHException("connection lost")
        return found

    def _farewell(self, close: Callable[[], Any]) -> None:
        """Close something; a host that doesn't even take that is hung up on."""
        try:
            with within(CLOSE_S, "no farewell came"):
                close()
        except (Overdue, OSError, EOFError, paramiko.SSHException):
            self._hang_up()

    def _hang_up(self) -> None:
        """End the connection without asking the host."""
        found = self.client.get_transport() if self.client else None
        if found is not None:
            found.active = False
            found.packetizer.close()


def _outcome(act: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """What it returns, what it raises: a greenlet that raises prints a traceback."""
    try:
        return act(), None
    except Exception as error:
        return None, error


def _input(stdin: Any) -> bytes:
    """What a command reads, as pyinfra has it: a text, or several; each ends in a newline."""
    if stdin is None:
        return b""
    texts = stdin.readlines() if hasattr(stdin, "readlines") else stdin
    texts = texts if isinstance(texts, (list, tuple)) else [texts]
    return "".join(text if text.endswith("\n") else f"{text}\n" for text in texts).encode()


class _Frame:
    """What shell/frame.sh marks of standard output as the command's own: `feed` gives these lines, `noise` keeps the
    first of the others. `begun`: the command was run; `code`: how it ended, None before that."""

    def __init__(self, mark: str) -> None:
        self._mark, self._held = mark, False  # an empty line is held back: the mark's own line begins with a newline
        self.begun, self.code = False, None  # type: bool, int | None
        self.noise: list[OutputLine] = []

    def feed(self, text: str) -> list[str]:
        if not self.begun or self.code is not None:
            self.begun = self.begun or text == self._mark
            if not self.begun and text and len(self.noise) < 5:
                self.noise.append(OutputLine("stdout", text))
            return []
        first, _, code = text.partition(" ")
        if first == self._mark and code.isdecimal():
            self.code = int(code)
            return []
        held, self._held = self._held, text == ""
        return [""] * held + [text] * (not self._held)


class _Output:
    """What a channel prints, line by line as it comes, while it is within bounds."""

    def __init__(self, channel: paramiko.Channel, mark: str, tell: Callable[[str], None] | None) -> None:
        self._channel, self._tell, self._bounds, self.frame = channel, tell, load_bounds().answer, _Frame(mark)
        self._lines: list[OutputLine] = []
        self._readers = [gevent.spawn(self._read, name, receive)
                         for name, receive in (("stdout", channel.recv), ("stderr", channel.recv_stderr))]

    def read(self) -> list[OutputLine]:
        """All lines, once both streams are at their end. Raises Flooded."""
        try:
            gevent.joinall(self._readers, raise_error=False)
            for reader in self._readers:
                if reader.value is not None:
                    raise reader.value
            return self._lines
        finally:
            gevent.killall(self._readers, block=False)

    def _read(self, name: str, receive: Callable[[int], bytes]) -> Exception | None:
        """Read one stream to its end; the exception where that fails, as a greenlet prints what it raises."""
        rest, got = bytearray(), 0
        try:
            while chunk := receive(CHUNK):
                got += len(chunk)
                rest += chunk
                if b"\n" in chunk:
                    *whole, last = bytes(rest).split(b"\n")
                    rest = bytearray(last)
                    self._add(name, whole)
                if got > self._bounds.bytes:
                    raise Flooded(f"its answer is longer than {size(self._bounds.bytes)}")
            if rest:
                self._add(name, [bytes(rest)])
        except Exception as error:
            self._channel.close()  # the other stream ends with it
            return error
        return None

    def _add(self, name: str, lines: list[bytes]) -> None:
        if len(self._lines) + len(lines) > self._bounds.lines:
            raise Flooded(f"its answer has more than {self._bounds.lines} lines")
        for line in lines:
            text = hosttext.line(line)  # told at once, before the boundary sees the whole answer
            for own in self.frame.feed(text) if name == "stdout" else [text]:
                self._lines.append(OutputLine(name, own))
                if self._tell:
                    self._tell(own)


class _Paced:
    """A local file that a transfer writes to (or reads from): its size is bounded, and so is the time that a part may
    take."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._bounds = file, load_bounds().file
        self._bytes = self._part = 0
        self._timer: Any = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While the block runs: Overdue where less has come than the least pace brings."""
        self._wind()
        try:
            yield
        except gevent.Timeout as hit:
            if hit is not self._timer:
                raise
            raise Overdue(f"the file stalls: {size(self._part)} came in the last {span(self._bounds.grace_seconds)}, "
                          f"{size(self._bytes)} in all") from None
        finally:
            self._timer.close()

    def write(self, data: bytes) -> int:
        self._count(len(data))
        return self._file.write(data)

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._count(len(data))
        return data

    def flush(self) -> None:
        self._file.flush()

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, at: int, whence: int = 0) -> int:
        return self._file.seek(at, whence)

    def _count(self, more: int) -> None:
        self._bytes, self._part = self._bytes + more, self._part + more
        if self._bytes > self._bounds.bytes:
            raise Flooded(f"the file is longer than {size(self._bounds.bytes)}")
        if self._part >= self._bounds.least_bytes_s * self._bounds.grace_seconds:
            self._wind()

    def _wind(self) -> None:
        """Begin another part: the timer is set to when it must be here."""
        if self._timer is not None:
            self._timer.close()
        self._part, self._timer = 0, gevent.Timeout.start_new(self._bounds.grace_seconds)


class _Files(paramiko.SFTPClient):
    """paramiko's SFTP, which believes no size that a host states."""

    def _read_all(self, n: int) -> bytes:
        if n > SFTP_MESSAGE:
            raise paramiko.SFTPError(f"the host sends a message of {n} bytes")
        return bytes(super()._read_all(n))  # type: ignore[misc]

    def getfo(self, remotepath: Any, fl: Any, *_: Any, **__: Any) -> int:
        """Copy a host's file into an open one, and say how many bytes it was."""
        most, got = load_bounds().file.bytes, 0
        file = self.open(remotepath, "rb")  # closed only where all went well: a closing waits for the host
        said = file.stat().st_size or 0
        if said > most:
            raise Flooded(f"the file is longer than {size(most)}")
        file.prefetch(said, AT_ONCE)
        while chunk := file.read(CHUNK // 2):
            got += len(chunk)
            fl.write(chunk)
        file.close()
        if got != said:
            raise OSError(f"the file came with {got} bytes of {said}")
        return got
