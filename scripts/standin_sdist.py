"""Build a source distribution that stands in for flash-attn's: `standin_sdist.py FOLDER VERSION [WHAT]`.

Small, CUDA-free and real: it is fetched, built in the bounds of a real build, installed and proven as flash-attn is,
but computes nothing. WHAT says how its compiler behaves after the first of three objects: good · fails · hangs · hungry
(it takes memory until somebody ends it) · fills (the disk) · wrong (its wheel imports, its kernels don't work).
The same words give the same bytes, so the same sha256, on every machine.
"""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
from pathlib import Path

NAME, OBJECTS = "rig-standin-attn", 3
MODULE = NAME.replace("-", "_")
KINDS = {
    "good": "pass",
    "wrong": "pass",
    "fails": 'print("two.cu(7): error: identifier \\"stand_in\\" is undefined", flush=True); raise SystemExit(2)',
    "hangs": "time.sleep(3600)",
    "hungry": "held = [bytearray(b'x') * (8 << 20) for _ in range(1 << 12)]",
    "fills": "fill()",
}
SETUP = '''"""A stand-in for flash-attn's setup.py: it prints what ninja would, and compiles nothing."""
import time

from setuptools import setup
from setuptools.command.build_py import build_py


def fill():
    with open("object.o", "wb") as file:
        while True:
            file.write(bytes(1 << 20))


class Compiled(build_py):
    def run(self):
        for done in range(1, {objects} + 1):
            print(f"[{{done}}/{objects}] nvcc {{done}}.cu", flush=True)
            if done == 1:
                {now}
        super().run()


setup(name="{name}", version="{version}", packages=["{module}"], cmdclass={{"build_py": Compiled}})
'''
INIT = '"""A stand-in for flash-attn: it computes nothing."""\n\n__version__ = "{version}"\n'
MAIN = '''"""Self-test in place of a GPU's: exits 0 when the package was installed whole."""

from importlib.metadata import version

from {module} import __version__

assert version("{name}") == __version__
{wrong}print("{name}", __version__, "is a stand-in and works as one")
'''


def build(folder: Path, version: str, what: str = "good") -> Path:
    """Write the sdist into `folder`; returns its path."""
    words = {"name": NAME, "module": MODULE, "version": version, "objects": OBJECTS}
    wrong = 'raise SystemExit("no kernel image is available for execution on the device (a stand-in\'s)")\n'
    files = {"setup.py": SETUP.format(**words, now=KINDS[what]), f"{MODULE}/__init__.py": INIT.format(**words),
             f"{MODULE}/__main__.py": MAIN.format(**words, wrong=wrong if what == "wrong" else ""),
             "PKG-INFO": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {version}\n"}
    target = folder / f"{MODULE}-{version}.tar.gz"
    folder.mkdir(parents=True, exist_ok=True)
    with open(target, "wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed, \
            tarfile.open(fileobj=packed, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"{MODULE}-{version}/{name}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return target


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4) or (sys.argv[3:] and sys.argv[3] not in KINDS):
        sys.exit(f"usage: python scripts/standin_sdist.py FOLDER VERSION [{'|'.join(KINDS)}]")
    print(build(Path(sys.argv[1]), *sys.argv[2:]))
