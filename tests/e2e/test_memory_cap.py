"""A host whose cgroup gives it 6 GiB: a build with the guide's 8 jobs dies there, ours is refused; with 10 GiB, ours of
one job comes through. The limit and the kernel's killing are real, and so are sshd and the job runner.

A Perl that fills 5.5 GiB STANDS IN for nvcc (one .cu was measured at 5 to 6 GB). In the everyday run limit and
stand-in are both SCALED down to a sixteenth; the marker `real` has them whole.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from qwen_rig.catalog.flash_build import load
from qwen_rig.errors import RigError
from qwen_rig.flash import resources
from qwen_rig.program import Program
from qwen_rig.run import job_protocol as jobs
from qwen_rig.run.job_protocol import Answer, Job
from testbed._shell import TestbedError
from tests import HANG_S

pytestmark = pytest.mark.testbed
CORES = 8
NVCC_MIB = 5632
HERE = "/var/tmp/filled"  # a file for each that has its memory, and one where one has died of it
# Takes the memory, and holds it until as many have theirs as run at once, or one has died of it.
FILL = ("my $x = chr(1) x ($ARGV[0] * 1048576); open F, '>', \"$ARGV[2]/$$\"; close F; "
        "select undef, undef, undef, 0.05 until -e \"$ARGV[2]/died\" or (() = glob \"$ARGV[2]/*\") >= $ARGV[1]")


@pytest.fixture(scope="module")
def host(bed: Any) -> Iterator[Any]:
    from testbed import HostSpec

    bed.up([HostSpec("small", kind="container", driver="580.95.05:open")])
    yield bed
    bed.down()


def build(bed: Any, at_once: int, scale: int, objects: int = 8) -> Answer:
    """A build's job to its end, as ours is run: nice, and with the OOM score of what compiles raised."""
    bounds = load()[1]
    raised = f"sh -c 'echo {bounds.oom_score} >/proc/self/oom_score_adj; exec \"$@\"' sh"  # as flash_build.py
    compiles = f'perl -e "$1" {NVCC_MIB // scale} {at_once} {HERE} && echo compiled || {{ : >{HERE}/died; exit 1; }}'
    script = (f"rm -rf {HERE}; mkdir {HERE}; fill={shlex.quote(FILL)}\n"
              f"seq {objects} | {raised} xargs -P {at_once} -n 1 sh -c {shlex.quote(compiles)} sh \"$fill\" "
              "|| { echo 'ninja: build stopped'; exit 1; }\n")
    job = Job("flash_build", "flash-attn build", Program(script)(), HANG_S, nice=bounds.nice)
    call, payload = jobs.start(job, f"{at_once}of{objects}x{scale}", HANG_S)
    done = subprocess.run([*bed.ssh_argv("small"), call.text], input=call.stdin(payload), text=True,
                          capture_output=True, timeout=2 * HANG_S)
    answer = jobs.read(done.stdout)
    assert answer is not None, done.stderr
    return answer


@pytest.mark.parametrize("scale", [16, pytest.param(1, marks=pytest.mark.real)])
def test_the_cap_is_what_lets_a_build_and_sshd_live(host: Any, scale: int) -> None:
    sshd = host.exec_("small", ["pgrep", "-o", "sshd"], check=True).stdout
    try:
        limit = host.limit_memory("small", 6144 // scale)
    except TestbedError as why:
        pytest.skip(str(why))

    with pytest.raises(RigError, match=r"\(6 − 4\) / 6 GiB of memory is less than one compile job"):
        resources.jobs(CORES, 6144)
    guide = build(host, 8, scale)
    assert guide.state == "done" and guide.code == 1 and guide.lines[-1] == "ninja: build stopped", guide
    assert guide.why == "oom", guide
    assert limit.killed >= 1, "the kernel ended it, for want of memory"

    assert resources.jobs(CORES, 10240) == 1
    limit.set(10240 // scale)
    before = limit.killed
    ours = build(host, 1, scale, objects=3)
    assert (ours.state, ours.code, ours.lines) == ("done", 0, ("compiled",) * 3) and limit.killed == before
    assert build(host, 8, scale).code == 1 and limit.killed > before, "here too the guide's 8 would have died"

    assert host.exec_("small", ["pgrep", "-o", "sshd"], check=True).stdout == sshd, "sshd is the one that it was"
    assert host.ssh("small", "echo well").stdout.strip() == "well"
