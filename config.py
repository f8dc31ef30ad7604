"""pyinfra reads this first: the version it must have, and what can be refused before any host is dialled."""

import sys

import click

from qwen_rig.project import check_version

QWEN_RIG = "0.2.0"  # the version that wrote this folder's files; another one's package refuses them, in one line
check_version(QWEN_RIG)  # before anything that another version may not have is imported

from qwen_rig.errors import RigError  # noqa: E402
from qwen_rig.knobs import NAMES, check, ours, unknown  # noqa: E402
from qwen_rig.run import report as _report  # noqa: E402

REQUIRE_PYINFRA_VERSION = ">=3.10,<4"


def _refuse_early() -> None:
    """Check --data here, where nothing has been touched: a typo or an impossible stack ends in one line."""
    context = click.get_current_context(silent=True)
    for pair in (context.params.get("data") or ()) if context else ():
        name, _, text = pair.partition("=")
        if name not in NAMES:
            if ours(name):
                raise unknown(name, "--data")
            continue
        value = {"true": True, "false": False, "none": None}.get(text.lower(), int(text) if text.isdigit() else text)
        check(name, value)


try:
    _refuse_early()
except RigError as error:
    print(f"qwen-rig: {error}", file=sys.stderr)
    sys.exit(1)

_report.install()
