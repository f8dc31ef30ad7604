"""A wheel's way from the host that built it to here, and on to another: broken off on the way, and whole in the end."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import until

from .conftest import REPO, Lab, Run

pytestmark = pytest.mark.testbed
MIB = 48
FILE, FOLDER = "/root/made/stand_in-1.0-py3-none-any.whl", "/root/given"
SFTP, HELD = "/usr/lib/openssh/sftp-server", "/var/tmp/held"
# The real one, but that the first connection which brings 8 MiB from the host stops there until it is cut, and then the
# first one that sends as much: so each is cut in the middle, however fast the machine is.
STOPS = f"""#!/bin/sh
up=$PPID
hold() {{
  perl -e 'for (my $n = 8 << 20; $n > 0;) {{ $n -= sysread(STDIN, my $b, $n < 32768 ? $n : 32768) || exit 1;
    syswrite STDOUT, $b }}' || return
  : >"{HELD}-$1"
  while kill -0 "$up" 2>/dev/null; do sleep 0.1; done
}}
if [ ! -e {HELD}-out ]; then {SFTP}.real | hold out
elif [ ! -e {HELD}-in ]; then hold in | {SFTP}.real
else exec {SFTP}.real
fi
"""


@pytest.fixture(scope="module")
def lab(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    from testbed import HostSpec

    lab = Lab(bed, bed.up([HostSpec("far", kind="container", driver="580.95.05:open")]),
              tmp_path_factory.mktemp("copies"))
    lab.on("far", f"mkdir /root/made && head -c {MIB}M /dev/urandom >{FILE}")
    lab.on("far", f"mv {SFTP} {SFTP}.real && cat >{SFTP} <<'.'\n{STOPS}.\nchmod +x {SFTP}")
    yield lab
    bed.down()


def run(lab: Lab, sha256: str = "", file: str = FILE, **more: str) -> Run:
    return lab.pyinfra("-y", str(REPO / "tests" / "e2e" / "two_ways.py"), COPY_FILE=file, COPY_FOLDER=FOLDER,
                       COPY_SHA256=sha256 or there(lab, FILE), XDG_CACHE_HOME=str(lab.folder / "cache"), **more)


def there(lab: Lab, path: str) -> str:
    return lab.on("far", f"sha256sum {path}").split()[0]


def when(true: Callable[[], bool], act: Callable[[], Any], ended: threading.Event) -> threading.Thread:
    """Do something in the background as soon as something is so, if it is before all has ended."""
    def wait() -> None:
        until(lambda: true() or ended.is_set())
        if not ended.is_set():
            act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_a_transfer_that_breaks_off_either_way_begins_anew_and_ends_whole(lab: Lab) -> None:
    incoming = lab.folder / "cache" / "qwen-rig" / "flash-attn" / "domain-copies" / "incoming"
    cut = "pkill -f '[s]shd: root@notty'"  # the connection's own process; the listener stays
    sizes: list[int] = []
    ended = threading.Event()
    lab.on("far", "touch -d '2 hours ago' /root/.qwen-rig-old.part")  # left by a run that never came back

    def held(way: str) -> bool:
        return lab.bed.exec_("far", ["test", "-e", f"{HELD}-{way}"]).returncode == 0

    def coming() -> bool:
        sizes[:] = [path.stat().st_size for path in incoming.glob("*/*.whl")]
        return any(sizes) and held("out")

    part = f"test -s /root/.qwen-rig-{Path(FILE).name}.*.part"
    bringing = when(coming, lambda: lab.bed.exec_("far", ["sh", "-c", cut], check=True), ended)
    sending = when(lambda: held("in") and lab.bed.exec_("far", ["sh", "-c", part]).returncode == 0,
                   lambda: lab.bed.exec_("far", ["sh", "-c", cut], check=True), ended)
    done = run(lab)
    ended.set()
    bringing.join()
    sending.join()
    assert f"sent to {FOLDER}/" in done.stderr, done.stderr
    assert 0 < sizes[0] < MIB * 2**20, "it was cut in the middle"
    for what in ("brings stand_in-1.0-py3-none-any.whl from far, again: ",
                 f"gets stand_in-1.0-py3-none-any.whl ({MIB * 2**20 / 1e6:.1f} MB) from here, again: "):
        assert done.stderr.count(what) >= 1, done.stderr
    assert there(lab, f"{FOLDER}/*") == there(lab, FILE)
    assert lab.on("far", f"ls -A {FOLDER}").split() == [Path(FILE).name]
    assert not lab.on("far", "ls -A /root | grep part || true"), "no half file is left"
    assert not list(incoming.iterdir())


def test_what_comes_with_other_bytes_is_not_used(lab: Lab) -> None:
    lab.on("far", "echo short >/root/made/short.whl")
    refused = run(lab, file="/root/made/short.whl", sha256=hashlib.sha256(b"the host's record").hexdigest())
    assert "it came as sha256" in refused.stderr and "failed 3 times" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not list((lab.folder / "cache" / "qwen-rig" / "flash-attn" / "domain-copies" / "incoming").iterdir())


def test_a_file_that_is_gone_is_one_line(lab: Lab) -> None:
    gone = run(lab, file="/root/made/none.whl")
    assert "No such file" in gone.stderr and "again" not in gone.stderr and "Traceback" not in gone.stderr
