"""paramiko's transport for a stranger at the other end: a packet, and what is sent unread, have a largest size.

paramiko believes the host in both: it allocates what a packet's header says (up to 4 GiB), and takes data beyond the
window that it has granted.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar

import paramiko
from paramiko.common import MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA
from paramiko.packet import Packetizer

PACKET = 256 * 1024  # bytes of one packet: OpenSSH's PACKET_MAX_SIZE; RFC 4253 §6.1 asks for 35000
TURN = 32  # packets in a row; then the other hosts have their turn


class Packets(Packetizer):
    """paramiko's reader of packets, which refuses a huge one and lets others in between many."""

    def __init__(self, socket: Any) -> None:
        super().__init__(socket)  # type: ignore[no-untyped-call, unused-ignore]
        self._turn = 0

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        """That many bytes. Raises SSHException for more than any packet may have."""
        if not 0 <= n <= PACKET:
            raise paramiko.SSHException(f"the host sends a packet of {n} bytes")
        return bytes(super().read_all(n, check_rekey))

    def read_message(self) -> Any:
        """The next packet; a socket that always has one would keep all other greenlets waiting."""
        self._turn += 1
        if self._turn % TURN == 0:
            time.sleep(0)
        return super().read_message()


def _within_window(channel: paramiko.Channel) -> None:
    unread = len(channel.in_buffer) + len(channel.in_stderr_buffer)
    if unread > channel.in_window_size + PACKET:
        raise paramiko.SSHException("the host sends more than it was allowed to")


def _feed(channel: Any, message: paramiko.Message) -> None:
    channel._feed(message)
    _within_window(channel)


def _feed_extended(channel: Any, message: paramiko.Message) -> None:
    channel._feed_extended(message)
    _within_window(channel)


class Transport(paramiko.Transport):
    """A transport that ends itself where the host sends what it may not."""

    _channel_handler_table: ClassVar[dict[int, Any]] = {
        **paramiko.Transport._channel_handler_table,  # type: ignore[attr-defined]
        MSG_CHANNEL_DATA: _feed, MSG_CHANNEL_EXTENDED_DATA: _feed_extended,
    }

    def __init__(self, sock: Any, **arguments: Any) -> None:
        super().__init__(sock, packetizer_class=Packets, **arguments)
