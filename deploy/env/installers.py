"""The arguments of shell/packages.sh, which installs a lock: by uv where it can be fetched, else by pip; from the best
source, and from the next where one fails or serves other bytes than the lock's. Where a package is built,
what builds it is locked too."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib.resources import files
from urllib.parse import urlsplit

from qwen_rig.catalog.torch_index import TorchSource
from qwen_rig.network.route import Source, torch_sources
from qwen_rig.plan import Context
from qwen_rig.program import lines
from qwen_rig.run.place import place
from qwen_rig.run.run import Run

LIBRARY = ("shell/place.sh", "shell/network.sh", "shell/torn.sh", "shell/packages.sh")


def uv_lock() -> str:
    """The lock of the installer itself: one line, `uv==VERSION` and the hashes of its Linux x86_64 wheels."""
    return (files("qwen_rig.data") / "locks" / "uv.lock.txt").read_text()


def options(source: Source, uv: bool = False) -> str:
    """pip's (or uv's) options that name a source, with blanks between; empty for the client's own default. A plain-http
    one is the user's own choice: hashes guard the bytes. ValueError where its URL has blanks."""
    if source.url is None:
        return ""
    if len(source.url.split()) != 1:
        raise ValueError(f"{source.url!r} is no URL")
    named = "--no-index --find-links" if source.role == "torch_find_links" else "--index-url"
    words = f"{named} {source.url}"
    if source.url.startswith("http://"):
        words += f" {'--allow-insecure-host' if uv else '--trusted-host'} {urlsplit(source.url).hostname or ''}"
    return words


def installers(run: Run, ctx: Context, names: Iterable[str]) -> dict[str, str]:
    """The variables of that library for installing these packages, but for torch's."""
    python = ctx.knobs.python
    tools = ctx.stack.build_lock_text if ctx.stack.built(names, python) else ""
    lock, sources = uv_lock(), run.network.route(ctx, ["pip_index"]).of("pip_index")
    return {"place": place(ctx), **run.network.way_out(ctx), "wanted_installer": ctx.knobs.installer,
            "build_lock": tools, "build_id": hashlib.sha256(f"{python}\n{tools}".encode()).hexdigest()[:12],
            "uv_version": lock.split("==", 1)[1].split()[0], "uv_lock": lock,
            "pip_sources": lines(f"{source.label} {options(source)}" for source in sources),
            "uv_sources": lines(f"{source.label} {options(source, uv=True)}" for source in sources)}


def torch_install(ctx: Context, torch: TorchSource | None) -> dict[str, str]:
    """The variables for the torch packages from an index of their own; empty where they're in the lock. Mirrors of that
    index stand by only where our hashes guard the bytes."""
    if torch is None:
        return {"torch_lock": "", "torch_pip": "", "torch_uv": ""}
    more = (" --require-hashes" if torch.hashed else "") + ("" if torch.deps else " --no-deps")
    pip, uv = (" --pre", " --prerelease allow") if torch.pre else ("", "")
    sources = torch_sources(ctx, torch)
    return {"torch_lock": torch.requirements, "torch_pip": lines(options(s) + more + pip for s in sources),
            "torch_uv": lines(options(s, uv=True) + more + uv for s in sources)}
