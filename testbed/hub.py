"""A STAND-IN for the Hugging Face Hub: two make-believe models in the form that its API lists, as plain files.

Their names are nobody's on the real hub, and their weights are random bytes that compute nothing.
"""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

from .paths import cache, locked

MODEL = "qwen-rig-testbed/standin-model"
TOO_BIG = "qwen-rig-testbed/too-big"  # listed with a size that no disk has
COMMIT = hashlib.sha1(b"the stand-in hub").hexdigest()
FILES: dict[str, bytes] = {
    "config.json": b'{"model_type": "qwen2", "standin": true}\n',
    "tokenizer.json": b'{"standin": true}\n',
    "nested/notes.txt": b"a file in a folder of its own\n",
    "README.md": b"not fetched: training reads none of it\n",
    "pytorch_model.bin": b"not fetched: the same weights a second time\n",
    "model.safetensors": random.Random(0).randbytes(3 << 20),
}
LARGE = ("model.safetensors", "pytorch_model.bin")  # the hub keeps these in LFS, and lists their sha256


def folder() -> Path:
    """Where it lies, made once: api/models/MODEL/revision/main is the listing, MODEL/resolve/COMMIT/… the files."""
    made = cache() / "hub-1"
    with locked("hub"):
        if not (made / "done").exists():
            for name, text in FILES.items():
                _write(made / MODEL / "resolve" / COMMIT / name, text)
            _write(made / "api" / "models" / MODEL / "revision" / "main", json.dumps(listing()).encode())
            big = {**listing(), "siblings": [{"rfilename": "model.safetensors", "size": 1 << 50, "blobId": "0" * 40}]}
            _write(made / "api" / "models" / TOO_BIG / "revision" / "main", json.dumps(big).encode())
            (made / "done").touch()
    return made


def listing() -> dict[str, object]:
    """What the hub's API says of the model with ?blobs=true."""
    rows: list[dict[str, object]] = []
    for name, text in FILES.items():
        git = hashlib.sha1(b"blob %d\0" % len(text) + text).hexdigest()
        row: dict[str, object] = {"rfilename": name, "size": len(text), "blobId": git}
        if name in LARGE:
            row["lfs"] = {"sha256": hashlib.sha256(text).hexdigest(), "size": len(text), "pointerSize": 132}
        rows.append(row)
    return {"id": MODEL, "sha": COMMIT, "siblings": rows}


def _write(path: Path, text: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
