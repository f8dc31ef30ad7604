"""The adapter spares pyinfra look-ups, and the order of the operations stays what it was."""

from __future__ import annotations

import inspect
from importlib.metadata import entry_points
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api import connectors, util
from pyinfra.api.inventory import Inventory

from qwen_rig.run import adapter


@pytest.fixture(autouse=True)
def _put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, pyinfras in ((util, "stack", inspect.stack), (util, "getframeinfo", inspect.getframeinfo),
                                   (connectors, "entry_points", entry_points)):
        monkeypatch.setattr(module, name, pyinfras)


def test_the_order_of_operations_is_the_same_and_needs_no_source_text(monkeypatch: pytest.MonkeyPatch) -> None:
    state: Any = SimpleNamespace(current_deploy_filename=__file__, current_op_file_number=3)

    orders, read = [], []
    findsource = inspect.findsource
    monkeypatch.setattr(inspect, "findsource", lambda frame: read.append(frame) or findsource(frame))
    for spared in (False, True):
        if spared:
            assert read
            read.clear()
            adapter.spare_lookups()
        orders.append(util.get_operation_order_from_stack(state))
    assert orders[0] == orders[1] and orders[0] and not read


def test_connectors_are_searched_once_however_many_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted(**wanted: Any) -> Any:
        asked.append(wanted)
        return entry_points(**wanted)

    monkeypatch.setattr(connectors, "entry_points", counted)
    adapter.spare_lookups()
    made = Inventory(([f"host-{number}" for number in range(20)], {}))
    assert len(list(made)) == 20 and asked == [{"group": "pyinfra.connectors"}]
