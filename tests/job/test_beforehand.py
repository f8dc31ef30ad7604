"""A probe that was sent as soon as its host was reached is asked for once."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from qwen_rig import knobs
from qwen_rig.run import adapter, beforehand


def test_the_answer_of_a_probe_sent_ahead_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    host: Any = SimpleNamespace(name="lab-01")
    wanted = knobs.read({}, "test")

    def fact(host: Any, kind: type[Any], **question: Any) -> dict[str, Any]:
        asked.append("answered")
        return {"env": question["env_name"], "files": question["files"], "number": len(asked)}

    def begun(host: Any, ask: Callable[[], Any]) -> Callable[[], Any]:
        asked.append("sent")
        return ask

    monkeypatch.setattr(adapter, "fact", fact)
    monkeypatch.setattr(adapter, "begun", begun)
    monkeypatch.setattr(beforehand, "knobs", lambda host: wanted)
    probes = beforehand.Probes(lambda: ["/etc/x"])
    probes.send(host)
    assert asked == ["sent"]
    for number in (2, 3):  # the second time it is asked anew, as the host may be another
        assert probes.answer(host, wanted) == {"env": "qwen-train", "files": ("/etc/x",), "number": number}
    assert asked == ["sent", "answered", "answered"]
