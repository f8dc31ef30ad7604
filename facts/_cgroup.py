"""Memory and cores as the cgroup gives them, else as the machine has them. Pure: knows no pyinfra."""

from __future__ import annotations

import re

# v2 and v1, from our own group up to the root: the tightest limit counts. In a container the path in
# /proc/self/cgroup may be the host's; then only the root of what is mounted is there, and it is the container's.
SECTIONS = {
    "host.limits": r"""
grep -E '^MemTotal:' /proc/meminfo
grep -E '^Cpus_allowed_list:' /proc/self/status
read -r v </sys/devices/system/cpu/online && printf 'online: %s\n' "$v"
printf 'processors: %s\n' "$(grep -c '^processor' /proc/cpuinfo)"
up() {
  b=$1 d=$2; shift 2
  while :; do
    for f in "$@"; do read -r v <"$b$d/$f" && printf '%s: %s\n' "$f" "$v"; done
    [ -n "$d" ] && [ "$d" != / ] || break
    d=${d%/*}
  done
}
c=/sys/fs/cgroup
while IFS=: read -r n kinds path; do
  case ,$kinds, in
    ,,) m=$c; [ -d $c/unified ] && m=$c/unified; up $m "$path" memory.max cpu.max ;;
    *,memory,*) up $c/memory "$path" memory.limit_in_bytes ;;
    *,cpu,*) m=$c/cpu; [ -d $m ] || m=$c/cpu,cpuacct; up $m "$path" cpu.cfs_quota_us cpu.cfs_period_us ;;
  esac
done </proc/self/cgroup
""",
}


def cpus(listed: str) -> set[int]:
    """The CPUs of a kernel list such as `0-3,8`."""
    found: set[int] = set()
    for part in filter(None, listed.strip().split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def read(text: str) -> tuple[int, float]:
    """(memory in MiB, cores). Raises ValueError where not even the machine's own memory can be read."""
    lines = [(key, value.strip()) for key, colon, value in (line.partition(":") for line in text.splitlines()) if colon]
    total = next((re.match(r"(\d+) kB", value) for key, value in lines if key == "MemTotal"), None)
    if total is None:
        raise ValueError("/proc/meminfo has no MemTotal")
    memory = [int(total[1]) * 1024]
    memory += [int(v) for key, v in lines if key in ("memory.max", "memory.limit_in_bytes") and v.isdigit()]
    first = dict(reversed(lines))
    allowed, online = cpus(first.get("Cpus_allowed_list", "")), cpus(first.get("online", ""))
    processors = float(len(allowed & online or allowed or online) or int(first.get("processors") or 1))
    cores, quota = [processors], None
    for key, v in lines:
        if key == "cpu.max" and (both := re.match(r"(\d+) (\d+)$", v)):
            cores.append(int(both[1]) / int(both[2]))
        elif key == "cpu.cfs_quota_us":
            quota = int(v)
        elif key == "cpu.cfs_period_us" and quota is not None and quota > 0:
            cores.append(quota / int(v))
    return min(memory) // 2**20, round(min(cores), 2)
