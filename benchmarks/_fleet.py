"""Testbed hosts that want nothing more: one is converged from bare, the others start from its disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from qwen_rig.catalog.stack import load_stack
from testbed import demo, paths
from testbed.bed import Testbed
from testbed.spec import HostInfo, HostSpec

Say = Callable[[str], None]
BULK = """cd /root/miniforge3/envs/qwen-train/lib/python3*/site-packages
mkdir bulk bulk-1.0.dist-info
(cd bulk && seq "$1" | split -l 1 -a 6 -d)
find bulk -type f -printf '%p,,%s\\n' >bulk-1.0.dist-info/RECORD
printf 'Metadata-Version: 2.1\\nName: bulk\\nVersion: 1.0\\n' >bulk-1.0.dist-info/METADATA
"""


class Fleet:
    """Hosts of an instance of their own, with a lab.yml. As a context manager it takes them down."""

    def __init__(self, folder: Path, say: Say) -> None:
        self.bed, self.folder, self.say = Testbed(paths.instance("bench")), folder, say
        self.lab = self.bed.folder / "lab.yml"
        self.stack = load_stack("standin")
        self.hosts: list[HostInfo] = []

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.bed.down()

    def image(self, converge: Callable[[], None], files: int = 0) -> str:
        """The path of a converged disk: one bare host, taken through the whole deploy by `converge`. `files`: how many
        a further package of its env has, as the stand-in's own have few.

        Ansible's modules need a Python on the host; the deploy doesn't, so it is put there afterwards.
        """
        self.say(f"the packages of stack {self.stack.name} are fetched, where they aren't here yet")
        demo.fetch(self.stack)
        self.say("one bare host comes up and is converged")
        self.up(1, None)
        converge()
        self.say("python3 goes onto it, for Ansible's modules")
        self.bed.exec_(self.hosts[0].name, [
            "sh", "-c", "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "
                        "--no-install-recommends python3 python3-apt"], check=True)
        if files:
            self.say(f"a package of {files} files goes into its env")
            self.bed.exec_(self.hosts[0].name, ["sh", "-euc", BULK, "sh", str(files)], check=True)
        return self.bed.commit(self.hosts[0].name, "bench")

    def up(self, count: int, image: str | None) -> None:
        """Bring up `count` hosts, from an image or bare, and write lab.yml for them."""
        self.hosts = self.bed.up([HostSpec(f"bench-{n:02d}", image=image) for n in range(1, count + 1)])
        self.lab = demo.write_inventory(self.bed, self.stack)

    def execs(self) -> dict[str, int]:
        """SSH exec requests that each host's sshd has served so far."""
        return {host.name: self.bed.execs(host.name) for host in self.hosts}
