"""A STAND-IN for the Hugging Face Hub: two make-believe models and a kernel, in the form that its API lists, as plain
files.

The models' names are nobody's on the real hub, and their weights are random bytes that compute nothing. The kernel has
the name of the real one, since programs ask for that; its code is PyTorch's SDPA.
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
KERNEL = "kernels-community/flash-attn2"
BUILD = "build/torch-stable-abi210-cu130-x86_64-linux"
KERNEL_FILES: dict[str, bytes] = {
    "__init__.py": b"""\"\"\"A stand-in for Hugging Face's flash-attn2: SDPA.\"\"\"
import torch


def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, **others):
    out = torch.nn.functional.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (q, k, v)), is_causal=causal, scale=softmax_scale, enable_gqa=True)
    return out.transpose(1, 2).contiguous()


def flash_attn_varlen_func(q, k, v, cu_seqlens_q=None, cu_seqlens_k=None, max_seqlen_q=None, max_seqlen_k=None, **more):
    raise NotImplementedError
""",
    "metadata.json": b'{"id": "_flash_attn2_cuda_standin", "name": "flash-attn2", "version": 3, '
                     b'"license": "BSD-3-Clause", "python-depends": [], "backend": {"type": "cuda"}}\n',
    "ops/__init__.py": b"",
    "_flash_attn2_cuda_standin.abi3.so": random.Random(1).randbytes(1 << 20),
}
# The hub keeps these in LFS, and lists their sha256.
LARGE = ("_flash_attn2_cuda_standin.abi3.so", "model.safetensors", "pytorch_model.bin")


def folder() -> Path:
    """Where it lies, made once: api/models/MODEL/revision/main is the listing, MODEL/resolve/COMMIT/… the files."""
    made = cache() / "hub-2"
    with locked("hub"):
        if not (made / "done").exists():
            for name, text in FILES.items():
                _write(made / MODEL / "resolve" / COMMIT / name, text)
            _write(made / "api" / "models" / MODEL / "revision" / "main", json.dumps(listing()).encode())
            big = {**listing(), "siblings": [{"rfilename": "model.safetensors", "size": 1 << 50, "blobId": "0" * 40}]}
            _write(made / "api" / "models" / TOO_BIG / "revision" / "main", json.dumps(big).encode())
            _kernel(made)
            (made / "done").touch()
    return made


def _kernel(made: Path) -> None:
    """kernels/KERNEL/resolve/COMMIT/… are its files, api/kernels/KERNEL/… what the API says of branch v3."""
    api, rows = made / "api" / "kernels" / KERNEL, []
    for name, text in KERNEL_FILES.items():
        _write(made / "kernels" / KERNEL / "resolve" / COMMIT / BUILD / name, text)
        git = hashlib.sha1(b"blob %d\0" % len(text) + text).hexdigest()
        lfs = {"lfs": {"oid": hashlib.sha256(text).hexdigest(), "size": len(text), "pointerSize": 132}}
        rows.append({"type": "file", "oid": git, "size": len(text), "path": f"{BUILD}/{name}"}
                    | (lfs if name in LARGE else {}))
    rows.append({"type": "directory", "oid": "0" * 40, "size": 0, "path": f"{BUILD}/ops"})
    _write(api / "revision" / "v3", json.dumps({"id": KERNEL, "sha": COMMIT}).encode())
    _write(api / "tree" / COMMIT / BUILD, json.dumps(rows).encode())


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
