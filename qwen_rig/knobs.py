"""The knobs of one host, read from pyinfra's data into a typed, checked object. group_data/all.py documents them."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from qwen_rig import values
from qwen_rig.bundle import load as load_bundle
from qwen_rig.catalog import models
from qwen_rig.catalog.conda_lock import load_conda_lock
from qwen_rig.catalog.sources import load_mirrors
from qwen_rig.catalog.stack import load_stack
from qwen_rig.catalog.torch_index import PYTORCH
from qwen_rig.domain import NAME as DOMAIN
from qwen_rig.domain import NO_NAMES
from qwen_rig.errors import RigError
from qwen_rig.frozen import frozen

DEFAULTS = Path(__file__).parent / "template" / "group_data" / "all.py"
stack_of = cache(load_stack)  # a lock takes a while to read

AUTO = "auto"  # a knob that another settles
GUIDE = "guide"  # the stack where nothing else says one
CHOICES: dict[str, tuple[str, ...]] = {
    "python": ("auto", "3.10", "3.11", "3.12", "3.13"),
    "installer": ("auto", "uv", "pip"),
    "nvidia_driver": ("auto", "never"),
    "reboot": ("auto", "never"),
    "compilers": ("auto", "never"),
    "cuda_toolkit": ("auto", "always", "never"),
    "flash_attn": ("auto", "wheel", "build", "fa4", "off"),
    "flash_attn_leader_failed": ("next", "sdpa"),
    "verification": ("auto", "always", "never"),
}
OFF = frozenset({"mirrors", "proxy_script", "prefetch_model",
                 *(name for name, words in CHOICES.items() if "off" in words)})
LISTS = ("source_apt", "only_steps", "skip_steps")  # several words, which YAML may have as a list
URLS = ("source_pip_index", "source_torch_index", "source_conda_channel", "source_miniforge", "source_nvidia_apt",
        "source_flash_attn", "source_huggingface")
PROXIES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")  # as curl knows them
TYPES: dict[str, Callable[[Any], object]] = {  # what a knob's text or number must be, besides its word in WORDS
    "env_name": values.env_name, "conda_prefix": values.prefix, "data_dir": values.data_folder,
    "only_steps": values.step_names, "skip_steps": values.step_names,
    "launch_address": values.address, "launch_port": values.port, "prefetch_model": values.model_id,
    "source_miniforge_version": values.release, "source_miniforge_sha256": values.sha256,
    "source_nvidia_apt_key": values.fingerprint, "proxy_script": values.host_file,
    "proxy": lambda value: values.url(value, *PROXIES), **dict.fromkeys(URLS, values.url),
    **dict.fromkeys(("bundle", "conda_lock", "stack", "model"), values.local_path),
    "nvidia_driver_branch": partial(values.whole, least=100, most=9999),
    **dict.fromkeys(("expect_gpus", "flash_attn_jobs"), partial(values.whole, most=1024)),
}
WORDS = {"prefetch_model": ("off",), "proxy_script": ("auto", "off"), "source_torch_index": (PYTORCH,)}
READ: dict[str, Callable[[str], object]] = {  # what a knob names is read at once, so that its mistakes are told
    "mirrors": load_mirrors, "bundle": load_bundle, "conda_lock": load_conda_lock,
    "stack": lambda name: stack_of(name).check() if name != AUTO else None,
    "model": lambda name: models.find(name, "the knob")}


@frozen
class Knobs:
    """One field a knob; the defaults stand in group_data/all.py, so none are repeated here."""

    only_steps: str | None
    skip_steps: str | None
    model: str | None
    stack: str
    python: str
    env_name: str
    conda_prefix: str | None
    data_dir: str | None
    installer: str
    nvidia_driver: str
    nvidia_driver_branch: int
    reboot: str
    expect_gpus: int | None
    allow_busy_gpu: bool
    compilers: str
    cuda_toolkit: str
    flash_attn: str
    flash_attn_leader_failed: str
    flash_attn_jobs: int | None
    flash_attn_git_head: bool
    flash_attn_unverified: bool
    prefetch_model: str | None
    verification: str
    verification_gpu: bool
    launch_address: str | None
    launch_port: int
    source_pip_index: str | None
    source_torch_index: str | None
    accept_unlocked_torch: bool
    source_conda_channel: str | None
    conda_lock: str | None
    accept_unpinned_python: bool
    source_miniforge: str | None
    source_miniforge_version: str | None
    source_miniforge_sha256: str | None
    source_nvidia_apt: str | None
    source_nvidia_apt_key: str | None
    source_apt: str | None
    source_flash_attn: str | None
    source_huggingface: str | None
    mirrors: str
    proxy: str | None
    proxy_script: str
    bundle: str | None
    trust_domain: str | None
    timeout_probe: int
    timeout_fetch: int
    timeout_apt: int
    timeout_apt_lock: int
    timeout_env: int
    timeout_flash_build: int
    timeout_verification: int
    timeout_certify: int
    timeout_prefetch: int
    timeout_launch: int
    timeout_reboot: int
    timeout_reconnect: int


NAMES = frozenset(field.name for field in fields(Knobs))
OLD: dict[str, tuple[str, ...]] = {  # names of 0.1.0, read for one release, and the knobs that each sets today
    "verify": ("verification",), "verify_gpu": ("verification_gpu",),
    "timeout_verify": ("timeout_verification", "timeout_certify")}
T = TypeVar("T")
FREE = "x_"  # data that begin so are handed on unread, for a deploy file of the user's own
PYINFRAS = ("_", "ssh_", "docker_", "chroot_")  # and so: pyinfra's own, global arguments and its connectors' data
MISSPELT = 0.8  # difflib's ratio from which on a name can only be a knob's: stakc, envname


def renamed(data: Mapping[str, T]) -> dict[str, T]:
    """The data with what their old names set under the new names as well; a new name that is there stands. Each source
    of data is renamed before one is laid over another, so that the stronger source wins by either name."""
    return {**{new: data[old] for old, names in OLD.items() if old in data for new in names}, **data}


def told_old(data: Collection[str]) -> str:
    """One line on the old names among these data, "" where there are none."""
    used = [f"{old} is now {' and '.join(names)}" for old, names in OLD.items() if old in data]
    return f"qwen-rig: knobs have new names: {', '.join(used)} · the old ones are read for this release" if used else ""


def unknown(name: str, where: str) -> RigError:
    """What to say of a name that is no knob."""
    close = get_close_matches(name, NAMES, 1)
    return RigError(f"there is no knob {name!r}", where,
                    f"did you mean {close[0]}?" if close else "see group_data/all.py for the knobs")


def ours(name: str) -> bool:
    """Whether a datum is for us to read: no other's prefix is on it."""
    return not name.startswith((FREE, *PYINFRAS))


def refuse_misspelt(data: Iterable[str], where: str) -> None:
    """Raises RigError for the first of a host's data that must be meant for a knob and is none. The rest may well be
    the user's own: groups carry what other deploy files read."""
    for name in data:
        if name not in NAMES and name not in OLD and ours(name) and get_close_matches(name, NAMES, 1, MISSPELT):
            raise unknown(name, where)


def pair(text: str) -> tuple[str, Any]:
    """The knob and its value, in its own type, that `--data KNOB=VALUE` gives; an old name stays. Raises RigError."""
    name, equals, value = text.partition("=")
    if not equals:
        raise RigError(f"{text!r} is no KNOB=VALUE", "--data", "see group_data/all.py for the knobs")
    if name not in NAMES and name not in OLD:
        raise unknown(name, "--data")
    return name, check(OLD.get(name, (name,))[0], parsed(value))


def parsed(text: str) -> Any:
    """The value of `--data` as pyinfra's command line reads it: true, false, a number, JSON, else the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for read_ in (int, json.loads):
        try:
            return read_(text)
        except ValueError:
            continue
        except RecursionError:  # pyinfra would end with a traceback
            raise RigError(f"{values.shown(text)} is nested too deep", "--data", "give a plain value") from None
    return text


@cache
def _kinds() -> Mapping[str, str]:
    """Each knob's type, as the class spells it."""
    return {field.name: str(field.type) for field in fields(Knobs)}


def check(name: str, value: Any, where: str = "--data") -> Any:
    """The value of one knob in its own type. Raises RigError naming the knob, what it got and what it takes."""
    kind = _kinds()[name]
    if kind.endswith("None") and (value is None or (isinstance(value, str) and value.lower() == "none")):
        return None
    if kind == "bool":
        if isinstance(value, bool):
            return value
        raise RigError(f"{name} must be true or false, not {value!r}", where, f"see {name} in group_data/all.py")
    if kind.startswith("int"):
        return _typed(name, value, where)
    if name in OFF and value is False:  # so YAML reads off
        value = "off"
    if name in LISTS and isinstance(value, list) and all(isinstance(each, str) for each in value):
        value = " ".join(value)
    if name == "mirrors" and isinstance(value, Mapping):  # written out in lab.yml
        value = json.dumps({str(key): block for key, block in value.items()}, default=str)
    if name == "python":
        value = str(value)  # YAML and --data read 3.11 as a number, and 3.10 as 3.1
        value = "3.10" if value == "3.1" else value
    if not isinstance(value, str) or not value:
        raise RigError(f"{name} must be a text, not {value!r}", where, f"see {name} in group_data/all.py")
    allowed = CHOICES.get(name)
    if allowed and value not in allowed:
        raise RigError(f"{name} can't be {value!r}", where, f"it takes {', '.join(allowed)}")
    if name == "source_apt":
        _archives(value, where)
    if name == "trust_domain" and (value.lower() in NO_NAMES or not DOMAIN.fullmatch(value)):
        raise RigError(f"trust_domain can't be {value!r}", where,
                       "a name for machines of your own that share (lab: a-z, 0-9, . _ -); left out, none do")
    value = _typed(name, value, where)
    if name in READ:
        try:
            READ[name](value)
        except RigError as error:
            # A file's own place says more than who named it; a name has none.
            own = error.where not in ("stack", "the knob", "--data")
            raise RigError(error.what, f"{error.where}, {where}" if own else where, error.remedy) from None
    return value


def _typed(name: str, value: Any, where: str) -> Any:
    """The value as its knob's type has it. Raises RigError."""
    if value in WORDS.get(name, ()):
        return value
    read_ = TYPES.get(name) or (values.seconds if name.startswith("timeout_") else None)
    try:
        return read_(value) if read_ else value
    except values.Wrong as wrong:
        raise RigError(f"{name} {wrong.what}", where, wrong.remedy or f"see {name} in group_data/all.py") from None


def _archives(value: str, where: str) -> None:
    """Refuse what is no address of an apt archive."""
    for each in filter(None, re.split("[ \t\n]+", value)):
        try:
            values.url(each, "https", "http")
            if not re.fullmatch(r"https?://[A-Za-z0-9.\-_:\[\]]+(/[A-Za-z0-9._~+,=-]+)*/?", each):
                raise values.Wrong("")
        except values.Wrong as wrong:
            login = wrong.what if "password" in wrong.what else f"can't hold {each!r}"
            raise RigError(f"source_apt {login}", where, "it takes archives as apt's sources name them, https:// or "
                           "http://, with blanks between") from None


def settled(found: Knobs, where: str) -> Knobs:
    """The knobs with what `model` settles: stack and prefetch_model; and the Python that the stack takes. Raises
    RigError where the stack can't train the model."""
    model = models.find(found.model, where) if found.model else None
    name = found.stack if found.stack != AUTO else model.ways.stack if model else GUIDE
    stack = stack_of(name)
    if model and stack.trains and model.family not in stack.trains:
        raise RigError(f"stack {name} can't train {model.name}: its transformers don't know {model.family}", where,
                       f"leave stack out, or take stack={model.ways.stack}")
    prefetch = None if found.prefetch_model == "off" else found.prefetch_model or found.model
    return replace(found, stack=name, python=stack.python if found.python == AUTO else found.python,
                   prefetch_model=prefetch)


@cache
def defaults() -> Mapping[str, Any]:
    """Each knob's default, as the package's own group_data/all.py has it."""
    found = runpy.run_path(str(DEFAULTS))
    return {field.name: found[field.name] for field in fields(Knobs)}


def read(data: Mapping[str, Any], where: str) -> Knobs:
    """The knobs of one host out of its data; one that the data lack has its default. Raises RigError, also where knobs
    clash."""
    given = renamed(data)
    found = settled(Knobs(**{name: check(name, given.get(name, default), where)
                             for name, default in defaults().items()}), where)
    stack = stack_of(found.stack)
    stack.check(found.python)
    stack.check_index(found.source_torch_index, found.accept_unlocked_torch, where)
    if found.bundle:
        load_bundle(found.bundle).check(stack.name, stack.lock_sha256, found.python)
    return found
