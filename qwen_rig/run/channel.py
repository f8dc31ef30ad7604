"""A channel of a connection, where sshd allows few at once."""

from __future__ import annotations

import time

import paramiko

PAUSES_S = (0.1, 0.2, 0.5, 1, 2, 4)  # sshd counts a session for a moment after its channel is closed (MaxSessions)


def session(transport: paramiko.Transport) -> paramiko.Channel:
    """A new one; where sshd opens none it is asked again a few times. Raises ChannelException where it stays so."""
    for pause in PAUSES_S:
        try:
            return transport.open_session()
        except paramiko.ChannelException:
            time.sleep(pause)
    return transport.open_session()
