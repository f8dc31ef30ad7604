"""Travels with verify.py and certify.py: run checks in child processes, so that a crash or a hang costs one check.

A check is a function that takes what is expected (a dict) and returns its result (a dict with a `status`). The parent
starts its own program again with `--child`; the child says each result on a line of its own, as soon as it is known.
"""

import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

MARK = "rig-result "  # what a child says on its own account, among whatever its libraries print
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


def run(program, names, expect, seconds, environment=None):
    """name → result of these checks, in as few processes as crashes and hangs allow; `seconds`: name → its limit."""
    done, left = {}, list(names)
    while left:
        done.update(_run_child(program, left, expect, seconds, environment or {}))
        left = [name for name in left if name not in done]
    return done


def _run_child(program, names, expect, seconds, environment):
    """Results of one child, up to and including the check it died in."""
    env = {**os.environ, **QUIET, **environment}
    done, waiting, ended = {}, list(names), []
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile("w+", errors="replace") as errors:
        env["HF_HOME"] = home
        process = subprocess.Popen([sys.executable, os.path.abspath(program), "--child"], env=env, cwd=home,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                                   errors="replace", start_new_session=True)

        def stop():
            ended.append(True)
            kill(process)

        process.stdin.write(json.dumps({"names": names, "expect": expect}))
        process.stdin.close()
        timer = threading.Timer(seconds[waiting[0]], stop)
        timer.start()
        for line in process.stdout:
            if not line.startswith(MARK):
                continue
            name, found = json.loads(line[len(MARK):])
            done[name] = found
            waiting.remove(name)
            timer.cancel()
            if waiting:
                timer = threading.Timer(seconds[waiting[0]], stop)
                timer.start()
        timer.cancel()
        code = process.wait()
        if waiting:
            errors.seek(0)
            said = one_line(" ".join(errors.read().strip().splitlines()[-1:]))
            why = (f"no end after {seconds[waiting[0]]} s" if ended
                   else f"its process ended with {code}: {said or 'no word'}")
            done[waiting[0]] = result("fail", why=why, hang=bool(ended))
    return done


def kill(process):
    """End a child and all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except OSError:
        process.kill()
