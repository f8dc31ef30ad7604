"""Runs on the host, under the env's python: try each flash-attn wheel, keep one only if it proves itself, else SDPA.

Usage: attention.py --spec JSON. Writes flash_attn.json beside itself; exits 0 with SDPA too, which is a normal end.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
INSTALL_SECONDS, CHECK_SECONDS = 1200, 300


def run(arguments, seconds):
    """(succeeded, last lines) of a command, never an exception."""
    try:
        done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, text=True)
        return done.returncode == 0, done.stdout.strip().splitlines()[-5:]
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, [str(error)]


def attempt(wheel, package, check):
    """None when the wheel is in and works, else (why not) with the wheel taken out again."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as lock:
        lock.write(f"{package} @ {wheel['url']} --hash=sha256:{wheel['sha256']}\n")
        lock.flush()
        done, said = run([*pip, "install", "-q", "--no-deps", "--timeout", "60", "--require-hashes", "-r", lock.name],
                         INSTALL_SECONDS)
    if not done:
        return f"not installed: {' '.join(said)[-400:]}"
    proof = [str(HERE / check)] if check.endswith(".py") else check.split()  # a script beside us, or `-m module`
    done, said = run([sys.executable, *proof], CHECK_SECONDS)
    if done:
        return None
    run([*pip, "uninstall", "-q", "-y", package], 120)
    return f"installed, but not proven: {' '.join(said)[-400:]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spec", required=True, type=json.loads)
    spec = parser.parse_args().spec
    record = {"attention": "sdpa", "rung": "sdpa", "tried": [], "rejected": spec["rejected"],
              "fingerprint": spec["fingerprint"], "time": int(time.time())}
    for wheel in spec["wheels"] if spec["gpu"] else []:
        why = attempt(wheel, spec["package"], spec["check"])
        record["tried"].append({"wheel": wheel["name"], "sha256": wheel["sha256"], "why_not": why})
        if why is None:
            record.update(attention="flash_attention_2", rung="wheel", wheel=wheel["name"], sha256=wheel["sha256"])
            break
    if not spec["gpu"]:
        record["rejected"] = [*spec["rejected"], "verify_gpu=False: no GPU here to prove a wheel on"]
    reasons = [t["why_not"] for t in record["tried"] if t["why_not"]] or record["rejected"]
    record["why"] = f"{record['wheel']} works" if record["rung"] == "wheel" else "; ".join(reasons)
    target = HERE / "flash_attn.json"
    (HERE / "flash_attn.json.new").write_text(json.dumps(record, indent=1))
    os.replace(HERE / "flash_attn.json.new", target)
    print(json.dumps(record))


if __name__ == "__main__":
    main()
