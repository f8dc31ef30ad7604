"""Travels with train_run.py: the files of a training run on this host, and what is told of them.

    RUN/id             who began it; no other run gets this folder
    RUN/program/       the programs, and run.json: what was asked for
    RUN/out/           TRL's: checkpoint-N, and at the end the adapter or the model
    RUN/progress.jsonl a line a logged step; of a step that was done twice the last counts
    RUN/begun.json, trained.json, end.json, settings.json
    RUN/stop           a checkpoint is wanted, then the end
    RUN/end-TURN       that beginning is to end now, and why: another host of it has failed

A checkpoint is whole when it is sealed: its seal is written last, with every file's size, and the sha256 of what may be
fetched. Also run alone, from standard input: python - look ROOT [NAME] · part FILE OFFSET BYTES ·
log NAME · stop RUN · end RUN TURN WHY · same TRAINING MODEL DATA
"""

import base64
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

SEAL = "qwen-rig-whole.json"
FETCHED = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.(safetensors|json)")
STEP = re.compile(r"checkpoint-([0-9]{1,9})")
KEEP = 3  # whole checkpoints; each takes as much room as the first
LOG = 65536  # bytes of a log's end, as it is told
POINTS = 500  # of a loss curve, as it is told


def write(path, value):
    """A JSON file, whole or not at all, also when the power goes."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    with open(new, "w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def read(path):
    """What one of our JSON files holds; None where there is none that is whole."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def files(folder, synced=False):
    """name → size, and the sha256 where it may be fetched, of the plain files in a folder."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file() or path.name == SEAL or path.name.startswith("."):
            continue
        with open(path, "rb") as file:
            if synced:
                os.fsync(file.fileno())
            row = {"bytes": os.fstat(file.fileno()).st_size}
            if FETCHED.fullmatch(path.name):
                row["sha256"] = sha256(path)
        found[path.name] = row
    return found


def seal(folder, step):
    """Declare a checkpoint whole."""
    write(folder / SEAL, {"step": step, "files": files(folder, synced=True)})


def sealed(folder):
    """The seal of a checkpoint whose files are there in full; None for one that was cut off."""
    found = read(folder / SEAL)
    try:
        whole = found and all((folder / name).stat().st_size == row["bytes"] for name, row in found["files"].items())
    except (OSError, KeyError, TypeError, AttributeError):
        return None
    return found if whole else None


def checkpoints(out):
    """(step, folder) of every checkpoint, whole or not, the oldest first."""
    if not out.is_dir():
        return []
    found = [(int(match[1]), path) for path in out.iterdir() if (match := STEP.fullmatch(path.name)) and path.is_dir()]
    return sorted(found)


def tidied(out, most=None):
    """Remove what was cut off in mid-write, and what is later than the step `most`, to which another host of the run
    comes; the step of the last whole checkpoint, None where there is none."""
    last = None
    for step, folder in checkpoints(out):
        if sealed(folder) and (most is None or step <= most):
            last = step
        else:
            shutil.rmtree(folder)
    return last


def prune(out):
    """Keep the last whole checkpoints."""
    for _, folder in [row for row in checkpoints(out) if sealed(row[1])][:-KEEP]:
        shutil.rmtree(folder, ignore_errors=True)


def points(run, most=POINTS):
    """The loss curve from its first step to its last, in `most` rows; a line that a power cut tore is passed over."""
    found = {}
    try:
        with open(run / "progress.jsonl", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    row = json.loads(line)
                    step = int(row["step"])
                except (ValueError, KeyError, TypeError):
                    continue
                for later in [each for each in found if each > step] if step in found else ():
                    del found[later]  # it went back to a checkpoint: what followed is done again
                found[step] = row
    except OSError:
        return []
    rows = [found[step] for step in sorted(found)]
    stride = -(-len(rows) // most)
    return [*rows[:-1:stride], rows[-1]][-most:] if rows else []


def job(folder):
    """How the run's job stands, by the files of job.sh: its state, and which beginning it is."""
    said = {}
    try:
        for line in (folder / "state").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition("=")
            said[name] = value[:80]
    except (OSError, ValueError):
        return {"state": "none"}
    free = True
    try:
        with open(folder / "lock", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        free = False
    except OSError:
        pass
    state = "done" if "code" in said else "aborted" if free else "running"
    return {"state": state, "run": said.get("run", ""), "code": said.get("code", ""),
            "started": said.get("started", ""), "ended": said.get("ended", "")}


def fetched(found):
    """Those of some files that may be fetched: the others have no sha256."""
    return {name: row for name, row in found.items() if "sha256" in row}


def told(run, jobs, most):
    """All that is told of one run."""
    out = run / "out"
    whole = [(step, found) for step, folder in checkpoints(out) if (found := sealed(folder))]
    return {"name": run.name, "asked": read(run / "program" / "run.json"), "settings": read(run / "settings.json"),
            "begun": read(run / "begun.json"), "end": read(run / "end.json"), "merged": read(run / "merged.json"),
            "evaluation": read(run / "eval.json"), "points": points(run, most),
            "job": job(jobs / f"train-{run.name}"), "checkpoints": [step for step, _ in whole],
            "checkpoint": {"step": whole[-1][0], "folder": f"checkpoint-{whole[-1][0]}",
                           "files": fetched(whole[-1][1]["files"])} if whole else None}


def jobs_folder():
    """Where job.sh keeps the jobs of this user (jobs.sh)."""
    if os.getuid() == 0:
        return Path("/var/lib/qwen-rig/jobs")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "qwen-rig" / "jobs"


def look(root, name=""):
    root, jobs = Path(root), jobs_folder()
    if name:
        found = [told(root / name, jobs, POINTS)] if (root / name).is_dir() else []
    else:
        found = [told(each, jobs, 1) for each in sorted(root.iterdir())[:100] if (each / "id").is_file()] \
            if root.is_dir() else []
    json.dump({"runs": found}, sys.stdout)


def part(file, offset, most):
    """A part of a file in base64, nothing where there is no such file any more."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return
    with open(handle, "rb") as opened:
        opened.seek(int(offset))
        encoded = base64.encodebytes(opened.read(int(most))).decode()
    sys.stdout.write(encoded)


def log(name):
    """The end of what the run printed."""
    try:
        with open(jobs_folder() / f"train-{name}" / "log", "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LOG))
            sys.stdout.write(file.read().decode("utf-8", "replace").replace("\r", "\n"))
    except OSError:
        return


def stop(run):
    """Ask the run to write a checkpoint and end."""
    (Path(run) / "stop").touch()


def end(run, turn, why):
    """Have one beginning of the run end now, without a checkpoint."""
    (Path(run) / f"end-{turn}").write_text(why, encoding="utf-8")


def same(training, model, data):
    """By what several hosts tell that they have the same model and data: the commit of a model of the hub's that is
    whole here, a digest of a folder's files; the sha256 of a file. None of what isn't here. `own`: the user's own
    settings."""
    folder = Path(os.path.expanduser(model))
    if model.startswith(("/", "~", ".")):
        version = digested(folder) if folder.is_dir() else None
    else:
        version = commit((read(Path(training)) or {}).get("hf_home"), model)
    own = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "qwen-rig" / "training.json"
    data = os.path.expanduser(data)
    json.dump({"model": version, "data": sha256(data) if os.path.isfile(data) else None, "own": read(own) or {}},
              sys.stdout)


def commit(home, model):
    """The commit of a model that huggingface_hub's cache holds, None where that lacks weights or configuration."""
    home = Path(os.environ.get("HF_HOME") or home or Path.home() / ".cache" / "huggingface")
    place = home / "hub" / f"models--{model.replace('/', '--')}"
    try:
        found = (place / "refs" / "main").read_text().strip()
    except OSError:
        return None
    snapshot = place / "snapshots" / found
    whole = (snapshot / "config.json").is_file() and any(each.is_file() for each in snapshot.glob("*.safetensors"))
    return found if found and whole else None


def digested(folder):
    """A digest of a folder's plain files by name and content."""
    made = hashlib.sha256()
    for path in sorted(each for each in folder.iterdir() if each.is_file() and not each.name.startswith(".")):
        made.update(f"{path.name} {sha256(path)}\n".encode())
    return made.hexdigest()


def sha256(path):
    made = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            made.update(chunk)
    return made.hexdigest()


if __name__ == "__main__":
    {"look": look, "part": part, "log": log, "stop": stop, "end": end, "same": same}[sys.argv[1]](*sys.argv[2:])
