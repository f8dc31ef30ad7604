"""apt, as scripts: locks waited for and named, nothing asked, nothing half-resolved."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_rig.knobs import Knobs
from qwen_rig.network.archive import PLACE

# Sources and lists of a run whose archives come through the SSH connection: the host's own stay as they are. Below
# /var/cache, as apt's own user must get there.
OWN = "/var/cache/qwen-rig/apt"


# What stands before an address in sources.list(5) and deb822 sources; `mirror+https:` and its like are left alone.
_ADDRESS = "s#(^|[[:space:]:])(https?)://#\\1{address}/" + PLACE + "/\\2/#g"


def rewritten(address: str) -> str:
    """A sed -E program that sends the archives of apt's sources by way of a bundle's address."""
    return _ADDRESS.format(address=address)


def sources() -> str:
    """Print the address and the suite of each archive that the host's apt is set up with; changes nothing."""
    return ("apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' "
            "| sort -u\n")


def through(address: str | None) -> str:
    """Lines for the head of a script: apt's archives by way of a bundle's address on the host; None: apt as it is.

    apt.conf(5): APT_CONFIG is read before the host's own files; the patience is for a file that is first fetched
    elsewhere, whole.
    """
    if address is None:
        return ""
    return f"""own={OWN} patience=1800
mkdir -p $own/lists/partial $own/sources.list.d
chmod 755 {OWN.rpartition("/")[0]} $own
rm -f $own/sources.list $own/sources.list.d/*
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
  [ ! -r "$file" ] ||
    sed -E '{rewritten(address)}' "$file" >"$own/${{file#/etc/apt/}}"
done
cat >$own/apt.conf <<EOF
Dir::Etc::SourceList "$own/sources.list";
Dir::Etc::SourceParts "$own/sources.list.d";
Dir::State::Lists "$own/lists";
Dir::Cache::pkgcache "$own/pkgcache.bin";
Dir::Cache::srcpkgcache "$own/srcpkgcache.bin";
Acquire::http::Timeout "$patience";
Acquire::http::Proxy::127.0.0.1 "DIRECT";
Acquire::Languages "none";
Acquire::PDiffs "false";
EOF
export APT_CONFIG=$own/apt.conf
"""

# Whose lock it is, apt says only where it doesn't wait, or where its progress is just due: it is asked once more.
_HOLDER = "apt-get -q -o DPkg::Lock::Timeout=0 check 2>&1 | grep 'Could not get lock' || :"


def update(knobs: Knobs) -> str:
    """`apt-get update`, waiting for the lists' lock too (DPkg::Lock::Timeout covers dpkg's alone, KB §1.8)."""
    return f"""export DEBIAN_FRONTEND=noninteractive
end=$(( $(date +%s) + {knobs.timeout_apt_lock} ))
while ! said=$(apt-get -o Acquire::http::Timeout=${{patience:-30}} -o Acquire::https::Timeout=30 \\
    -o Acquire::Retries=1 -o APT::Update::Error-Mode=any update 2>&1); do
  case $said in
    *"Could not get lock"*) if [ "$(date +%s)" -lt "$end" ]; then sleep 2; continue; fi ;;
  esac
  printf '%s\\n' "$said"
  exit 1
done
"""


def unlocked(knobs: Knobs) -> str:
    """Wait until apt would let us install, and fail naming who holds it if it never does; changes nothing itself."""
    return (f"said=$(apt-get -q -o DPkg::Lock::Timeout={knobs.timeout_apt_lock} check 2>&1) || "
            f"{{ printf '%s\\n' \"$said\"; {_HOLDER}; exit 1; }}\n")


def install(knobs: Knobs, groups: Sequence[Sequence[str]], extra: Sequence[str] = ()) -> str:
    """Install groups of packages in turn; a group that apt can't resolve is refused before anything is unpacked.

    A pinning package must stand before what it pins, hence groups. `extra` joins the last group, unquoted.
    """
    lines = ["export DEBIAN_FRONTEND=noninteractive"]
    for index, group in enumerate(groups):
        names = " ".join([*group, *(extra if index == len(groups) - 1 else ())])
        options = (f"-y --no-install-recommends -o DPkg::Lock::Timeout={knobs.timeout_apt_lock} "
                   "-o Dpkg::Options::=--force-confold")
        lines += [f"apt-get -s {options} install {names} >/tmp/.qwen-rig-apt.$$ 2>&1 || "
                  "{ cat /tmp/.qwen-rig-apt.$$; rm -f /tmp/.qwen-rig-apt.$$; exit 1; }",
                  "rm -f /tmp/.qwen-rig-apt.$$",
                  f"apt-get -q {options} install {names} || {{ {_HOLDER}; exit 1; }}"]
    return "\n".join(lines) + "\n"
