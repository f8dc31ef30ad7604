"""Where the words of a run go: results on standard output, talk and failures on standard error."""

from __future__ import annotations

from qwen_rig import render
from qwen_rig.frozen import frozen
from qwen_rig.render import Console


@frozen
class Screens:
    """The consoles of a run. `talk`: progress, finished steps; `alarms`: failures; `plans`: the plans, and the cards of
    hosts that these refuse; `results`: what has come of each host."""

    talk: Console
    alarms: Console
    plans: Console
    results: Console


def of_pyinfra() -> Screens:
    """All on standard error, between pyinfra's own lines."""
    one = render.console()
    return Screens(one, one, one, one)


def of_verb(plans: bool, document: bool, quiet: bool, asked: bool) -> Screens:
    """A verb's. `plans`: they are its result; `document`: the result is JSON; `quiet`: no talk; `asked`: a question
    about the plans follows, so that they are shown whatever else is not."""
    talk, alarms, results = render.console(), render.console(), render.out()
    talk.quiet, results.quiet = quiet, document
    return Screens(talk, alarms, results if plans else alarms if asked else talk, results)
