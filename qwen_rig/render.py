"""How plans, cards and reports look: rich tables on a terminal, plain lines elsewhere, one source of words for both."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console as AnyConsole
from rich.console import ConsoleOptions, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from qwen_rig import exits, hosttext, say
from qwen_rig.catalog.stack import Stack
from qwen_rig.frozen import frozen
from qwen_rig.plan.explain import Explanation
from qwen_rig.plan.files import unified
from qwen_rig.plan.model import Action, FileChange, Plan, Step
from qwen_rig.units import size

SYMBOL = {Action.ADD: "+", Action.CHANGE: "~", Action.REBOOT: "⟳", Action.NONE: "·", Action.NA: "·"}
STYLE = {Action.ADD: "green", Action.CHANGE: "yellow", Action.REBOOT: "magenta",
         Action.NONE: "dim", Action.NA: "dim"}
DRIFT_SHOWN = 12  # rows; a whole env that somebody upgraded has a hundred
PAST = {Action.ADD: "added", Action.CHANGE: "changed", Action.REBOOT: "rebooted"}


def past(step: Step) -> str:
    """`added NVIDIA driver`: a step that was done."""
    return PAST[step.action] if step.action is Action.REBOOT else f"{PAST[step.action]} {step.title}"


@frozen
class Card:
    """One host's failure: what happened, what the host said, the likely cause, one next thing to do.

    `status` is what a run that ends so exits with (qwen_rig/exits.py); pyinfra's own command line knows 1 alone.
    """

    host: str
    what: str
    remedy: str
    command: str = ""
    tail: tuple[str, ...] = ()
    log: str = ""
    status: int = exits.FAILED
    cause: str = ""


NARROWEST = 20  # columns: in fewer a table has no words


class Console(AnyConsole):
    """rich's console, which takes no text for markup and lets no control character of a text through: what a terminal
    obeys is rich's own alone."""

    def __init__(self, **more: Any) -> None:
        # rich reads a number in COLUMNS and LINES as Python's isdigit() does, which takes ² for one.
        said = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")
                or re.fullmatch("[0-9]{2,4}", value)}
        super().__init__(markup=False, emoji=False, highlight=False, _environ=said, **more)

    def on_broken_pipe(self) -> None:
        """Say nothing more: who reads has left (`| head`, q in less), and the run goes on."""
        self.quiet = True
        say.into_nothing(self.file)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """rich's segments; what is fit already (run/boundary.py) stays as it is."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(hosttext.shown(segment.text), segment.style)


def console() -> Console:
    """Standard error, as all of pyinfra's words for people; 100 columns where it is no terminal (logs, CI)."""
    plain = Console(stderr=True)
    return plain if plain.is_terminal else Console(stderr=True, width=_columns())


def out() -> Console:
    """Standard output, for what was asked to be told; as wide as console()."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=_columns())


def _columns() -> int:
    """How wide $COLUMNS says that a terminal is, where that can be; else 100."""
    said = os.environ.get("COLUMNS", "")
    return int(said) if re.fullmatch("[0-9]{2,4}", said) and int(said) >= NARROWEST else 100


def plan_table(plans: Sequence[Plan], verbose: bool = False) -> RenderableType:
    """One block a host: drift, then changes line by line, what is right collapsed into one; then what it all costs."""
    blocks: list[RenderableType] = []
    for plan in plans:
        blocks.append(Text.assemble((plan.host, "bold"), "  ", plan.headline))
        blocks += [Padding(row, (0, 2)) for row in drift(plan, verbose)]
        if plan.refusals:
            blocks.append(Padding(Text("refused: see its card below; nothing on it is touched", style="red"), (0, 2)))
            continue
        shown = [step for step in plan.steps if step.action.changes or verbose]
        if shown:
            blocks.append(Padding(_steps(shown), (0, 2)))
        for step in plan.changes:
            blocks += [Padding(Text(f"✗ {problem}", style="red"), (0, 5)) for problem in step.problems]
            # A file that is new is shown on request; one whose text goes is always shown.
            blocks += [Padding(diff(change), (0, 5)) for change in step.files if verbose or change.before is not None]
        blocks.append(Padding(Text(_collapsed(plan), style="dim"), (0, 2)))
        blocks += [Padding(Text(f"! {caveat}", style="yellow"), (0, 2)) for caveat in plan.caveats]
    blocks.append(Text(cost(plans), style="bold"))
    return Group(*blocks)


def drift(plan: Plan, verbose: bool = False) -> list[RenderableType]:
    """What has changed since the last apply, not by us; [] where nothing has, or there was none."""
    if not plan.drift:
        return []
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    shown = plan.drift if verbose else plan.drift[:DRIFT_SHOWN]
    for row in shown:
        table.add_row(Text("≠", style="magenta"), Text(row.what), Text(f"{row.was} → {row.now}"))
    blocks: list[RenderableType] = [
        Text(f"Changed since the last apply from here ({moment(plan.since)}), not by it:", style="magenta"), table]
    if len(shown) < len(plan.drift):
        blocks.append(Text(f"  and {len(plan.drift) - len(shown)} more: -v shows them", style="dim"))
    return blocks + [Padding(diff(row.file), (0, 3)) for row in shown if row.file and verbose]


def changed(plan: Plan) -> RenderableType:
    """A host's drift in full, with the files' diffs; or that there is none, or no record to compare with."""
    head = Text.assemble((plan.host, "bold"), "  ")
    if plan.since is None:
        return head.append("no apply from here is on record: nothing to compare with")
    if not plan.drift:
        return head.append(f"as the last apply left it ({moment(plan.since)})")
    return Group(head.append(plan.headline), *(Padding(row, (0, 2)) for row in drift(plan, verbose=True)))


def explanation(found: Explanation) -> RenderableType:
    """Facts, rules, decision; each with its source beside it."""
    facts, rules = (Table(box=None, show_header=False, padding=(0, 2, 0, 2)) for _ in range(2))
    for fact in found.facts:
        facts.add_row(Text(fact.name), Text(fact.value), Text(fact.read_by, style="dim"))
    for rule in found.rules:
        rules.add_row(Text(rule.text), Text(rule.source, style="dim"))
    blocks: list[RenderableType] = [Text(f"{found.host}: facts", style="bold"), facts,
                                    Text("Rules", style="bold"), rules, Text("Decision", style="bold")]
    if found.step:
        step = found.step
        blocks += [Padding(_steps([step]), (0, 2)), *(Padding(Text(f"✗ {p}", style="red"), (0, 5))
                                                      for p in step.problems)]
    blocks += [Padding(Text(f"refused: {refusal}", style="red"), (0, 2)) for refusal in found.refusals]
    return Group(*blocks)


def moment(when: str | None) -> str:
    """`2026-11-24 10:02 UTC` of an ISO 8601 time in UTC."""
    return f"{when[:10]} {when[11:16]} UTC" if when else "never"


def diff(change: FileChange) -> Text:
    """A file's change as `diff -u` prints it; never told by colour alone."""
    styles = {"+": "green", "-": "red", "@": "cyan"}
    text = Text()
    for line in unified(change).splitlines(keepends=True):
        text.append(line, style=styles.get(line[0], "dim"))
    text.rstrip()
    return text


def commands(host: str, shown: Sequence[tuple[str, Sequence[str]]]) -> Text:
    """What each step would run, as `(title, commands)`; to be printed unwrapped, so that it can be copied."""
    text = Text(f"Commands on {host}\n", style="bold")
    for title, lines in shown:
        text.append(f"# {title}\n", style="not bold")
        text.append("".join(f"{line}\n" for line in lines), style="not bold dim")
    return text


def notes(builds: Iterable[tuple[Stack, Plan]]) -> list[str]:
    """What must be said of the stacks that these plans install, each line once: whether it is a stand-in, where it
    leaves the guide, with the reason, and what is known of its versions, with the source."""
    lines: dict[str, None] = {}
    for stack, plan in builds:
        if stack.standin:
            lines[f"Stack {stack.name} is {stack.summary}"] = None
        for row in plan.deviations:
            lines[f"! {row.ours} instead of the guide's {row.guide.removesuffix(', unpinned')}: {row.why}"] = None
        for advisory in plan.advisories:
            lines[f"! {advisory.text} [{advisory.source}]"] = None
    return list(lines)


def _steps(steps: Iterable[Step]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for column in ("", "component", "now → wanted"):
        table.add_column(column, no_wrap=column != "now → wanted", overflow="fold")
    table.add_column("why", overflow="fold", ratio=1, style="dim")
    for step in steps:
        same = step.now == step.wanted
        change = step.now if same else f"{step.now} → {step.wanted}"
        change += f" (known after {'reboot' if step.known_after == 'reboot' else 'the ' + step.known_after})" \
            if step.known_after else ""
        symbol = Text(SYMBOL[step.action], style=STYLE[step.action])
        table.add_row(symbol, Text(step.title), Text(change), Text(step.why))
    return table


def _collapsed(plan: Plan) -> str:
    right = [step for step in plan.steps if step.action is Action.NONE]
    other = [f"{step.title}: n/a — {step.why}" for step in plan.steps if step.action is Action.NA]
    said = [f"· {len(right)} of {len(plan.steps)} steps already right: {', '.join(step.title for step in right)}"
            if right else f"· none of {len(plan.steps)} steps is right already"]
    return "\n".join(said + [f"· {line}" for line in other])


def cost(plans: Sequence[Plan]) -> str:
    """The plan's last line: how much changes, on how many hosts, and what must be fetched."""
    live = [plan for plan in plans if not plan.refusals]
    steps = [step for plan in live for step in plan.changes]
    refused = len(plans) - len(live)
    tail = f" · {refused} host{'s' * (refused > 1)} refused" if refused else ""
    if not steps:
        names = ", ".join(plan.host for plan in live)
        match = "matches" if len(live) == 1 else "match"
        return (f"No changes. {names} {match}." if live else "Nothing can be done.") + tail
    said = []
    for action, word in ((Action.ADD, "to add"), (Action.CHANGE, "to change")):
        if n := sum(step.action is action for step in steps):
            said.append(f"{n} {word}")
    if n := sum(step.action is Action.REBOOT for step in steps):
        said.append(f"{n} reboot{'s' * (n > 1)}")
    hosts = sum(bool(plan.changes) for plan in live)
    return f"Plan: {', '.join(said)} · {hosts} host{'s' * (hosts > 1)}{_fetched(steps)}{_time(live)}{tail}"


def _fetched(steps: Sequence[Step]) -> str:
    """` · ↓ 4.5 GB and 2 steps of unknown size`; '' where nothing is fetched."""
    known, unknown = sum(step.bytes or 0 for step in steps), sum(step.bytes is None for step in steps)
    said = [size(known)] if known else []
    if unknown:
        said.append(f"{unknown} step{'s' * (unknown > 1)} of unknown size")
    return f" · ↓ {' and '.join(said)}" if said else ""


def _time(plans: Sequence[Plan]) -> str:
    """` · ~6 min` by recorded runs; '' where no step was ever timed. Hosts go side by side, step by step."""
    slowest: dict[str, float] = {}
    untimed = set()
    for step in (step for plan in plans for step in plan.changes):
        if step.seconds is None:
            untimed.add(step.component)
        else:
            slowest[step.component] = max(slowest.get(step.component, 0.0), step.seconds)
    if not slowest:
        return ""
    minutes = sum(slowest.values()) / 60
    said = f" · ~{minutes:.0f} min" if minutes >= 1 else " · < 1 min"
    never = len(untimed - slowest.keys())
    return said + (f" and {never} step{'s' * (never > 1)} never timed" if never else "")


def card(found: Card) -> RenderableType:
    """A failure, framed; the last lines of the host's own words in it."""
    lines: list[RenderableType] = [Text(found.what, style="bold")]
    if found.command:
        lines.append(Text(f"$ {found.command}", style="dim"))
    lines += [Text(f"  {line}") for line in found.tail]
    if found.cause:
        lines.append(Text(f"cause: {found.cause}"))
    if found.remedy:
        lines.append(Text(f"→ {found.remedy}"))
    if found.log:
        lines.append(Text(f"log: {found.log}", style="dim"))
    return Panel(Group(*lines), title=Text(f"✗ {found.host}"), title_align="left", border_style="red")


def caveat_lines(said: Iterable[str]) -> list[RenderableType]:
    """What is no failure and must still be seen."""
    return [Text(f"! {line}", style="yellow") for line in said]


def report(rows: Sequence[tuple[str, str, str]], caveats: Sequence[str]) -> RenderableType:
    """The end: a row a host (`host, outcome, detail`), and the caveats together."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for host, outcome, detail in rows:
        style = "red" if outcome.startswith("✗") else "green"
        table.add_row(Text(host, style="bold"), Text(outcome, style=style), Text(detail))
    blocks: list[RenderableType] = [table]
    blocks += caveat_lines(caveats)
    return Group(*blocks)
