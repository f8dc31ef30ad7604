"""Build the wheel that stands in for flash-attn in stack `standin`: `python scripts/standin_wheel.py FOLDER`.

A tiny real wheel with a name of its own, so that the whole attempt (fetch, hash, install, prove or remove) can be run
where there is neither torch nor GPU. Fixed times, nothing compressed: the same bytes, so the same sha256, on every
machine; qwen_rig/data/stacks/standin.yml pins it.
"""

from __future__ import annotations

import base64
import hashlib
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

from qwen_rig import atomic

NAME, VERSION = "rig-standin-attn", "1.0"
MODULE = NAME.replace("-", "_")
FILE_NAME = f"{MODULE}-{VERSION}-py3-none-any.whl"
DIST_INFO = f"{MODULE}-{VERSION}.dist-info"
FILES = {
    f"{MODULE}/__init__.py": f'"""A stand-in for flash-attn: it computes nothing."""\n\n__version__ = "{VERSION}"\n',
    f"{MODULE}/__main__.py": (
        '"""Self-test: exits 0 when the wheel was installed whole."""\n\n'
        f"from importlib.metadata import version\n\nfrom {MODULE} import __version__\n\n"
        f'assert version("{NAME}") == __version__\nprint("{NAME}", __version__, "is a stand-in and works as one")\n'),
    f"{DIST_INFO}/METADATA": (f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n"
                              "Summary: A stand-in for flash-attn, for demonstrations and tests\n"),
    f"{DIST_INFO}/WHEEL": "Wheel-Version: 1.0\nGenerator: rig\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}


def build(folder: Path, more: Mapping[str, str | bytes] | None = None) -> Path:
    """Write the wheel into `folder`/v<version>/, as source_flash_attn expects it; returns its path.

    `more`: files beside or in place of its own, for one that is no good.
    """
    wanted: dict[str, str | bytes] = {**FILES, **(more or {})}
    record = "".join(f"{name},sha256={_digest(text)},{len(_bytes(text))}\n" for name, text in wanted.items())
    files = {**wanted, f"{DIST_INFO}/RECORD": f"{record}{DIST_INFO}/RECORD,,\n"}
    target = folder / f"v{VERSION}" / FILE_NAME
    # another testbed may be serving the file just now
    with atomic.replacing(target, 0o777) as partial, zipfile.ZipFile(partial, "w") as wheel:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))  # the earliest time a zip can hold
            entry.create_system = 3  # Unix, also where it is built elsewhere
            entry.external_attr = 0o644 << 16
            wheel.writestr(entry, text)
    return target


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def _digest(text: str | bytes) -> str:
    """As RECORD wants it: base64 for URLs, no padding (PEP 427)."""
    return base64.urlsafe_b64encode(hashlib.sha256(_bytes(text)).digest()).rstrip(b"=").decode()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/standin_wheel.py FOLDER")
    print(build(Path(sys.argv[1])))
