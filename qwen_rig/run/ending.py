"""The end of a run: a row per host, caveats, the commands to copy next; and what the ledger keeps of it."""

from __future__ import annotations

from functools import partial
from itertools import chain
from typing import Any

from rich.text import Text

from qwen_rig import ledger, render
from qwen_rig.plan import Plan, Step
from qwen_rig.plan.compare import differences, traits
from qwen_rig.plan.drift import snapshot
from qwen_rig.redaction import redacted
from qwen_rig.ssh import shell_line
from qwen_rig.units import span

from . import adapter
from .adapter import Host, State
from .command_text import with_inventory
from .interrupt import Left
from .memory import Memory, address
from .report import Report, now

FORM = 1  # of the document


def end(state: State | None, report: Report, memory: Memory) -> None:
    """The last words, whichever way pyinfra left."""
    if state is None:
        return
    report.failures(state)
    lost: list[str] = []
    if state.is_executing:
        lost = _keep(state, report, memory)
    elif report.commands:
        report.show_commands(adapter.hosts(state))
    caveats = {name: [f"{name}: {text}" for text in texts] for name, texts in report.caveats.items()}
    if not state.is_executing and not report.cards:
        untold = chain.from_iterable(lines for name, lines in caveats.items() if name not in report.plans)
        for line in render.caveat_lines([*untold, *_unlike(state, report, memory)]):
            report.screens.results.print(line)
        return
    results = report.screens.results
    results.print()
    results.print(render.report(_rows(state, report, memory), [*chain.from_iterable(caveats.values()),
                                                               *_unlike(state, report, memory), *lost]))
    if after := _next(state, report):  # whole lines, however narrow the terminal: they are to be copied
        results.print(Text("\n".join(["Next:", *(f"  {line}" for line in after)])), soft_wrap=True)


def document(state: State, report: Report, memory: Memory, verb: str, asked: dict[str, Any],
             status: int) -> dict[str, Any]:
    """What has come of each host that took part, as docs/run.schema.json has it."""
    hosts = [{"host": name, "outcome": outcome[2:].replace(" ", "_"), "detail": detail,
              "steps": [_done(report, name, step) for step in report.applied[name]],
              "caveats": list(report.caveats.get(name, ())), **report.more.get(name, {})}
             for name, outcome, detail in _rows(state, report, memory)]
    failures = [{"host": name, "what": redacted(card.what), "remedy": card.remedy, "status": card.status,
                 "log": card.log or None} for name, card in report.cards.items()]
    return {"form": FORM, "verb": verb, "made": now(), **asked, "status": status, "hosts": hosts, "failures": failures,
            "next": _next(state, report)}


def _done(report: Report, host: str, step: Step) -> dict[str, Any]:
    took = report.took[host].get(step.component)
    return {"component": step.component, "title": step.title, "action": step.action.value, "was": step.now,
            "wanted": step.wanted, "seconds": None if took is None else round(took, 1)}


def left(state: State, report: Report) -> list[Left]:
    """How each host stands that takes part, for who ends the run in the middle."""
    return [_left(report, host) for host in adapter.taking_part(state) if host.name not in report.cards]


def _left(report: Report, host: Host) -> Left:
    name, plan, now_at = host.name, report.plans.get(host.name), report.running(host.name)
    done = [step.component for step in report.applied[name]]
    ahead = [step.title for step in plan.changes if step.component not in done] if plan else []
    step, sudo = report.jobs.get(name, ("", False))
    return Left(name, tuple(each.title for each in report.applied[name]), now_at.title if now_at else "",
                tuple(title for title in ahead if now_at is None or title != now_at.title), step,
                shell_line(name, adapter.data(host)), sudo)


def cut_short(state: State, report: Report) -> None:
    """Forget how the hosts were left that a step has begun to change: nobody has looked since."""
    for host in adapter.hosts(state):
        if host.name in report.touched:
            ledger.forget(host.name, address(host))


def _won(report: Report, memory: Memory, host: Host) -> list[str]:
    """What a host has now by the steps that were done, and how long all of them took; [] where nobody looked since."""
    if memory.remembered(host) is None:
        return []
    now_at = {step.component: step.won for step in memory.plan(host).steps}
    won = [text for step in report.applied[host.name] if (text := now_at.get(step.component))]
    return [*won, f"in {span(sum(report.took[host.name].values()))}"] if won else []


def _rows(state: State, report: Report, memory: Memory) -> list[tuple[str, str, str]]:
    """(host, outcome, what was done) of each host that took part."""
    rows = []
    for host in adapter.taking_part(state):
        name, done = host.name, report.applied[host.name]
        if name in report.cards:
            rows.append((name, "✗ failed", report.cards[name].what))
        elif name in report.outcomes:
            rows.append((name, *report.outcomes[name]))
        elif state.is_executing:
            won = report.contained(name, partial(_won, report, memory, host)) if done else []
            words = ", ".join(won or [render.past(step) for step in done]) or "nothing to do"
            rows.append((name, "✓ changed" if done else "✓ no change", words))
        elif name in report.plans:
            rows.append((name, "✓ planned", f"{len(report.plans[name].changes)} steps would change it"))
    return rows


def _keep(state: State, report: Report, memory: Memory) -> list[str]:
    """Put on record how each host was left, and what its steps took. A line where this machine takes no record."""
    when, kept = now(), list[str]()
    for host in adapter.hosts(state):
        ctx, where = memory.remembered(host), address(host)
        if host.name in report.cards and (report.applied[host.name] or host.name in report.touched):
            kept.append(ledger.forget(host.name, where))
        elif host.name in report.plans and host.name not in report.cards and ctx \
                and (found := report.contained(host.name, partial(snapshot, ctx))):
            kept.append(ledger.remember(host.name, where, when, found))
    if report.times:
        kept.append(ledger.timed(report.times))
    why = next(filter(None, kept), "")
    return [f"this machine keeps no record of the run ({why}): later plans tell no drift and no times"] if why else []


def _unlike(state: State, report: Report, memory: Memory) -> list[str]:
    """Which hosts are unlike the others, of those whose state is known and which came through."""
    known = {}
    for host in adapter.hosts(state):
        if host.name not in report.cards and (ctx := memory.remembered(host)) is not None:
            found = report.contained(host.name, partial(traits, ctx))
            if found is not None:
                known[host.name] = found
    return differences(known)


def _next(state: State, report: Report) -> list[str]:
    """Commands worth copying after this run, for the first host that came through."""
    for host in adapter.hosts(state):
        plan = report.plans.get(host.name)
        if state.is_executing and plan and host.name not in report.cards \
                and (told := report.contained(host.name, partial(_commands, host, plan))):
            return [with_inventory(line, report.inventory, {host.name}) for line in told]
    return []


def _commands(host: Host, plan: Plan) -> list[str]:
    login = shell_line(host.name, adapter.data(host))
    return [line for step in plan.steps if step.payload for line in step.payload.next_commands(login, host.name)]
