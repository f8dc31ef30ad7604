"""The whole state of a host in one exec: every fact of this package, composed."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from qwen_rig.facts import _conda, _condarc, _dist, _dpkg, _driver, _host, _klog, _nvcc, _paths, _pci, _sh
from qwen_rig.facts._fact import ProbeFact
from qwen_rig.facts.driver import SETUP
from qwen_rig.facts.gpu import listed, odd

EMPTY: dict[str, Any] = {
    "host": _host.EMPTY, "pci_gpus": [], "gpus": [], "driver": _driver.EMPTY, "cuda": [], "conda": [],
    "condarc": _condarc.EMPTY, "env": None, "generations": [], "refused": [], "dpkg": {}, "files": {}, "texts": {},
    "kernel_log": _klog.EMPTY, "driver_upgrade": None, "problems": {},
}
TEXT_MAX = 8192  # bytes of a file whose text is brought along; the ones we manage are far smaller


def _files(paths: Iterable[str]) -> str:
    """Shell that prints `digest path` for each file, or `absent` or `unreadable` in the digest's place, the latter also
    before a digest."""
    return rf"""set --
for f in {_quoted(paths)}; do
  if [ ! -e "$f" ]; then printf 'absent %s\n' "$f"; continue; fi
  printf 'unreadable %s\n' "$f"
  [ -f "$f" ] && [ -r "$f" ] && set -- "$@" "$f"
done
[ $# -eq 0 ] || sha256sum "$@"
"""


def _texts(paths: Iterable[str]) -> str:
    """Shell that prints each small file that can be read, its lines behind a bar."""
    return rf"""set --
for f in {_quoted(paths)}; do
  [ -f "$f" ] && [ -r "$f" ] || continue
  if [ -s "$f" ]; then set -- "$@" "$f"; else printf '##text %s\n' "$f"; fi
done
[ $# -eq 0 ] || awk -v most={TEXT_MAX} '
  function tell() {{ if (path != "" && size <= most) printf "##text %s\n%s", path, text }}
  FNR == 1 {{ tell(); path = FILENAME; text = ""; size = 0 }}
  {{ size += length($0) + 1; if (size <= most) text = text "|" $0 "\n" }}
  END {{ tell() }}' "$@"
"""


def _quoted(words: Iterable[str]) -> str:
    return " ".join(map(shlex.quote, words))


def _read_texts(text: str) -> dict[str, str]:
    """path → what it holds."""
    found: dict[str, str] = {}
    path = ""
    for line in text.splitlines():
        if line.startswith("##text "):
            path = line[len("##text "):].strip()
            found[path] = ""
        elif path and line.startswith("|"):
            found[path] += line[1:] + "\n"
    return found


def _digests(text: str) -> dict[str, str | None]:
    """path → sha256, None (absent) or "unreadable"."""
    found: dict[str, str | None] = {}
    for line in text.splitlines():
        digest, _, path = line.partition(" ")
        path = path.lstrip(" *")  # sha256sum has two signs there
        if path:
            found[path] = None if digest == "absent" else digest or "unreadable"
    return found


def _cuda(text: str) -> tuple[list[dict[str, Any]], str | None]:
    """The toolkits whose compiler answers; and a line on the first that doesn't."""
    found = _nvcc.read(text)
    if wrong := _nvcc.unfit(text):
        return [row for row in found if row["release"]], wrong
    mute = next((row["path"] for row in found if row["release"] is None), None)
    return [row for row in found if row["release"]], mute and f"{mute}/bin/nvcc does not answer with a version"


def _own_alone(state: dict[str, Any], looked: _paths.Looked, envs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep in the state what is ours alone, and say of the rest why not; the envs likewise, which come back."""
    state["refused"] = looked.refused
    state["conda"] = [row for row in state["conda"] if looked.fit(_paths.CONDA, row["prefix"])]
    state["generations"] = [row for row in state["generations"] if looked.fit(_paths.ENV, row["path"])]
    for disk in state["host"]["disks"]:
        disk["writable"] = disk["writable"] and looked.fit(_paths.PLACE, f"{disk['mount'].rstrip('/')}/{_conda.PLACE}")
    return [row for row in envs if looked.fit(_paths.ENV, row["path"])]


class HostState(ProbeFact[dict[str, Any]]):
    """All that a plan needs to know of a host, as plain data: facts.state.State gives it types. Every key is always
    there; what couldn't be read is empty (the driver's `error` is then "unknown") and has a line in `problems`.

    **Example:**

    .. code:: python

        {"host": {…},           # facts.host.Host, and in gpu_users also processes that only nvidia-smi sees
         "pci_gpus": [{…}],     # facts.gpu.PciGpus
         "gpus": [{…}],         # facts.gpu.Gpus, each with mig: True, False or None
         "driver": {…, "nouveau_loaded": False, "excerpt": None, "installed_flavour": "open"},
                                # facts.driver.NvidiaDriver; excerpt: the words that tell the error
         "cuda": [{…}],         # facts.cuda.CudaToolkits, of the compilers that answered
         "conda": [{…}],        # facts.conda.CondaInstalls, the one that holds the env first
         "condarc": {"channel_alias": "https://mirror.example", "custom_channels": {"conda-forge": "https://…"},
                     "envs_dirs": ["/data/envs"]},   # what conda's configuration files say
         "env": {…},            # facts.env.EnvPackages of env_name; None where there is none
         "generations": [{"name": ".qwen-train-0a1b2c3d4e5f-1", "path": "/root/miniforge3/envs/.q…", "complete": True,
                          "records": {"env": {…}, "flash_attn": None, "verification": None, "training": None},
                          "beside": {"accelerate.yaml": "9f86d08…"}}],   # sha256
         "refused": [{"kind": "conda", "subject": "/opt/conda", "path": "/opt/conda/bin", "at": "/opt/conda",
                      "why": "…", "remedy": "…", "foreign": True}],   # what isn't ours alone: passed over
         "dpkg": {"nvidia-open": "580.95.05-1"},
         "files": {"/etc/modprobe.d/x.conf": "9f86d08…"},   # sha256; None: absent; "unreadable"
         "texts": {"/etc/modprobe.d/x.conf": "blacklist nouveau\n"},   # of those that can be read and are small
         "kernel_log": {…},      # facts.log.KernelLog
         "driver_upgrade": None,  # facts.log.UnattendedDriverUpgrade
         "problems": {}}
    """

    @staticmethod
    def default() -> dict[str, Any]:
        """A host that said nothing."""
        return {**copy.deepcopy(EMPTY), "problems": {"probe": "the host printed nothing"}}

    def command(self, env_name: str = "qwen-train", conda_prefix: str | None = None,
                data_dir: str | None = None, files: Iterable[str] | str = ()) -> str:
        """`files`: paths whose sha256 and text are wanted (a string holds one, or several with commas between)."""
        paths = files.split(",") if isinstance(files, str) else tuple(files)
        sections = {**_driver.SECTIONS, **_pci.SECTIONS, **_nvcc.SECTIONS, **_host.SECTIONS, **_conda.SECTIONS,
                    **_condarc.SECTIONS, **_klog.SECTIONS, **_conda.env_sections(), **_paths.SECTIONS,
                    "files": _files(paths), "texts": _texts(paths),
                    "asked": f"printf '%s\\n' {shlex.quote(conda_prefix or '')}",
                    "asked_data": f"printf '%s\\n' {shlex.quote(data_dir or '')}"}
        return _sh.script(sections, SETUP + _conda.find(conda_prefix, data_dir) + _conda.find_envs(env_name)
                          + _paths.OWN_PATHS)

    def read(self, text: Mapping[str, str]) -> dict[str, Any]:
        """The state. Never raises for what a host says."""
        state = copy.deepcopy(EMPTY)
        state["host"], problems = _host.read(text)
        parts: dict[str, Callable[[], tuple[Any, str | None]]] = {
            "pci_gpus": lambda: (_pci.read(text["pci"]), None),
            "gpus": lambda: (listed(text), None),
            "driver": lambda: _driver.parts(text),
            "cuda": lambda: _cuda(text["cuda"]),
            "conda": lambda: (_conda.read(text["conda"]), None),
            "condarc": lambda: (_condarc.read(text.get("condarc", "")), None),
            "env": lambda: (_dist.read(text["env"]), None),
            "generations": lambda: _conda.read_generations(text["generations"]),
            "dpkg": lambda: (_dpkg.read(text["dpkg"]), None),
            "files": lambda: (_digests(text["files"]), None),
            "texts": lambda: (_read_texts(text.get("texts", "")), None),
            "kernel_log": lambda: (_klog.kernel(text.get("log.kernel", "")), None),
            "driver_upgrade": lambda: (_klog.upgrade(text.get("log.apt", "")), None),
        }
        for part, parse in parts.items():
            parsed, problem = _sh.attempt(parse)
            if parsed is not None:
                state[part], problem = parsed
            if problem:
                problems[part] = problem
        looked, problem = _sh.attempt(lambda: _paths.looked_at(text["paths"], text["host.mounts"]))
        if problem:
            problems["paths"] = problem
        envs = _own_alone(state, looked or _paths.NOTHING, state["env"] or [])
        state["conda"], state["env"] = _conda.arrange(state["conda"], envs, text.get("asked"),
                                                       text.get("asked_data", "").strip(),
                                                       state["condarc"]["envs_dirs"])
        if _sh.END not in text:
            problems["probe"] = "the probe's output breaks off"
        if wrong := _sh.pairs(text.get("smi", "")).get("unfit"):
            problems["nvidia-smi"] = wrong
        problems |= {cell: f"nvidia-smi says {word}" for cell, word in odd(text).items()}
        state["problems"] = problems
        return state
