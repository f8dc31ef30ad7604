"""Whose a path is: whether root or we may run it, read it as configuration, or write there. Pure.

sshd's StrictModes: every component of the path, and of what its links lead to, is root's or our own, and nobody else
can write to it. A private group counts as its user; a sticky folder, and a disk that is mounted for all to write to,
pass for what is ours in it. Nothing is kept in memory. shell/owned.sh has the same rules for the moment of use.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

from qwen_rig.frozen import frozen

MEMORY = ("tmpfs", "ramfs", "devtmpfs", "hugetlbfs")  # file systems that are gone at the next boot
LINKS = 40  # that one path may go through, as in the kernel


@frozen
class Entry:
    """One component as lstat(2) has it. `user`: its owner's name; `target`: where a link leads, None for no link;
    `acl`: an access control list is on it."""

    uid: int
    gid: int
    mode: int
    user: str = ""
    target: str | None = None
    acl: bool = False

    def __str__(self) -> str:
        return f"{self.user or 'nobody known'} (uid {self.uid}), mode {stat.S_IMODE(self.mode):04o}"


@frozen
class Tree:
    """Components of a host's paths, as it told of them. An entry of None: nothing is there; no entry: not looked at.

    `uid`: of the user that we log in as; `outer`: in a user namespace, the uid that stands for all outside it;
    `own_groups`: nobody but root and we can be in them; `mounts`: mount point → file system.
    """

    entries: Mapping[str, Entry | None]
    uid: int
    outer: int | None = None
    own_groups: frozenset[int] = frozenset()
    mounts: Mapping[str, str] = field(default_factory=dict)

    def others_write(self, entry: Entry) -> bool:
        """Whether somebody but the owner, root and we can write to it."""
        shared = entry.acl or entry.gid not in self.own_groups
        return bool(entry.mode & stat.S_IWOTH) or bool(entry.mode & stat.S_IWGRP and shared)

    def file_system(self, path: str) -> tuple[str, str]:
        """The mount that holds a path without links in it, and its type; "" where none is known."""
        holding = [m for m in self.mounts if path == m or path.startswith(m.rstrip("/") + "/")]
        mount = max(holding, key=len, default="/")
        return mount, self.mounts.get(mount, "")


@frozen
class Fault:
    """Why a path is not used. `at`: the component; `why`: what is wrong with it, as it continues the path's name;
    `remedy`: what its owner may do; `foreign`: somebody else made it, so that our chmod wouldn't mend it."""

    path: str
    at: str
    why: str
    remedy: str
    foreign: bool = False


def fault(tree: Tree, path: str, root_only: bool = False, memory: bool = True) -> Fault | None:
    """What speaks against a path; None where nothing does. What isn't there yet is judged by what it would lie in.

    `root_only`: our own user doesn't count, as for what root runs; `memory`: whether a place in memory is as good.
    """
    owners = {0, tree.outer} | (set() if root_only else {tree.uid})
    way = _walk(tree, path)
    open_to_all = set[str]()
    for at, entry in way.met:
        if entry.target is not None:  # whoever can't write to its folder can't change a link
            if entry.uid not in owners and _folder(at) in open_to_all:
                return _foreign(path, at, entry)
            continue
        if entry.uid not in owners:
            return _foreign(path, at, entry)
        if not tree.others_write(entry):
            continue
        if at == way.leaf or not (entry.mode & stat.S_ISVTX or _disk(tree, at)):
            return Fault(path, at, f"others can write to {at} ({entry})",
                         f"where nobody has put anything there, `chmod go-w {at}`")
        open_to_all.add(at)
    if way.unseen is not None:
        return Fault(path, way.unseen, f"{way.unseen} can't be looked at", f"see what {way.unseen} is", foreign=True)
    mount, kind = tree.file_system(way.end)
    if not memory and kind in MEMORY and mount != "/":
        return Fault(path, mount, f"{mount} is memory ({kind}), which the next boot empties", "name a folder on a disk",
                     foreign=True)
    return None


def _foreign(path: str, at: str, entry: Entry) -> Fault:
    return Fault(path, at, f"{at} belongs to {entry}", f"where its content is yours, `chown -R root {at}`",
                 foreign=True)


def _disk(tree: Tree, at: str) -> bool:
    """Whether a disk is mounted there: its modes are the provider's. / is nobody's to leave open."""
    return at != "/" and tree.mounts.get(at, MEMORY[0]) not in MEMORY


def _folder(path: str) -> str:
    return path.rpartition("/")[0] or "/"


@dataclass
class _Way:
    """The components of a path, links as themselves and then what they lead to. `end`: what it leads to at last;
    `leaf`: likewise, "" where that isn't there; `unseen`: a component that was not looked at."""

    met: list[tuple[str, Entry]]
    end: str = ""
    leaf: str = ""
    unseen: str | None = None


def _walk(tree: Tree, path: str) -> _Way:
    root = tree.entries.get("/")
    if root is None or not path.startswith("/") or not path.isprintable():
        return _Way([], unseen=path if root else "/")
    way, rest, at, links = _Way([("/", root)]), path.split("/")[::-1], "", 0
    while rest:
        part = rest.pop()
        if part in ("", "."):
            continue
        if part == "..":
            at = at.rpartition("/")[0]
            continue
        at = f"{at}/{part}"
        entry = tree.entries.get(at)
        if entry is None:
            way.unseen = None if at in tree.entries else at
            way.end = "/".join([at, *rest[::-1]])
            return way
        way.met.append((at, entry))
        if entry.target is not None:
            links += 1
            if links > LINKS or not entry.target:
                way.unseen = at
                return way
            rest += entry.target.split("/")[::-1]
            at = "" if entry.target.startswith("/") else at.rpartition("/")[0]
    way.end = way.leaf = at or "/"
    return way
