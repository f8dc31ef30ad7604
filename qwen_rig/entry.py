"""What pyinfra's own command line calls: config.py joins the run here, before any host is dialled."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable

from qwen_rig import knobs, say
from qwen_rig.deploy.planning import make_plan
from qwen_rig.errors import RigError
from qwen_rig.run import adapter, memory
from qwen_rig.run.adapter import State
from qwen_rig.run.run import Run


def configure() -> None:
    """Refuse what can be refused now, and join the run that pyinfra is about to begin, to its very end."""
    _or_exit(_refuse_bad_data)
    run = join(adapter.state_in_the_making(), Run(make_plan))
    atexit.register(lambda: run.end(adapter.current_state()))


def join(state: State, run: Run) -> Run:
    """Make `run` the run of a state that isn't initialised yet."""
    adapter.attach(state, run)
    run.ender.install(run)
    adapter.spare_lookups()

    def ready() -> None:
        adapter.bind(state)
        adapter.guard(state)
        adapter.listen(state, run.report)
        _refuse_bad_knobs(state)
        adapter.let_others_go_on(state)

    def before(arguments: object) -> None:
        if isinstance(arguments, dict) and arguments.get("initial_limit") == []:
            # pyinfra would go on, do nothing, and call that a success
            say.err("qwen-rig: --limit and --exclude leave no host · give each name its own --limit, as the inventory "
                  "spells it; * stands for any letters")
            sys.exit(1)

    adapter.when_ready(state, ready, before)
    return run


def _or_exit(act: Callable[[], None]) -> None:
    """Do it; a RigError is one line and the end."""
    try:
        act()
    except RigError as error:
        say.err(f"qwen-rig: {error}")
        sys.exit(1)


def _refuse_bad_data() -> None:
    """Check --data where nothing has been touched: a typo or an impossible stack. Raises RigError."""
    if (adapter.command_line() or {}).get("same_sudo_password"):
        raise RigError("one password for every host would reach those that it isn't meant for", "--same-sudo-password",
                       "name it for the hosts that ask for one: sudo_password_env in lab.yml")
    for text in (adapter.command_line() or {}).get("data") or ():
        if knobs.ours(text):
            knobs.pair(text)


def _refuse_bad_knobs(state: State) -> None:
    """One line and the end, before any host is dialled; but not where no deploy is run (`fact`, `exec`)."""
    options = adapter.command_line()
    if options is not None and not any(str(name).endswith(".py") for name in options.get("operations") or ()):
        return
    _or_exit(lambda: memory.refuse_bad_knobs(state))
