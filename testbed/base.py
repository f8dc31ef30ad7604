"""The hosts' common disk: one debootstrap tree, built once, never changed while it has a name."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from . import interpreter, mirror, prereq
from ._shell import EMULATED, TestbedError, run
from .httpd import serving
from .paths import cache, locked, settle
from .spec import PASSWORD

# Close to a small Debian server as a provider hands it out. No Python: the project must not need it on hosts.
PACKAGES = ("openssh-server", "sudo", "iproute2", "procps", "kmod", "ca-certificates", "curl", "bzip2", "less", "zstd",
            "unzip")  # the last two: what is in a .conda package
HOSTNAME = "testbed"  # the bridge's name on the hosts; in their apt sources, so that lists survive another subnet
PORT = 8077

SSHD = """# written by the qwen-rig testbed; VERBOSE so that the controller can count sessions in the log
LogLevel VERBOSE
HostKey /etc/ssh/ssh_host_ed25519_key
PasswordAuthentication no
"""
SUDOERS = "dev ALL=(ALL) NOPASSWD: ALL\npw ALL=(ALL) ALL\n"
# A container's policy: a package that wants to start its daemon is told no. The hosts' init starts sshd only.
POLICY = "#!/bin/sh\nexit 101\n"
REBOOT = f"""#!/bin/sh
# {EMULATED}: tells the testbed's init what a real one would be told
[ "$(id -u)" = 0 ] || {{ echo "${{0##*/}}: must be root" >&2; exit 1; }}
case ${{0##*/}} in
  reboot) kill -INT 1 ;;
  shutdown) case " $* " in *" -r "*) kill -INT 1 ;; *) kill -TERM 1 ;; esac ;;
  *) kill -TERM 1 ;;
esac
"""
# What makes a systemd host of the base: a login is a session of logind's, sshd logs where sessions are counted; nothing
# waits for devices, fetches by itself or takes apt's lock (a test may start apt's own services).
UNITS = {"etc/systemd/system/ssh.service.d/testbed.conf":
         "[Service]\nExecStart=\nExecStart=/usr/sbin/sshd -D -e\nStandardError=append:/run/testbed/sshd.log\n"}
MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "systemd-udevd.service", "systemd-remount-fs.service",
          "getty@tty1.service", "console-getty.service", "systemd-timesyncd.service", "systemd-networkd.service",
          "dev-hugepages.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-kernel-config.mount")
LAYER = """mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
mount -t proc proc "$2/root/proc"
chroot "$2/root" apt-get -qq -y --no-install-recommends install $3
chroot "$2/root" apt-get clean
chroot "$2/root" apt-cache gencaches
"""
RECIPE = 4  # raise when what build() does changes in a way that the texts here don't show


def ensure() -> Path:
    """The tree's path; built first where this machine's release or the recipe has no tree yet. About a minute."""
    dist = mirror.distribution()
    packages = (*PACKAGES, *(interpreter.choose().packages if dist.own else ()))
    texts = (SSHD, SUDOERS, POLICY, REBOOT, HOSTNAME, PORT)
    recipe = repr((RECIPE, dist.id, dist.codename, dist.sources, packages, texts))
    folder = cache() / f"base-{dist.codename}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with locked("base"):
        if not folder.exists():
            prereq.ensure()
            started = time.monotonic()
            print(f"testbed: building the hosts' base system ({dist.codename}), about a minute", file=sys.stderr)
            _build(folder, dist, packages)
            print(f"testbed: base system built in {time.monotonic() - started:.0f} s", file=sys.stderr)
        settle(folder)
    return folder


def systemd() -> Path:
    """The layer over the base that makes systemd pid 1, for hosts of kind `vm`; built once, by apt in the base."""
    return _layer("systemd", "systemd systemd-sysv dbus libpam-systemd", UNITS, MASKED)


def compilers() -> Path:
    """The layer over the base that brings gcc and g++, which take longer to install than all else on a host."""
    return _layer("compilers", "gcc g++")


def _layer(name: str, packages: str, units: Mapping[str, str] = MappingProxyType({}), masked: Sequence[str] = (),
           ) -> Path:
    """What apt, in the base, makes of these packages: built once. `units`: files of systemd's; `masked`: its units that
    are never to start."""
    lower = ensure()
    recipe = hashlib.sha256(repr((lower.name, packages, dict(units), masked, LAYER)).encode()).hexdigest()[:12]
    folder = cache() / f"{name}-{recipe}"
    with locked("base"):
        if not folder.exists():
            print(f"testbed: adding {name} to the base system", file=sys.stderr)
            partial = cache() / f".{folder.name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            for part in ("upper", "work", "root"):
                (partial / part).mkdir(parents=True)
            address, dist = _loopback(), mirror.distribution()
            (partial / "upper" / "etc").mkdir()
            (partial / "upper/etc/hosts").write_text(f"127.0.0.1 localhost\n{address} {HOSTNAME}\n", encoding="utf-8")
            with serving(address, PORT, cache(), dist):
                run(["unshare", "--mount", "--propagation", "private", "sh", "-euc", LAYER, "sh", lower, partial,
                     packages],
                    env={"DEBIAN_FRONTEND": "noninteractive"}, timeout=600)
            for place, text in units.items():
                path = partial / "upper" / place
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            for unit in masked:
                (partial / "upper/etc/systemd/system" / unit).unlink(missing_ok=True)
                (partial / "upper/etc/systemd/system" / unit).symlink_to("/dev/null")
            (partial / "upper/etc/hosts").unlink()
            os.rename(partial / "upper", folder)
            shutil.rmtree(partial)
        settle(folder)
    return folder


def _build(folder: Path, dist: mirror.Distribution, packages: tuple[str, ...]) -> None:
    partial = cache() / f".{folder.name}.partial"
    if partial.exists():
        _unmounted(partial)
        shutil.rmtree(partial)
    main = next(source for source in dist.sources if dist.codename in source.suites)
    try:
        run(["debootstrap", "--variant=minbase", f"--include={','.join(packages)}",
             f"--components={','.join(main.components)}", dist.codename, partial, main.uri],
            env=mirror.proxies(), timeout=1800)
    except TestbedError as error:
        log = partial / "debootstrap" / "debootstrap.log"
        said = log.read_text(errors="replace").strip().splitlines()[-3:] if log.exists() else []
        raise TestbedError(f"{error} · {' / '.join(said)}") from None
    _configure(partial, dist)
    _seed_apt(partial, dist)
    os.rename(partial, folder)


def _configure(tree: Path, dist: mirror.Distribution) -> None:
    def write(path: str, text: str, mode: int = 0o644) -> None:
        target = tree / path
        target.unlink(missing_ok=True)
        target.write_text(text, encoding="utf-8")
        target.chmod(mode)

    write("etc/ssh/sshd_config.d/testbed.conf", SSHD)
    write("etc/sudoers.d/testbed", SUDOERS, 0o440)
    write("usr/sbin/policy-rc.d", POLICY, 0o755)
    for name in ("reboot", "poweroff", "halt", "shutdown"):
        write(f"usr/sbin/{name}", REBOOT, 0o755)
    write("etc/apt/sources.list", "".join(
        f"deb http://{HOSTNAME}:{PORT}/{source.name} {suite} {' '.join(source.components)}\n"
        for source in dist.sources for suite in source.suites))
    write("etc/apt/apt.conf.d/90testbed", 'Acquire::Languages "none";\n' + mirror.date_checks())
    for key in (tree / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    write("etc/machine-id", "")
    for user in ("dev", "pw", "nosudo"):
        run(["chroot", tree, "useradd", "-m", "-s", "/bin/bash", user])
    run(["chroot", tree, "chpasswd"], stdin=f"pw:{PASSWORD}\n")
    for user in ("dev", "nosudo"):
        run(["chroot", tree, "usermod", "-p", "*", user])


def _seed_apt(tree: Path, dist: mirror.Distribution) -> None:
    """Read the package lists once, so that a host's own `apt-get update` finds them unchanged."""
    hosts = tree / "etc/hosts"
    address = _loopback()
    hosts.write_text(f"127.0.0.1 localhost\n{address} {HOSTNAME}\n", encoding="utf-8")
    with serving(address, PORT, cache(), dist):
        run(["chroot", tree, "apt-get", "-qq", "update"], timeout=600)
        if not dist.own:  # there the libraries' packages may have other names, which apt finds by what they provide
            run(["chroot", tree, "apt-get", "-qq", "-y", "--no-install-recommends", "install",
                 *interpreter.choose().packages], env={"DEBIAN_FRONTEND": "noninteractive"}, timeout=600)
    run(["chroot", tree, "apt-get", "clean"])
    run(["chroot", tree, "apt-cache", "gencaches"])  # as any server has it: a second of each host's first apt
    hosts.write_text("127.0.0.1 localhost\n", encoding="utf-8")


def _loopback() -> str:
    """An address of this machine's own, free also while another cache is built."""
    pid = os.getpid()
    return f"127.77.{pid // 250 % 250}.{pid % 250 + 1}"


def _unmounted(tree: Path) -> None:
    """Unmount what a killed debootstrap left mounted below a tree (proc, sys), innermost first."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    points = [point for line in lines if (point := line.split()[4]).startswith(f"{tree}/")]
    for point in sorted(points, key=len, reverse=True):
        run(["umount", point])
