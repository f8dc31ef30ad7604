"""One training over several hosts: what must be the same on all, the batch of a process, which host failed first. Pure.

Who is rank 0 and by which network they meet is decided in qwen_rig/launch.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from qwen_rig import launch
from qwen_rig.errors import RigError
from qwen_rig.finetune import options
from qwen_rig.finetune.data import Data
from qwen_rig.frozen import frozen
from qwen_rig.launch import Launch, Member

PRECISION = ("bf16", "fp16", "torch_dtype")  # of training.json: made for a card, and no option
BATCH, STEPS, ATTENTION = "per_device_train_batch_size", "gradient_accumulation_steps", "attn_implementation"
LOST = ("aborted", "lost", "unreachable")  # states of a host that ended without a word of its own
FELL = re.compile(r"(\S+) fell away")  # train_follow.py's word
PASSED_ON = re.compile(r"ended, as |connection (closed|reset|refused)|timed? ?out|broken pipe|NCCL|gloo", re.IGNORECASE)


@frozen
class Seat:
    """One host that takes part, as it was found.

    `settings`: as far as they are known; `made`: its training.json; `env`: stack and lock's sha256; `model`,
    `data`: their versions, None of what isn't there; `each_card`: whether one card takes the whole model.
    """

    member: Member
    settings: Mapping[str, Any]
    made: Mapping[str, Any]
    env: tuple[str, str | None]
    model: str | None
    data: str | None
    each_card: bool

    @property
    def name(self) -> str:
        return self.member.name


@frozen
class End:
    """How one host's part ended. `state`: as a Record's, or unreachable; `why`: one line, "" of a wanted end."""

    host: str
    state: str
    why: str = ""


def carried(data: Data, on_host: bool) -> None:
    """Raises RigError for data that can't be known to be the same on all hosts."""
    if data.file is None and not on_host:
        raise RigError(f"each host would fetch its own copy of {data.name}, and they may differ", "--dataset_name",
                       "over several hosts take a file here, which is sent to each, or host:/PATH")


def together(seats: Sequence[Seat], on_host: bool) -> Launch:
    """The launch of these hosts, the first as rank 0. Raises RigError for the first thing that isn't alike."""
    made = launch.together([seat.member for seat in seats])
    _alike("the hosts have different stacks", {seat.name: " ".join(filter(None, (seat.env[0], (seat.env[1] or "")[:8])))
                                               for seat in seats}, "run deploy/5090.py on all with one stack")
    _alike("the hosts are set up for different models", {seat.name: seat.settings["model_name_or_path"]
                                                         for seat in seats}, "name one: --model_name_or_path")
    _alike("the hosts' cards train in different precision",
           {seat.name: " ".join(f"{name}={seat.made.get(name)}" for name in PRECISION) for seat in seats},
           "take hosts whose cards are alike")
    if spread := [seat.name for seat in seats if len(seat.member.cards) > 1 and not seat.each_card]:
        raise RigError(f"{seats[0].settings['model_name_or_path']} fits no single card of {', '.join(spread)}: it is "
                       "spread over one host's cards, and not over hosts", "", "a smaller model, or --load_in_4bit")
    name = seats[0].settings["model_name_or_path"]
    folder = name.startswith(("/", "~", "."))
    whole = f"copy the folder {name} to each" if folder else "fetch it on each: qwen-rig apply --data " \
        f"prefetch_model={name}" + "".join(f" --limit {seat.name}" for seat in seats)
    _there(f"the model {name} is", {seat.name: seat.model for seat in seats}, whole)
    if on_host:
        _there("the data are", {seat.name: seat.data for seat in seats}, "copy the file to each, or name a file here")
    return made


def _alike(what: str, found: Mapping[str, Any], remedy: str) -> None:
    if len(set(found.values())) > 1:
        raise RigError(f"{what}: {', '.join(f'{name} {value}' for name, value in found.items())}", "", remedy)


def _there(what: str, found: Mapping[str, str | None], remedy: str) -> None:
    if lacking := [name for name, version in found.items() if version is None]:
        raise RigError(f"{what} not whole on {', '.join(lacking)}, or not there at all", "", remedy)
    _alike(f"{what} not the same on all", {name: (version or "")[:12] for name, version in found.items()}, remedy)


def agreed(seats: Sequence[Seat], processes: int) -> dict[str, Any]:
    """The settings by which all train: the first host's, with the smallest batch and the attention that all have."""
    settings = dict(seats[0].settings)
    batch = min(seat.settings[BATCH] or 1 for seat in seats)
    whole = (settings[BATCH] or 1) * (settings[STEPS] or 1)
    if len({seat.settings[ATTENTION] for seat in seats}) > 1:
        settings[ATTENTION] = "sdpa"
    return {**settings, **shared(batch, whole, processes)}


def shared(batch: int, whole: int, processes: int) -> dict[str, int]:
    """Batch and accumulation, as train_qwen.py divides them among the processes, by which a step takes `whole` samples
    over all of them: exactly where the processes divide it, else the next more."""
    each = max(1, -(-whole // processes))
    own = max(n for n in range(1, min(batch, each) + 1) if each % n == 0)
    return {BATCH: own, STEPS: each // own * processes}


def told_uneven(settings: Mapping[str, Any], wanted: int) -> str:
    """A caveat where a step takes more samples than was wanted; "" where it doesn't."""
    made = settings[BATCH] * settings[STEPS]
    return f"a step takes {made} samples instead of {wanted}: the processes don't divide it" if made != wanted else ""


def words(settings: Mapping[str, Any]) -> list[str]:
    """All settings as options, so that no host's own file makes them differ."""
    return options.words({name: value for name, value in settings.items()
                          if value is not None and name not in options.OURS and name in options.train_qwen.DEFAULTS})


def common(name: str, found: Mapping[str, Sequence[int]]) -> int:
    """The last checkpoint that all hosts have; 0 where none has any. Raises RigError where some have and none is of
    all: going on from nothing would throw away what was trained."""
    steps = set.intersection(*map(set, found.values()))
    if not steps and any(found.values()):
        said = "; ".join(f"{host} {', '.join(map(str, each)) or 'none'}" for host, each in found.items())
        raise RigError(f"no checkpoint of {name} is on all of its hosts: {said}", "",
                       f"qwen-rig fetch {name} brings what was trained; then begin another run")
    return max(steps, default=0)


def culprit(ends: Sequence[End], addresses: Mapping[str, str]) -> End:
    """The host that failed first, by what is known of all: one that is gone or was cut off; one with an error of its
    own rather than of a connection; one that another names; else the first that failed."""
    failed = [end for end in ends if end.why or end.state in LOST]
    if gone := next((end for end in failed if end.state in LOST), None):
        return gone
    named = [(name, end) for end in failed for name, address in addresses.items()
             if name != end.host and _names(end.why, name, address)]
    namers = {end.host for _, end in named}
    own = next((end for end in failed if end.host not in namers and not PASSED_ON.search(end.why)), None)
    if own or not named:
        return own or (failed or ends)[0]
    name, said = named[0]
    return End(name, "unreachable", said.why)


def _names(why: str, name: str, address: str) -> bool:
    """Whether what a host said at its end is of that other one."""
    if match := FELL.search(why):
        return match[1] == name
    return re.search(rf"(?<![\d.]){re.escape(address)}(?!\.?\d)", why) is not None
