"""How many compile jobs a flash-attn build may run at once on a host, so that it can't take all memory. Pure."""

from __future__ import annotations

from functools import cache

from qwen_rig.catalog.flash_build import flash_file
from qwen_rig.errors import RigError
from qwen_rig.frozen import frozen


@frozen
class Rules:
    """`jobs` and `fleet` of qwen_rig/data/flash.yml; memory in MiB. `leaders`: hosts of one run that may try a build
    which     failed on another."""

    at_most: int
    spare_mib: int
    each_mib: int
    leaders: int


@cache
def rules() -> Rules:
    """The project's own. Raises RigError where the file is wrong."""
    file = flash_file()
    return Rules(file.jobs.at_most, file.jobs.spare_mib, file.jobs.each_mib, file.fleet.leaders)


def jobs(cores: float, memory_mib: int, given: Rules | None = None) -> int:
    """MAX_JOBS for these cores and this memory: the cgroup's, as facts.host.Host gives them.

    Raises RigError, the arithmetic in words, where not even one job has room.
    """
    taken = given or rules()
    room = max(0, memory_mib - taken.spare_mib) // taken.each_mib
    if room < 1:
        raise RigError(f"no build: {arithmetic(cores, memory_mib, taken)}", "memory",
                       f"a build takes {_gib(taken.spare_mib + taken.each_mib)} GiB; take flash_attn=wheel, or SDPA")
    return max(1, min(taken.at_most, int(cores), room))


def arithmetic(cores: float, memory_mib: int, given: Rules | None = None) -> str:
    """The sum behind `jobs`, for people: `min(8, 16 cores, (64 − 4) / 6 GiB = 10) = 8 jobs`."""
    taken = given or rules()
    room = max(0, memory_mib - taken.spare_mib) // taken.each_mib
    share = f"({_gib(memory_mib)} − {_gib(taken.spare_mib)}) / {_gib(taken.each_mib)} GiB"
    if room < 1:
        return f"{share} of memory is less than one compile job"
    count = max(1, min(taken.at_most, int(cores), room))
    return f"min({taken.at_most}, {cores:g} cores, {share} = {room}) = {count} job{'s' * (count > 1)}"


def _gib(mib: int) -> str:
    return f"{mib / 1024:.1f}".removesuffix(".0")
