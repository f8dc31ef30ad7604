"""Whose a path is: one table, decided by qwen_rig/trust.py on what the probe brings, and by shell/owned.sh itself in
every shell that is here, on real files with real owners, modes, links, lists and mounts."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_rig.facts import _disk, _paths, _sh
from qwen_rig.trust import Entry, Tree, fault

SHELLS = [[name, "sh"][: 1 + (name == "busybox")] for name in ("dash", "bash", "busybox") if shutil.which(name)]
THEM = 4711  # nobody here has that uid or gid

# setfacl -m u:4711:rwx, which isn't everywhere: acl(5)'s five entries as the kernel has them in an attribute.
ENTRIES = ((1, 7, 0xFFFFFFFF), (2, 7, THEM), (4, 5, 0xFFFFFFFF), (16, 7, 0xFFFFFFFF), (32, 5, 0xFFFFFFFF))
BYTES = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in ENTRIES)
LIST = (f"{sys.executable} -c 'import os, sys; "
        f"os.setxattr(sys.argv[1], \"system.posix_acl_access\", bytes.fromhex(\"{BYTES.hex()}\"))'")

# What is made in an empty folder of root's; the path; what must be said of it, "" where it is ours alone.
CASES = {
    "ours": ("mkdir a", "a", ""),
    "not there yet": ("mkdir a", "a/b/c", ""),
    "a file": ("touch f", "f", ""),
    "a folder that is open": ("mkdir a; chmod 0777 a", "a", "chmod go-w {d}/a"),
    "a file that is open": ("touch f; chmod 0666 f", "f", "chmod go-w {d}/f"),
    "below a folder that is open": ("mkdir -p a/b; chmod 0777 a", "a/b", "chmod go-w {d}/a"),
    "far below": ("mkdir -p a/b/c/d; chmod 0777 a/b", "a/b/c/d", "chmod go-w {d}/a/b"),
    "to be made in a folder that is open": ("mkdir a; chmod 0777 a", "a/b", "chmod go-w {d}/a"),
    "a sticky folder": ("mkdir a; chmod 1777 a", "a", "chmod go-w {d}/a"),
    "ours in a sticky folder": ("mkdir -p a/b; chmod 1777 a", "a/b", ""),
    "to be made in a sticky folder": ("mkdir a; chmod 1777 a", "a/b/c", ""),
    "another's in a sticky folder": (f"mkdir -p a/b/c; chmod 1777 a; chown {THEM} a/b", "a/b/c", "{d}/a/b belongs"),
    "ours in another's sticky folder": (f"mkdir -p a/b; chmod 1777 a; chown {THEM} a", "a/b", "{d}/a belongs"),
    "another's": (f"mkdir a; chown {THEM} a", "a", "{d}/a belongs to nobody known (uid 4711), mode 0755"),
    "ours in another's": (f"mkdir -p a/b; chown {THEM} a", "a/b", "{d}/a belongs"),
    "another's file": (f"mkdir a; touch a/f; chown {THEM} a/f", "a/f", "{d}/a/f belongs"),
    "a group's": (f"mkdir a; chgrp {THEM} a; chmod g+w a", "a", "chmod go-w {d}/a"),
    "a group's that only reads": (f"mkdir a; chgrp {THEM} a", "a", ""),
    "root's group's": ("mkdir a; chmod g+w a", "a", ""),
    "a list that lets another in": (f"mkdir a; {LIST} a", "a", "chmod go-w {d}/a"),
    "a link": ("mkdir a; ln -s a l", "l/b", ""),
    "an absolute link": ("mkdir a; ln -s $PWD/a l", "l", ""),
    "a link to an open folder": ("mkdir -p a/b; chmod 0777 a; ln -s a/b l", "l", "chmod go-w {d}/a"),
    "a link to another's": (f"mkdir a; chown {THEM} a; ln -s a l", "l/x", "{d}/a belongs"),
    "a link over an open folder": ("mkdir -p a t; chmod 0777 a; ln -s ../t a/m; ln -s a/m l", "l", "chmod go-w {d}/a"),
    "another's link in a sticky folder": (f"mkdir -p a t; chmod 1777 a; ln -s ../t a/l; chown -h {THEM} a/l", "a/l",
                                          "{d}/a/l belongs"),
    "our link in a sticky folder": ("mkdir -p a t; chmod 1777 a; ln -s ../t a/l", "a/l/x", ""),
    "another's link in a folder of ours": (f"mkdir -p a t; ln -s ../t a/l; chown -h {THEM} a/l", "a/l", ""),
    "a link to nowhere": ("ln -s gone l", "l", ""),
    "a link to nowhere in a sticky folder of another's": (
        f"mkdir a; chmod 1777 a; ln -s x/y l; ln -s a/own x; chown {THEM} a", "l", "{d}/a belongs"),
    "a link back to a sticky folder": ("mkdir a; chmod 1777 a; ln -s . a/l", "a/l", "chmod go-w {d}/a"),
    "a link back to an open folder": ("mkdir -p a/b; chmod 0777 a; ln -s .. a/b/l", "a/b/l", "chmod go-w {d}/a"),
    "a sticky folder by its dot": ("mkdir -p a/b; chmod 1777 a", "a/b/..", "chmod go-w {d}/a"),
    "a circle": ("ln -s l2 l1; ln -s l1 l2", "l1", "looked at"),
    "up and down again": ("mkdir -p a/b; chmod 0777 a", "a/../f", "chmod go-w {d}/a"),
    "blanks": ("mkdir 'a b'; chmod 0777 'a b'", "a b/c", "chmod go-w {d}/a b"),
    "a line break": ("mkdir 'a\nb'", "a\nb", "looked at"),
    "a link with a line break": ("mkdir a; ln -s 'a\nb' l", "l", "looked at"),
    "a disk for all": ("mkdir -p s m; mount --bind s m; chmod 0777 m", "m", "chmod go-w {d}/m"),
    "ours on a disk for all": ("mkdir -p s/a m; mount --bind s m; chmod 0777 m; chmod 0700 m/a", "m/a/b", ""),
    "to be made on a disk for all": ("mkdir -p s m; mount --bind s m; chmod 0777 m", "m/a", ""),
    "ours but open on a disk for all": ("mkdir -p s/a m; mount --bind s m; chmod 0777 m m/a", "m/a/b",
                                        "chmod go-w {d}/m/a"),
    "another's on a disk for all": (f"mkdir -p s/a m; mount --bind s m; chmod 0777 m; chown {THEM} m/a", "m/a/b",
                                    "{d}/m/a belongs"),
    "another's disk": (f"mkdir -p s/a m; mount --bind s m; chown {THEM} m", "m/a", "{d}/m belongs"),
    "a disk with a blank": ("mkdir -p s/a 'm m'; mount --bind s 'm m'; chmod 0777 'm m'", "m m/a", ""),
    "an open folder on a disk": ("mkdir -p s/a/b m; mount --bind s m; chmod 0777 m/a", "m/a/b", "chmod go-w {d}/m/a"),
    "memory for all": ("mkdir m; mount -t tmpfs -o mode=0777 x m; mkdir m/a", "m/a", "chmod go-w {d}/m"),
    "memory, sticky": ("mkdir m; mount -t tmpfs -o mode=1777 x m; mkdir m/a", "m/a", "{d}/m is memory"),
}
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="other owners and mounts take root")


def probe(folder: Path, made: str, path: str, shell: list[str]) -> tuple[str, str, str]:
    """What the probe prints of a path there, what `unfit` says of it, and of it after a neighbour that is looked at
    first: in a mount namespace of their own."""
    text = _sh.script({**_paths.SECTIONS, "host.mounts": "cat /proc/self/mounts", "unfit": 'unfit "$path"',
                       "second": 'unfit "${path%/*}/none" "$path"'},
                      _paths.SHELL + '\nlook place it "$path"')
    (folder / "make").write_text(f"set -eu\nmount --make-rprivate /\ncd {folder}/d\n{made}\n")
    run = f'sh {folder}/make && exec "$@"'
    done = subprocess.run(["unshare", "--mount", "sh", "-c", run, "sh", *shell, "-c", text], capture_output=True,
                          text=True, env={**os.environ, "path": path}, timeout=60, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    found = _sh.sections(done.stdout.splitlines())
    return done.stdout, found["unfit"], found["second"]


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: str(words[0]))
@pytest.mark.parametrize("name", CASES)
def test_the_two_decide_alike(name: str, shell: list[str], tmp_path: Path) -> None:
    made, path, wanted = CASES[name]
    folder = tmp_path / "d"
    folder.mkdir(mode=0o755)
    printed, said, second = probe(tmp_path, made, f"{folder}/{path}", shell)
    text = _sh.sections(printed.splitlines())
    tree, asked = _paths.read(text["paths"], _disk.file_systems(text["host.mounts"]))
    assert len(asked) == 1, "a name can't add a path"
    wrong = fault(tree, asked[0][2], memory=False)
    words = f"{wrong.why}; {wrong.remedy}" if wrong else ""
    assert wanted.format(d=folder) in words and bool(wanted) is bool(words), (words, said)
    # What is in memory is the plan's business: the shell has nothing to say there.
    assert bool(said) is (bool(wanted) and "is memory" not in wanted), said
    assert bool(second) is bool(said), "whatever was looked at before"


def tree(uid: int = 1000, outer: int | None = None, **rows: str) -> Tree:
    """A tree of `path="uid gid mode"` rows, slashes written as __; group 1000 is the user's own."""
    entries: dict[str, Entry | None] = {"/": Entry(0, 0, 0o40755)}
    for name, row in rows.items():
        owner, group, mode = row.split()[:3]
        kind = 0o40000 if len(row.split()) == 3 else 0o100000
        entries["/" + name.replace("__", "/")] = Entry(int(owner), int(group), kind | int(mode, 8), "ann")
    return Tree(entries, uid, outer, frozenset({0, 1000}), {"/": "ext4"})


@pytest.mark.parametrize(("row", "root_only", "fine"), [
    ("1000 1000 755", False, True), ("1000 1000 755", True, False), ("0 0 755", True, True),
    ("1000 1000 775", False, True),
    ("1000 100 775", False, False), ("1001 1000 755", False, False), ("0 1000 775", True, True),
])
def test_a_user_s_own_counts_but_not_for_what_root_runs(row: str, root_only: bool, fine: bool) -> None:
    assert (fault(tree(home="0 0 755", home__a=row), "/home/a", root_only) is None) is fine


def test_what_was_not_looked_at_is_never_ours() -> None:
    for path in ("/home/a", "relative", "", "/home/\nx"):
        wrong = fault(tree(home="0 0 755"), path)
        assert wrong is not None and "can't be looked at" in wrong.why
    assert fault(Tree({}, 0), "/") is not None


def test_in_a_user_namespace_the_outside_counts_as_root() -> None:
    handed = {"data": "65534 65534 755"}
    assert fault(tree(**handed), "/data") is not None and fault(tree(outer=65534, **handed), "/data") is None


def test_whom_the_words_are_about() -> None:
    wrong = fault(tree(data="1001 1001 700"), "/data")
    assert wrong is not None and wrong.foreign and wrong.why == "/data belongs to ann (uid 1001), mode 0700"
