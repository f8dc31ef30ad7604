"""Run one of qwen_rig/host/'s programs on this machine as a job (qwen_rig/host/job.sh): no SSH, but the same runner.

    python3 scripts/job_here.py NAME SECONDS [--wait S] [--python PY] -- flash_build.py --source … --out DIR

NAME is the job's and its run's: the same words again attach to it, or say how it ended; another NAME begins another.
Comes back after S seconds (default 540) with 3 while it is at work, else with the job's own exit status. For a machine
that is reached by single commands, none of which may last as long as the job. Needs Python ≥ 3.10 and nothing else.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))
from qwen_rig import program  # noqa: E402
from qwen_rig.run import job_protocol as job  # noqa: E402
from qwen_rig.units import span  # noqa: E402

POLL_S = 10


def ask(call: program.Call, stdin: str = "") -> job.Answer:
    """What the runner answers."""
    done = subprocess.run(["sh", "-c", call.text], input=call.stdin(stdin), capture_output=True, text=True)
    return job.read(done.stdout) or job.Answer("error", why=f"{done.stdout} {done.stderr}".strip())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("seconds", type=int)
    parser.add_argument("--wait", type=int, default=540)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("program", nargs="+")
    o = parser.parse_args()
    script = program.Program('cd "$1"\npython=$2 name=$3\nshift 3\n"$python" "qwen_rig/host/$name" "$@"\n')
    made = job.Job(o.name, o.name, script(str(REPO), o.python, *o.program), o.seconds, nice=10)
    shown, deadline = job.Progress(), time.monotonic() + o.wait
    answer = ask(*job.start(made, o.name, POLL_S))
    while True:
        for line in job.plain(answer.lines):
            print(line)
        if answer.state != "running":
            break
        if said := shown.feed(answer):
            print(f"{o.name}: {said}", flush=True)
        if time.monotonic() > deadline:
            print(f"{o.name}: at work for {span(answer.elapsed)}; the same command again attaches to it")
            return 3
        answer = ask(job.poll(made, answer.run, answer.to, POLL_S))
    print(f"{o.name}: {answer.state} {answer.why} exit status {answer.code} after {span(answer.elapsed)}; "
          f"log {answer.log}")
    return answer.code if answer.state == "done" and answer.code is not None else 1


if __name__ == "__main__":
    sys.exit(main())
