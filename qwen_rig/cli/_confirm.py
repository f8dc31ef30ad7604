"""A question in proportion to what is about to happen: typed words, so that no habit answers it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from qwen_rig import say
from qwen_rig.errors import RigError
from qwen_rig.plan.model import Plan

NAMED = 3  # reboots whose hosts are to be typed; of more, their number


def question(plans: Sequence[Plan]) -> tuple[str, str]:
    """(what is asked, the answer that means yes) for these plans; ("", "") where nothing would change."""
    changing = [plan for plan in plans if plan.changes and not plan.refusals]
    if not changing:
        return "", ""
    reboots = [plan.host for plan in changing if plan.reboots]
    if not reboots:
        hosts = ", ".join(plan.host for plan in changing[:NAMED]) + (" …" if len(changing) > NAMED else "")
        return f"Change {hosts}? Type yes", "yes"
    if len(reboots) > NAMED:
        answer = f"{len(reboots)} hosts"
        some = ", ".join(reboots[:NAMED])
        return f"{len(reboots)} hosts will be rebooted, {some} … among them. Type {answer!r}", answer
    if len(reboots) == 1:
        return f"{reboots[0]} will be rebooted. Type its name", reboots[0]
    return f"{' and '.join(reboots)} will be rebooted. Type their names", " ".join(reboots)


def confirmed(asked: str, answer: str) -> None:
    """Ask on the terminal. Raises RigError where the answer is another, or there is no terminal to ask on."""
    if not asked:
        return
    from select import select

    if not sys.stdin or not sys.stdin.isatty():
        raise RigError("nothing was changed: there is no terminal to ask on", "", "--yes goes on without being asked")
    say.err(f"{asked}: ", end="")
    select([sys.stdin], [], [])  # gevent's, by now: the connections are kept alive while somebody thinks
    given = sys.stdin.readline()
    if " ".join(given.replace(",", " ").split()) != answer:
        raise RigError("nothing was changed: the answer was not yes")
