"""A channel that sshd refuses, as it counts one that was just closed (MaxSessions 1), is asked for again."""

from __future__ import annotations

from typing import Any

import paramiko
import pytest

from qwen_rig.run import channel


@pytest.mark.parametrize("refusals", [0, 3, len(channel.PAUSES_S), len(channel.PAUSES_S) + 1])
def test_a_refused_channel_is_asked_for_again(refusals: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left, slept = [paramiko.ChannelException(2, "Connect failed")] * refusals, list[float]()
    monkeypatch.setattr(channel.time, "sleep", slept.append)

    class Transport:
        def open_session(self) -> str:
            if left:
                raise left.pop()
            return "a channel"

    transport: Any = Transport()
    if refusals > len(channel.PAUSES_S):
        with pytest.raises(paramiko.ChannelException):
            channel.session(transport)
    else:
        assert channel.session(transport) == "a channel"  # type: ignore[comparison-overlap]
    assert slept == list(channel.PAUSES_S[:refusals])
