"""`rig watch`: a page on this machine with what is on record of runs, hosts and cards."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path

from qwen_rig import atomic, exits, say
from qwen_rig.cli import _types
from qwen_rig.errors import RigError

SUMMARY = "show runs with their loss, hosts and cards on a read-only page of this machine; no host is asked"
EXAMPLES = ("qwen-rig watch", "qwen-rig watch -o page.html", "qwen-rig watch --json")
REFRESH_S = 5


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--port", type=_types.whole, metavar="N", help="on 127.0.0.1 (default: one that is free)")
    parser.add_argument("-o", "--output", type=_types.path, metavar="FILE", help="write the page as it is now, and end")


def run(options: argparse.Namespace) -> int:
    """0: shown, till Ctrl-C · 1: bad input, or the port is taken."""
    from qwen_rig.finetune import page, serving

    if options.json:
        say.as_json(page.found())
        return exits.OK
    if options.output:
        return _written(options.output, page.page())
    if options.port and options.port > 65535:
        raise RigError(f"--port can't be {options.port}", "", "a number to 65535")
    try:
        server = serving.Server(options.port or 0, lambda: page.page(REFRESH_S))
    except OSError as error:
        raise RigError(f"the page can't be served: {error.strerror}", f"port {options.port}", "name another: --port"
                       ) from None
    say.out(server.address)
    say.err("Ctrl-C ends it. The address is for you alone: who has it sees the page, on this machine.")
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()
    return exits.OK


def _written(file: Path, text: str) -> int:
    try:
        atomic.write(file, text)
    except OSError as error:
        raise RigError(f"the page can't be written: {error.strerror}", str(file), "name another file: -o") from None
    say.out(file)
    return exits.OK
