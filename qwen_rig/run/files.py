"""Small files written into a host's folder by a shell script."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Mapping

WAIT_S = 30  # for another run that writes there, which takes milliseconds


def written(folder: str, texts: Mapping[str, str], piped: str | None = None) -> str:
    """Lines of shell that write files into a folder, each whole or not at all, and by one run at a time.

    `piped`: the name of one more file, whose text comes on standard input. A full disk leaves what was there. The
    folder is made where the one above it is there; it is itself what is locked, so that nothing is left behind.
    """
    above, name = (shlex.quote(part) for part in posixpath.split(folder))
    lines = [f"cd {above}", f"mkdir -p {name}", f"cd {name}", "exec 9<.",
             f"flock -w {WAIT_S} 9 || {{ echo 'qwen-rig: another run writes to this folder: wait for it'; exit 75; }}"]
    if piped is not None:
        lines += [f"cat > {piped}.new", f"mv {piped}.new {piped}"]
    for title, text in texts.items():
        lines += [f"printf %s {shlex.quote(text)} > {title}.new", f"mv {title}.new {title}"]
    return "\n".join(lines) + "\n"
