"""A training run on this host: on from the last whole checkpoint, or from the start; its end is put on record.

    python train_run.py RUN        RUN/program/run.json says what is trained

Begun again it goes on where it was, and a run that has finished is not begun again. TRL trains (train_qwen.py beside
this file); accelerate spreads it over this host's cards, and over the hosts of run.json where that names several.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import train_files
from train_files import read, write

LAUNCHER_S = 30  # that torch's launcher waits for a trainer which it told to end


def command(run, asked, last):
    """The command line of the trainer."""
    here, env = run / "program", Path(asked["env"])
    config = here / "launch.yaml" if asked.get("hosts") else env / ".rig" / "accelerate.yaml"
    launcher = ["-m", "accelerate.commands.launch", "--config_file", str(config)] \
        if asked.get("launch") == "accelerate" else []
    return [str(env / "bin" / "python"), *launcher, str(here / "train_qwen.py"),
            "--settings", str(env / ".rig" / "training.json"), *asked["options"], "--output_dir", str(run / "out"),
            *(["--resume"] if last is not None else [])]


def settings(command_line):
    """The settings that the trainer will settle on; it stops here, before an hour's imports, where one can't be."""
    import train_qwen

    words = command_line[next(n for n, word in enumerate(command_line) if word.endswith("train_qwen.py")) + 1:]
    return {name: value for name, value in train_qwen.settled(train_qwen.arguments(words)).items()
            if name in train_qwen.DEFAULTS}


def held(path):
    """The file that tells others of this run, locked as long as we live; None where there is none for us."""
    try:
        file = open(path, "r+") if path else None  # noqa: SIM115  as long as this process
        if file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file
    except OSError:
        return None


def trained(line, run, environment, end):
    """The trainer's exit code. Where the file `end` comes, another host of the run has failed: the launcher is told to
    end its trainers, which wait for that host, and kills them after LAUNCHER_S."""
    process = subprocess.Popen(line, cwd=run, env=environment)
    asked = None
    while True:
        try:
            return process.wait(timeout=1 if end else None)
        except subprocess.TimeoutExpired:
            if asked is None and end.exists():
                asked = time.monotonic()
                print(f"qwen-rig: ended, as {end.read_text(encoding='utf-8')}", flush=True)
                process.terminate()
            elif asked is not None and time.monotonic() - asked > 2 * LAUNCHER_S:
                process.kill()


def ended(run, code):
    """What is put on record of the end."""
    found = read(run / "trained.json")
    if code and (found or {}).get("state") != "stopped":
        found = None  # a launcher whose trainers were told to stop, and did, ends with what the signal gave it
    last = (train_files.points(run, 1) or [{}])[-1]
    state = (found or {}).get("state", "failed")
    result = train_files.files(run / "out", synced=True) if found and (run / "out").is_dir() else {}
    write(run / "end.json", {"state": state, "code": code, "at": int(time.time()), "loss": last.get("loss"),
                             "step": (found or last).get("step"), "of": (found or last).get("of"),
                             "files": train_files.fetched(result)})
    return state


def main(run):
    asked = read(run / "program" / "run.json")
    before = read(run / "end.json")
    if before and before.get("state") == "finished":
        print(f"qwen-rig: this run has finished already, at step {before.get('step')}")
        return 0
    end = run / f"end-{asked['turn']}" if asked.get("hosts") else None
    for path in [*(run / name for name in ("stop", "end.json", "trained.json")), *run.glob("end-*")]:
        if path != end:
            path.unlink(missing_ok=True)
    last = train_files.tidied(run / "out", asked["from"] if end else None)
    line = command(run, asked, last)
    write(run / "settings.json", settings(line))
    print(f"@train-from {last or 0}", flush=True)
    busy = held(asked.get("busy"))
    environment = {**os.environ, **asked.get("environment", {}), "QWEN_RIG_RUN": str(run),
                   "QWEN_RIG_BUSY": asked["busy"] if busy else ""}
    for number in (signal.SIGTERM, signal.SIGINT):  # the whole group gets it: the trainer saves, and we wait
        signal.signal(number, lambda *_: None)
    code = trained(line, run, environment, end)
    if busy:
        busy.truncate(0)
    state = ended(run, code)
    print(f"@train-end {state}", flush=True)
    if state == "stopped":
        return 0
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
