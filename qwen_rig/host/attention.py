"""Runs on the host, under the env's python: try each flash-attn wheel, keep one only if it proves itself, else SDPA.

Usage: attention.py --spec JSON. Each wheel is installed, imported in a process of its own with a time limit, then
computes forward and backward for the head dimensions of the models that train here (flash_attn_check.py). One that is
wrong, or for one of them no faster than SDPA on this card, is taken out again and the next one is tried.

Writes flash_attn.json beside itself, and prints it as its last line: the rung (fleet, wheel, build, git, sdpa), why
each one before it was not kept, version, sha256, the architectures that its .so really has code for, what the proof
measured, both speeds, minutes. Exits 0 with SDPA too, which is a normal end. `last` false in the spec: other rungs may
follow, so that without a good wheel nothing is decided and nothing written.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import fatbin  # beside this file, both
import flash_ready

HERE = Path(__file__).resolve().parent
SAID_LINES, WIDTH = 5, 240
# torch first: flash-attn's library needs torch's to be loaded. bert_padding is what transformers takes of it.
IMPORT = ("import importlib.util as u; u.find_spec('torch') and __import__('torch'); import {0}; "
          "u.find_spec('{0}.bert_padding') and __import__('{0}.bert_padding')")


def run(arguments, seconds):
    """(exit status, what was said) of a command; None where it didn't end in time. Never an exception."""
    try:
        done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                              timeout=seconds, text=True, errors="replace")
        return done.returncode, done.stdout.strip().splitlines()
    except subprocess.TimeoutExpired:
        return None, [f"no end within {seconds} s"]
    except OSError as error:
        return -1, [str(error)]


def pip(*arguments, seconds):
    return run([sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments], seconds)


def told(lines):
    """The last lines, each short."""
    return [line.strip()[:WIDTH] for line in lines if line.strip()][-SAID_LINES:]


def installed(name):
    """Its version; None where it isn't there."""
    importlib.invalidate_caches()
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return None


def fetched(wheel, folder, seconds):
    """The wheel's sha256 as its bytes give it, for one that no checksum is known of. Raises OSError, and HTTPException
    where the server talks something else."""
    end = time.monotonic() + seconds
    with flash_ready.opened(wheel["url"], min(60, seconds)) as answer, \
            open(folder / wheel["name"], "wb") as file:
        while piece := answer.read1(1 << 20):  # what has come: a server that trickles never fills a read
            file.write(piece)
            if time.monotonic() > end:
                raise TimeoutError(f"no end within {seconds} s")
    return flash_ready.digest(folder / wheel["name"])


def install(wheel, spec, seconds):
    """(None, []) when it is in, with what it imports and the env lacks; else (why not, last lines). Every byte is
    checked by its hash."""
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as scratch:
        if wheel["sha256"] is None:
            try:
                wheel["sha256"] = fetched(wheel, Path(scratch), seconds)
                wheel["url"] = (Path(scratch) / wheel["name"]).as_uri()
            except (OSError, HTTPException) as error:
                return f"not installed: {getattr(error, 'reason', None) or error}", []
        wanted = [f"{spec['package']} @ {wheel['url']} --hash=sha256:{wheel['sha256']}"]
        wanted += [f"{c['name']}=={c['version']} --hash=sha256:{c['sha256']}" for c in spec["companions"]
                   if installed(c["name"]) is None]
        lock = Path(scratch, "lock.txt")
        lock.write_text("".join(f"{line}\n" for line in wanted))
        code, said = pip("install", "-q", "--no-deps", "--force-reinstall", "--timeout", "60", "--retries", "2",
                         "--require-hashes",
                         *flash_ready.at(spec["index"]), "-r", str(lock), seconds=max(1, round(end - time.monotonic())))
    if code == 0:
        return None, []
    wrong = [line for line in said if re.match(r"\s*ERROR: ", line)] or told(said)[-1:]
    why = wrong[0].strip().removeprefix("ERROR: ") if wrong else "pip said nothing"
    if "DO NOT MATCH THE HASHES" in why:
        why = "its bytes aren't those of the sha256 that is pinned"
    return f"not installed: {why[:WIDTH]}", told(said)


def prove(spec, limits):
    """(None, what was measured) where the installed package works, else (why not, last lines)."""
    module = re.sub(r"[-.]+", "_", spec["package"])
    code, said = run([sys.executable, "-c", IMPORT.format(module)], limits["import"])
    if code != 0:
        return f"installed, but can't be imported: {' '.join(told(said)[-1:])}", told(said)
    check = spec["check"]
    dims = ["--head-dims", *map(str, spec["head_dims"])] if spec["head_dims"] else []
    # A script beside us, or `-m module`, which knows no head dimensions.
    proof = [str(HERE / check), *dims] if check.endswith(".py") else check.split()
    code, said = run([sys.executable, *proof], limits["check"])
    measured = None
    with suppress(ValueError, IndexError):
        measured = json.loads(said[-1])
    if code != 0:
        why = (isinstance(measured, dict) and measured.get("why")) or " ".join(told(said))[-400:]
        return f"imported, but its kernels aren't proven: {why}", told(said)
    if not isinstance(measured, dict):
        return None, {"said": told(said)}
    slow = not_faster(measured.get("speed", []), spec["faster_pct"])
    if slow:
        return f"right, but no faster than SDPA on this card: {speeds(slow)}", [speeds(measured["speed"])]
    return None, measured


def not_faster(rows, percent):
    """Those head dimensions for which it isn't faster than SDPA by so much; a time that is none is no proof."""
    return [row for row in rows if not row["ms"] * (1 + percent / 100) <= row["sdpa_ms"]]


def speeds(rows):
    """`head_dim 128: 1.90 ms, SDPA 2.20 ms; …`, forward and backward."""
    return "; ".join(f"head_dim {row['head_dim']}: {row['ms']:.2f} ms, SDPA {row['sdpa_ms']:.2f} ms" for row in rows)


def archs(package):
    """What the installed package's shared objects have code for."""
    found = set()
    with suppress(importlib.metadata.PackageNotFoundError, OSError, fatbin.NotRead):
        for file in importlib.metadata.files(package) or []:
            if ".so" in file.suffixes:
                found.update(fatbin.archs(file.locate()))
    return fatbin.ordered(found)


def attempt(wheel, spec, before):
    """One rung: how it went. A wheel that isn't proven is taken out again, and so is what came with it."""
    began, limits = time.monotonic(), spec["seconds"]
    row = {"rung": wheel["rung"], "wheel": wheel["name"]} | ({"built": wheel["built"]} if "built" in wheel else {})
    why, more = install(wheel, spec, limits["install"])
    if why is None:
        row |= {"version": installed(spec["package"]), "archs": archs(spec["package"])}
        why, more = prove(spec, limits)
    row["proof" if why is None else "last"] = more
    if why is not None:
        remove(spec, before)
    return {**row, "sha256": wheel["sha256"], "why_not": why, "minutes": minutes(began)}


def remove(spec, before):
    """Leave nothing of an attempt: the package, and companions that the env didn't have."""
    extra = [c["name"] for c in spec["companions"] if c["name"] not in before]
    there = [name for name in (spec["package"], *extra) if name and installed(name)]
    if there:
        pip("uninstall", "-q", "-y", *there, seconds=300)


def minutes(began):
    return round((time.monotonic() - began) / 60, 2)


def decide(spec):
    """The record: of the first wheel that proves itself, else of SDPA."""
    began = time.monotonic()
    made = {"attention": "sdpa", "rung": "sdpa", "version": None, "sha256": None, "archs": [], "proof": None}
    tried, before = list(spec["tried"]), {c["name"] for c in spec["companions"] if installed(c["name"])}
    if spec["gpu"]:
        for wheel in spec["wheels"]:
            row = attempt(wheel, spec, before)
            tried.append(row)
            if row["why_not"] is None:
                made |= {"attention": "flash_attention_2", **row}
                del made["why_not"]
                break
    rejected = spec["rejected"] if spec["gpu"] else [
        *spec["rejected"], "verification_gpu=False: no GPU here to prove it on"]
    if made["rung"] == "sdpa" and spec["last"]:
        remove(spec, before)
    reasons = [f"{row['rung']}: {row['why_not']}" for row in tried if row["why_not"]]
    reasons += [line for line in rejected if not (reasons and line.startswith("flash_attn="))]
    timed = speeds((made["proof"] or {}).get("speed", []))
    works = f"{made.get('wheel')} works" + (f", faster than SDPA here: {timed}" if timed else "")
    return {**made, "why": works if "wheel" in made else "; ".join(reasons), "tried": tried, "speed": timed,
            "head_dims": spec["head_dims"], "rejected": rejected,
            "build": spec["build"], "minutes": round(spec["minutes"] + minutes(began), 2),
            "fingerprint": spec["fingerprint"], "time": int(time.time())}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", required=True, type=json.loads)
    spec = parser.parse_args().spec
    record = decide(spec)
    if record["rung"] != "sdpa" or spec["last"]:
        (HERE / "flash_attn.json.new").write_text(json.dumps(record, indent=1))
        os.replace(HERE / "flash_attn.json.new", HERE / "flash_attn.json")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
