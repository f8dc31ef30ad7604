"""All steps of deploy/5090.py for the current host: each host is probed, planned and shown before any is changed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module

from qwen_rig.deploy import ORDER
from qwen_rig.deploy.planning import planners
from qwen_rig.deploy.sources.apply import sources
from qwen_rig.run import adapter
from qwen_rig.run.contain import entry
from qwen_rig.run.converge import Applier, converge
from qwen_rig.run.preview import accepted


@entry
def provision() -> None:
    """Declare the steps in their order; none where this host is refused, and its card says why."""
    steps = _steps()
    if not accepted():
        return
    sources()
    for name in adapter.current_host().loop(ORDER):  # pyinfra orders operations by line, and by place in its own loops
        converge(name, steps[name])


@cache
def _steps() -> Mapping[str, Applier]:
    """What does each step; loaded, as the planners are, while the hosts are at work on their probes."""
    planners()
    return {name: import_module(f"qwen_rig.deploy.{name}.apply").APPLIER for name in ORDER}
