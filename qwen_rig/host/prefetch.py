"""Runs on the host, under the env's python: fetch a model into Hugging Face's cache, where from_pretrained finds it.

Usage: prefetch.py --spec JSON --record FILE. Nothing but the standard library. Each file is checked against the hub's
own listing (sha256 of a large file, git's sha1 of a small one), goes on where it was cut off, and is not fetched again
where it is whole. The layout is huggingface_hub's: blobs/<etag>, snapshots/<commit>/<file> → blobs, refs/main.
"""

import argparse
import fnmatch
import hashlib
import json
import os
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

MIB = 1 << 20
TRIES, LIES, TIMEOUT = 5, 2, 60  # of each file; whole but other bytes; seconds without a byte


class Stop(Exception):
    """Why there is no model: one line, for people."""


def opened(url, start=0):
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    return urllib.request.urlopen(request, timeout=TIMEOUT)


def listing(spec):
    """(commit, [(name, bytes, sha256 or None, blob)]) of the wanted files; the cache calls a file by its blob."""
    url = f"{spec['endpoint'].rstrip('/')}/api/models/{spec['model']}/revision/main?blobs=true"
    try:
        with opened(url) as answer:
            told = json.load(answer)
        files = []
        for row in told["siblings"]:
            name, large = row["rfilename"], row.get("lfs") or {}
            if not any(fnmatch.fnmatch(name, pattern) for pattern in spec["files"]):
                continue
            blob = large.get("sha256") or row["blobId"]
            if name.startswith("/") or ".." in name.split("/") or not (blob + told["sha"]).isalnum():
                raise Stop(f"{spec['endpoint']} lists {name!r}, which is no file of a model")
            files.append((name, int(large.get("size") or row["size"]), large.get("sha256"), blob))
    except urllib.error.HTTPError as error:
        hint = {401: "no such model, or one that wants a login", 403: "it wants a login", 404: "no such model"}
        raise Stop(f"{spec['model']} at {spec['endpoint']}: {hint.get(error.code, f'HTTP {error.code}')}; check "
                   "prefetch_model and source_huggingface") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Stop(f"{spec['endpoint']} doesn't list {spec['model']} ({type(error).__name__}: {error}): set "
                   "source_huggingface to a mirror") from None
    if not files:
        raise Stop(f"{spec['model']} has no file that training takes ({', '.join(spec['files'])})")
    return told["sha"], files


def digest(path, size, sha256):
    """The sum that the listing names: a large file's own, else git's, which is over its size too."""
    made = hashlib.sha256() if sha256 else hashlib.sha1(b"blob %d\0" % size)
    with open(path, "rb") as stream:
        while chunk := stream.read(4 * MIB):
            made.update(chunk)
    return made.hexdigest()


def fetch(url, partial, size, seen):
    """Bring the rest of a file; `seen` is told of each piece."""
    start = partial.stat().st_size if partial.exists() else 0
    if start >= size:
        return
    with opened(url, start) as answer, open(partial, "ab") as stream:
        if start and answer.status != 206:  # it begins anew
            stream.truncate(0)
        while chunk := answer.read(MIB):
            stream.write(chunk)
            seen()


def whole(url, blob, size, sha256, expected, seen):
    """The blob, there and checked."""
    partial = blob.with_name(f"{blob.name}.incomplete")
    why, lies = "", 0
    for turn in range(TRIES):
        if turn:
            time.sleep(2 ** (turn - 1))
        try:
            fetch(url, partial, size, seen)
            if partial.stat().st_size == size and digest(partial, size, sha256) == expected:
                os.replace(partial, blob)
                return
            why = "its bytes aren't those that the hub lists"
            if partial.stat().st_size >= size:
                partial.unlink()
                lies += 1
            if lies == LIES:
                break
        except urllib.error.HTTPError as error:
            why = f"HTTP {error.code}"
            if error.code in (401, 403, 404):
                break
        except OSError as error:
            why = str(error)
            if getattr(error, "errno", None) == 28:  # ENOSPC
                break
    raise Stop(f"{url}: {why}")


def need_room(spec, home, blobs, need):
    """Raises Stop where the disk has less than these bytes and the margin."""
    free = shutil.disk_usage(blobs).free
    if need + spec["margin_mib"] * MIB > free:
        raise Stop(f"{home} has {free / MIB / 1024:.1f} GiB free, and {spec['model']} takes "
                   f"{need / MIB / 1024:.1f} GiB more: free some, or set data_dir to a folder on a bigger disk")


def lead(link, file):
    """Make a link to a file, relative as the Hub's own library makes them, where there is none."""
    link.parent.mkdir(parents=True, exist_ok=True)
    target = os.path.relpath(file, link.parent)
    if not link.is_symlink() or os.readlink(link) != target:
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spec", required=True, type=json.loads)
    parser.add_argument("--record", required=True, type=Path)
    given = parser.parse_args()
    spec = given.spec
    home = Path(spec["home"] or os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    commit, files = listing(spec)
    repository = home / "hub" / f"models--{spec['model'].replace('/', '--')}"
    blobs, snapshot = repository / "blobs", repository / "snapshots" / commit
    blobs.mkdir(parents=True, exist_ok=True)
    lacking = [row for row in files if not (blobs / row[3]).exists()]
    parts = {blob: partial.stat().st_size for _, _, _, blob in lacking
             if (partial := blobs / f"{blob}.incomplete").exists()}
    total = sum(size for _, size, _, _ in lacking)
    need_room(spec, home, blobs, total - sum(parts.values()))

    def seen():
        done = sum(path.stat().st_size for _, _, _, blob in lacking
                   for path in (blobs / blob, blobs / f"{blob}.incomplete") if path.exists())
        if done // MIB > seen.said + total // MIB // 100:  # a hundred marks at most
            seen.said = done // MIB
            print(f"@progress {seen.said} {total // MIB} MiB", flush=True)

    seen.said = 0
    base = f"{spec['endpoint'].rstrip('/')}/{spec['model']}/resolve/{commit}"
    for name, size, sha256, blob in lacking:
        whole(f"{base}/{urllib.parse.quote(name)}", blobs / blob, size, sha256, blob, seen)
    for name, _, _, blob in files:
        lead(snapshot / name, blobs / blob)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    record = {"model": spec["model"], "endpoint": spec["endpoint"], "commit": commit, "snapshot": str(snapshot),
              "home": str(home), "files": len(files), "bytes": sum(size for _, size, _, _ in files),
              "fetched": total, "time": int(time.time())}
    given.record.with_name(f"{given.record.name}.new").write_text(json.dumps(record, indent=1))
    os.replace(given.record.with_name(f"{given.record.name}.new"), given.record)
    print(f"{spec['model']}: {len(files)} files, {record['bytes'] // MIB} MiB, {total // MIB} MiB of them fetched now")


if __name__ == "__main__":
    try:
        main()
    except Stop as why:
        sys.exit(f"qwen-rig: {why}")
