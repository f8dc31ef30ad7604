"""Travels with verify.py and certify.py: run checks in child processes, so that a crash or a hang costs one check.

A check is a function that takes what is expected (a dict) and returns its result (a dict with a `status`). The parent
starts its own program again with `--child`; the child says each result on a line of its own, as soon as it is known.
"""

import json
import math
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

MARK = "rig-result "  # what a child says on its own account, among whatever its libraries print
ENDING = 10  # seconds that a process gets to end, after its last word or its kill
TIME_IS_UP = "the time for all checks is up"
# Nothing here may reach for a network or a person's account, or leave files behind.
QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "WANDB_MODE": "disabled",
         "TOKENIZERS_PARALLELISM": "false", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONNOUSERSITE": "1"}


class NotRun(Exception):
    """A check that can't run here; its text says why. Never a pass, never a failure."""


def result(status, measured=None, expected=None, why=None, **more):
    return {"status": status, "measured": measured, "expected": expected, "why": why, **more}


def largest(errors):
    """The worst of some numbers: nan where there is one, which max() may pass over."""
    return max(errors, key=lambda error: (math.isnan(error), error))


def one_line(text, width=400):
    """A text as one short line, without the escapes that colour a terminal."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(text)).split())[:width]


def attempt(check, *arguments):
    """A check's result, whatever it raises."""
    began = time.monotonic()
    try:
        found = check(*arguments)
    except NotRun as why:
        found = result("not_run", why=str(why))
    except ModuleNotFoundError as error:
        found = result("fail", why=f"{error.name} is not installed")
    except Exception as error:
        found = result("fail", why=f"{type(error).__name__}: {one_line(error)}")
    found.setdefault("seconds", round(time.monotonic() - began, 2))
    return found


def serve(checks):
    """In a child: run the checks named on stdin in turn, each result a line."""
    asked = json.load(sys.stdin)
    for name in asked["names"]:
        print(MARK + json.dumps([name, attempt(checks[name], asked["expect"])], default=str), flush=True)


def run(program, names, expect, seconds, environment=None, deadline=math.inf, unfit=lambda done: None):
    """name → result of these checks, in as few processes as crashes and hangs allow; `seconds`: name → its limit.

    Not run is what comes after the `deadline` (by time.monotonic()), and what comes once `unfit`, asked with the
    results so far, says why no more can be.
    """
    done, left = {}, list(names)
    while left:
        why = unfit(done) or (TIME_IS_UP if time.monotonic() >= deadline else None)
        if why:
            return {**done, **{name: result("not_run", why=why) for name in left}}
        done.update(_run_child(program, left, expect, seconds, environment or {}, deadline))
        left = [name for name in left if name not in done]
    return done


def _run_child(program, names, expect, seconds, environment, deadline):
    """Results of one child, up to and including the check it died in."""
    env = {**os.environ, **QUIET, **environment}
    done, waiting, said = {}, list(names), queue.Queue()
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile("w+", errors="replace") as errors:
        env["HF_HOME"] = home
        process = subprocess.Popen([sys.executable, os.path.abspath(program), "--child"], env=env, cwd=home,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                                   errors="replace", start_new_session=True)
        process.stdin.write(json.dumps({"names": names, "expect": expect}))
        process.stdin.close()
        # A thread of its own waits for lines: a process that hangs in the driver keeps its pipe open after its kill.
        threading.Thread(target=_lines, args=(process.stdout, said), daemon=True).start()
        began, hung = time.monotonic(), None
        while waiting:
            try:
                line = said.get(timeout=max(0, min(began + seconds[waiting[0]], deadline) - time.monotonic()))
            except queue.Empty:
                hung = time.monotonic() - began
                break
            if line is None:
                break
            if line.startswith(MARK):
                name, found = json.loads(line[len(MARK):])
                done[name] = found
                waiting.remove(name)
                began = time.monotonic()
        code = _end(process, hung is not None)
        if waiting:
            errors.seek(0)
            last = one_line(" ".join(errors.read().strip().splitlines()[-1:]))
            done[waiting[0]] = (
                result("fail", why=f"its process ended with {code}: {last or 'no word'}", hang=False) if hung is None
                else result("not_run", why=f"{TIME_IS_UP}: cut off after {hung:.0f} s") if hung < seconds[waiting[0]]
                else result("fail", why=f"no end after {seconds[waiting[0]]} s", hang=True))
    return done


def _lines(stream, said):
    """Each line of the stream into the queue, None at its end."""
    for line in stream:
        said.put(line)
    said.put(None)


def _end(process, hung):
    """Its exit status, once it has ended or been killed; None for one that outlives its kill, as in a driver's call."""
    for _ in range(2):
        if hung:
            kill(process)
        try:
            return process.wait(timeout=ENDING)
        except subprocess.TimeoutExpired:
            hung = True
    return None


def kill(process):
    """End a child and all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except OSError:
        process.kill()
