"""Runs on the host, under the env's python: try each flash-attn, keep one only if it proves itself, else SDPA.

Usage: attention.py --spec JSON. Each wheel (or kernel of the Hub: files, laid in kernels/ beside this) is installed,
imported in a process of its own with a time limit, then computes forward and backward for the head dimensions of the
models that train here (flash_attn_check.py). One that is wrong, or for one of them no faster than SDPA on this card, is
taken out again and the next one is tried.

Writes flash_attn.json beside itself, and prints it as its last line: the rung (fa4, wheel, kernel, fleet, build, git,
sdpa), why each one before it was not kept, version, sha256, the architectures that its .so really has code for, what
the proof measured, both speeds, minutes. Exits 0 with SDPA too, which is a normal end. `last` false in the spec: other
rungs may follow, so that without a good wheel nothing is decided and nothing written.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import fatbin  # beside this file, all of them
import flash_attn_check
import flash_ready

HERE = Path(__file__).resolve().parent
KERNELS = "kernels"
SAID_LINES, WIDTH = 5, 240
# torch first: flash-attn's library needs torch's to be loaded. bert_padding is what transformers takes of it.
IMPORT = ("import importlib.util as u; u.find_spec('torch') and __import__('torch'); import {0}; "
          "u.find_spec('{0}.bert_padding') and __import__('{0}.bert_padding')")
OTHERS = "import sys; sys.path.insert(0, {0!r}); import torch, flash_attn_check; flash_attn_check.function_of({1!r})"


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


def fetched(url, path, end, seconds):
    """The sha256 of what comes from an address into a file, as its bytes give it. Raises OSError, and HTTPException
    where the server talks something else."""
    with flash_ready.opened(url, min(60, seconds)) as answer, open(path, "wb") as file:
        while piece := answer.read1(1 << 20):  # what has come: a server that trickles never fills a read
            file.write(piece)
            if time.monotonic() > end:
                raise TimeoutError(f"no end within {seconds} s")
    return flash_ready.digest(path)


def lay(wheel, own, seconds):
    """(None, []) when a kernel of the Hub lies in its folder, each file by its sha256; else (why not, [])."""
    target = HERE / KERNELS / own["attention"]
    new, end = target.with_name(target.name + ".new"), time.monotonic() + seconds
    try:
        for file in own["files"]:
            path = new / "build" / own["build"] / file["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            url = f"{wheel['url']}/{urllib.parse.quote(file['path'])}"
            if fetched(url, path, end, seconds) != file["sha256"]:
                return f"not installed: {file['path']}: its bytes aren't those of the sha256 that is pinned", []
        shutil.rmtree(target, ignore_errors=True)
        os.replace(new, target)
        return None, []
    except (OSError, HTTPException) as error:
        return f"not installed: {getattr(error, 'reason', None) or error}", []
    finally:
        shutil.rmtree(new, ignore_errors=True)


def install(wheel, spec, seconds):
    """(None, []) when it is in, with what it imports and the env lacks; else (why not, last lines). Every byte is
    checked by its hash."""
    if spec.get("files"):
        return lay(wheel, spec, seconds)
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as scratch:
        if wheel["sha256"] is None:
            try:
                wheel["sha256"] = fetched(wheel["url"], Path(scratch) / wheel["name"], end, seconds)
                wheel["url"] = (Path(scratch) / wheel["name"]).as_uri()
            except (OSError, HTTPException) as error:
                return f"not installed: {getattr(error, 'reason', None) or error}", []
        wanted = [spec.get("requirement") or f"{spec['package']} @ {wheel['url']} --hash=sha256:{wheel['sha256']}"]
        wanted += [f"{c['name']}=={c['version']} {' '.join('--hash=' + each for each in c['hashes'])}"
                   for c in spec["companions"] if installed(c["name"]) is None]
        lock = Path(scratch, "lock.txt")
        lock.write_text("".join(f"{line}\n" for line in wanted))
        code, said = pip("install", "-q", "--no-deps", "--force-reinstall", "--timeout", "60", "--retries", "2",
                         "--require-hashes", "--only-binary", ":all:",
                         *flash_ready.at(spec["index"]), "-r", str(lock), seconds=max(1, round(end - time.monotonic())))
    if code == 0:
        return None, []
    wrong = [line for line in said if re.match(r"\s*ERROR: ", line)] or told(said)[-1:]
    why = wrong[0].strip().removeprefix("ERROR: ") if wrong else "pip said nothing"
    if "DO NOT MATCH THE HASHES" in why:
        why = "its bytes aren't those of the sha256 that is pinned"
    return f"not installed: {why[:WIDTH]}", told(said)


def prove(spec, limits):
    """(None, what was measured) where the installed package works and is faster than SDPA; (why not, what was measured)
    where it only works; else (why not, last lines)."""
    used = spec.get("attention", flash_attn_check.FLASH_2)
    module = re.sub(r"[-.]+", "_", spec["package"])
    imports = IMPORT.format(module) if used == flash_attn_check.FLASH_2 else OTHERS.format(str(HERE), used)
    code, said = run([sys.executable, "-c", imports], limits["import"])
    if code != 0:
        return f"installed, but can't be imported: {' '.join(told(said)[-1:])}", told(said)
    check = spec["check"]
    dims = ["--head-dims", *map(str, spec["head_dims"])] if spec["head_dims"] else []
    # A script beside us, or `-m module`, which knows no head dimensions.
    named = [] if used == flash_attn_check.FLASH_2 else ["--attention", used]
    proof = [str(HERE / check), *dims, *named] if check.endswith(".py") else check.split()
    code, said = run([sys.executable, *proof], spec.get("check_s", limits["check"]))
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
        return f"right, but no faster than SDPA on this card: {speeds(slow)}", measured
    return None, measured


def not_faster(rows, percent):
    """Those head dimensions for which it isn't faster than SDPA by so much; a time that is none is no proof."""
    return [row for row in rows if not row["ms"] * (1 + percent / 100) <= row["sdpa_ms"]]


def speeds(rows):
    """`head_dim 128: 1.90 ms, SDPA 2.20 ms; …`, forward and backward."""
    return "; ".join(f"head_dim {row['head_dim']}: {row['ms']:.2f} ms, SDPA {row['sdpa_ms']:.2f} ms" for row in rows)


def archs(spec):
    """What the shared objects of what is installed have code for."""
    found = set()
    with suppress(importlib.metadata.PackageNotFoundError, OSError, fatbin.NotRead):
        if spec.get("files"):
            files = (HERE / KERNELS / spec["attention"]).rglob("*.so")
        else:
            found_here = importlib.metadata.files(spec["package"]) or []
            files = [file.locate() for file in found_here if ".so" in file.suffixes]
        for file in files:
            found.update(fatbin.archs(file))
    return fatbin.ordered(found)


def attempt(wheel, spec, before):
    """One rung: how it went. What isn't proven is taken out again, and so is what came with it."""
    began, limits = time.monotonic(), spec["seconds"]
    if "own" in wheel:  # flash-attn 4's files and flash-attn 2's lie in one folder: never both
        remove(spec, before)
        spec = {**spec, **wheel["own"]}
    row = {"rung": wheel["rung"], "wheel": wheel["name"]} | ({"built": wheel["built"]} if "built" in wheel else {})
    why, more = install(wheel, spec, limits["install"])
    if why is None:
        row |= {"version": spec.get("version") or installed(spec["package"]), "archs": archs(spec)}
        why, more = prove(spec, limits)
    if isinstance(more, dict):
        row["proof"] = more
    if why is not None:
        row["last"] = [speeds(more["speed"])] if isinstance(more, dict) else more
        remove(spec, before)
    elif "own" in wheel:
        came = [c["name"] for c in spec["companions"] if c["name"] not in before and installed(c["name"])]
        row |= {"attention": spec["attention"], "came": [name for name in (spec["package"], *came) if name]}
    return {**row, "sha256": wheel["sha256"], "why_not": why, "minutes": minutes(began)}


def remove(spec, before):
    """Leave nothing of an attempt: the package or the kernel, and companions that the env didn't have."""
    shutil.rmtree(HERE / KERNELS, ignore_errors=True)
    extra = [c["name"] for c in spec["companions"] if c["name"] not in before]
    uninstall(spec["package"], *extra)


def uninstall(*names):
    """Take out those of them that are there. pip leaves the folder above a package's own, which an import then takes
    for the package: flash-attn 4 is flash_attn/cute."""
    there = [name for name in names if name and installed(name)]
    if not there:
        return
    above = {folder for name in there for file in importlib.metadata.files(name) or [] if ".." not in file.parts
             for folder in list(Path(file.locate()).parents)[:len(file.parts) - 1]}
    pip("uninstall", "-q", "-y", *there, seconds=300)
    for folder in sorted(above, key=lambda folder: -len(folder.parts)):
        with suppress(OSError):  # it has something of another package
            folder.rmdir()


def minutes(began):
    return round((time.monotonic() - began) / 60, 2)


def forget():
    """Take out what an earlier decision for flash-attn 4 or a kernel brought, and its record: what is decided now may
    be another, and what broke off in between is decided anew."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        came = json.loads((HERE / "flash_attn.json").read_text())["came"]
        (HERE / "flash_attn.json").unlink()
        shutil.rmtree(HERE / KERNELS, ignore_errors=True)
        uninstall(*came)


def decide(spec):
    """The record: of the first rung that proves itself, else of SDPA."""
    began = time.monotonic()
    forget()
    made = {"attention": "sdpa", "rung": "sdpa", "version": None, "sha256": None, "archs": [], "proof": None}
    rows = (spec, *(wheel["own"] for wheel in spec["wheels"] if "own" in wheel))
    before = {c["name"] for row in rows for c in row["companions"] if installed(c["name"])}
    tried = list(spec["tried"])
    if spec["gpu"]:
        for wheel in spec["wheels"]:
            row = attempt(wheel, spec, before)
            tried.append(row)
            if row["why_not"] is None:
                made |= {"attention": flash_attn_check.FLASH_2, **row}
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
