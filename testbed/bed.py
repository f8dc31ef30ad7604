"""The testbed as an object: hosts up and down, and everything that a test may do to one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from . import base, cgroup, host, leftovers, net, prereq, services
from ._shell import FILES, HANG_S, TestbedError, run
from .paths import cache, locked, run_folder
from .services import Request
from .spec import PASSWORD, HostInfo, HostSpec, Services
from .state import State, load, save


class Testbed:
    """One set of hosts on one bridge. Several can be up at once under different instance names.

    As a context manager it takes itself down at the end.
    """

    __test__ = False  # its name begins like a test class

    def __init__(self, instance: str = "main") -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", instance):  # it names a folder
            raise TestbedError(f"instance {instance!r} · letters, digits, - and _")
        self.instance = instance
        self.folder = run_folder(instance)

    def __enter__(self) -> Testbed:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    # -- all hosts -----------------------------------------------------------------------------------------

    def up(self, specs: Sequence[HostSpec]) -> list[HostInfo]:
        """Bring hosts up and return them when every sshd greets; what this instance had before is taken down first.

        Raises TestbedError; then nothing is left.
        """
        if len({spec.name for spec in specs}) != len(specs):
            raise TestbedError("two hosts of one name")
        prereq.ensure()
        with locked(f"instance-{self.instance}"):
            leftovers.end(self.folder)
            try:
                return self._up(specs)
            except BaseException:
                leftovers.end(self.folder)
                raise

    def down(self) -> None:
        """Remove every process, mount, namespace, link and disk of this instance; fine when there's nothing."""
        with locked(f"instance-{self.instance}"):
            leftovers.end(self.folder)

    def status(self) -> list[tuple[HostInfo, bool]]:
        """Each host, and whether it is on; empty where none is up."""
        state = load(self.folder)
        hosts = state.hosts if state else []
        return [(info, host.init_pid(self._host_folder(info.name)) is not None) for info in hosts]

    def hosts(self) -> list[HostInfo]:
        """Every host."""
        return self._state().hosts

    def services(self) -> Services:
        """What the bridge serves."""
        served = self._state().services
        if served is None:
            raise TestbedError(f"{self.instance} · serves nothing")
        return served

    def requests(self) -> list[Request]:
        """Every request that the services had so far."""
        return services.requests(self.services())

    # -- one host ------------------------------------------------------------------------------------------

    def host(self, name: str) -> HostInfo:
        """The host of that name."""
        return self._find(name)[1]

    def exec_(self, name: str, argv: Sequence[str], *, user: str = "root", stdin: str | None = None,
              check: bool = False, timeout: float = HANG_S) -> subprocess.CompletedProcess[str]:
        """Run a command on a host from outside, not by SSH. With check, a failure is a TestbedError."""
        self._find(name)
        command = host.enter(self._host_folder(name), argv, user)
        done = subprocess.run(command, input=stdin, text=True, capture_output=True, timeout=timeout, check=False)
        if check and done.returncode != 0:
            said = (done.stderr or done.stdout).strip()[-300:]
            raise TestbedError(f"{name}: {' '.join(argv)} · exit {done.returncode} · {said}")
        return done

    def ssh(self, name: str, command: str, *, timeout: float = HANG_S) -> subprocess.CompletedProcess[str]:
        """Run a command on a host by the real ssh client."""
        return subprocess.run([*self.ssh_argv(name), command], text=True, capture_output=True, timeout=timeout,
                              stdin=subprocess.DEVNULL, check=False)

    def ssh_argv(self, name: str) -> list[str]:
        """The ssh command line for a host, to which a command may be added."""
        info = self.host(name)
        options = ("BatchMode=yes", "LogLevel=ERROR", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null",
                   "ConnectTimeout=20")
        return ["ssh", "-F", "none", "-i", info.key, "-p", str(info.port),
                *(word for option in options for word in ("-o", option)), f"{info.user}@{info.address}"]

    def sessions(self, name: str) -> dict[str, int]:
        """Sessions that the host's sshd began since the host was made: {"command", "shell", "subsystem"}."""
        self._find(name)
        return host.sessions(self._host_folder(name))

    def execs(self, name: str) -> int:
        """SSH exec requests that the host's sshd served since the host was made or reset, reboots included."""
        return self.sessions(name)["command"]

    def log(self, name: str) -> str:
        """sshd's log."""
        path = self._host_folder(name) / "sshd.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def cable(self, name: str, up: bool) -> None:
        """Pull or plug the host's network cable."""
        index, _ = self._find(name)
        net.cable(self._state().network, index, up)

    def cable_name(self, name: str) -> str:
        """The controller's end of the host's cable."""
        index, _ = self._find(name)
        return self._state().network.cable(index)

    def limit_memory(self, name: str, mib: int) -> cgroup.Memory:
        """A real limit on the memory of all processes of a host, until it is rebooted; says how many it has killed."""
        folder = self._host_folder(name)
        pid = host.init_pid(folder)
        if pid is None:
            raise TestbedError(f"{name} · is off · boot it")
        return cgroup.Memory(folder, pid, mib)

    def room(self, name: str, mib: int | None = None, inodes: int | None = None) -> None:
        """What is left free on the disk of a host with `root_mib`: MiB, files; None: what it came with."""
        _, info = self._find(name)
        if info.spec.root_mib is None:
            raise TestbedError(f"{name} · its disk is this machine's own · give it a root_mib")
        host.room(self._host_folder(name), info.spec.root_mib, mib, inodes)

    def kill(self, name: str) -> None:
        """Power cut: the cable goes dead with the host, so nobody is told."""
        self.cable(name, up=False)
        folder = self._host_folder(name)
        host.power_cut(folder)
        self._until(lambda: host.init_pid(folder) is None, f"{name} · still on")

    def boot(self, name: str) -> None:
        """Switch a host on and wait for its sshd."""
        folder, (_, info) = self._host_folder(name), self._find(name)
        self.cable(name, up=True)
        (folder / "power").write_text("on\n", encoding="utf-8")
        host.wait(folder, info)

    def reboot(self, name: str) -> None:
        """Reboot from outside and wait for the next boot's sshd."""
        with self.rebooting(name):
            self.exec_(name, ["reboot"])

    @contextmanager
    def rebooting(self, name: str) -> Iterator[None]:
        """Somebody reboots the host meanwhile; ends when the next boot's sshd greets."""
        folder, (_, info) = self._host_folder(name), self._find(name)
        before = host.init_pid(folder)
        yield
        self._until(lambda: host.init_pid(folder) not in (None, before), f"{name} · did not reboot")
        host.wait(folder, info)

    def reset(self, name: str, spec: HostSpec | None = None) -> HostInfo:
        """Throw the host's disk away and boot it bare again, at the same address; as another spec, if given one."""
        index, info = self._find(name)
        state = self._state()
        folder = self._host_folder(name)
        leftovers.end(folder)
        net.unplug([state.network.cable(index)])
        state.hosts[index] = self._info(spec or info.spec, info.address)
        save(self.folder, state)
        self._start(state, [index])
        return state.hosts[index]

    def commit(self, name: str, title: str) -> str:
        """Keep the host's disk as an image for HostSpec.image; returns its path. The host is switched off and on."""
        folder, image = self._host_folder(name), cache() / "images" / f"{base.ensure().name}-{title}"
        self.exec_(name, ["poweroff"])
        self._until(lambda: host.init_pid(folder) is None, f"{name} · did not power off")
        shutil.rmtree(image, ignore_errors=True)
        image.parent.mkdir(exist_ok=True)
        run(["cp", "-a", folder / "disk" / "upper", image])
        self.boot(name)
        return str(image)

    def holding_apt_lock(self, name: str, process: str = "unattended-upgr") -> AbstractContextManager[int]:
        """Meanwhile a process of that name holds dpkg's locks, as apt does. Gives its pid on the host."""
        return self._holding(name, "lock", process, "root")

    def using_gpu(self, name: str, process: str = "python3", user: str = "dev") -> AbstractContextManager[int]:
        """Meanwhile a process of that name and user has the emulated GPU open. Gives its pid on the host."""
        return self._holding(name, "gpu", process, user)

    # -- inside --------------------------------------------------------------------------------------------

    @contextmanager
    def _holding(self, name: str, what: str, process: str, user: str) -> Iterator[int]:
        script = (FILES / "hold.pl").read_text(encoding="utf-8")
        command = host.enter(self._host_folder(name), ["perl", "-e", script, what, process], user)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdin is not None and holder.stdout is not None
            try:
                pid = holder.stdout.readline().strip()
                if not pid:
                    raise TestbedError(f"{name} · its {what} could not be held")
                yield int(pid)
            finally:
                holder.stdin.close()

    def _up(self, specs: Sequence[HostSpec]) -> list[HostInfo]:
        base.ensure()
        with locked("network"):
            network = net.free()
            state = State(network)
            save(self.folder, state)
            net.create(network, self.folder)
        state.services = services.start(self.folder, network.gateway)
        state.hosts = [self._info(spec, network.address(index)) for index, spec in enumerate(specs)]
        save(self.folder, state)
        self._start(state, range(len(specs)))
        return state.hosts

    def _info(self, spec: HostSpec, address: str) -> HostInfo:
        password = PASSWORD if spec.user == "pw" else None
        return HostInfo(spec.name, address, 22, spec.user, str(host.client_key()), password, spec)

    def _start(self, state: State, indexes: Sequence[int]) -> None:
        tree, repository = base.ensure(), services.repository()
        supervisors = {}
        for index in indexes:
            info = state.hosts[index]
            folder = self._host_folder(info.name)
            host.prepare(folder, info, state.network.gateway, f"{_layer(info.spec)}{tree}", repository)
            supervisors[index] = host.start(folder)
        net.plug(state.network, supervisors)
        for index in indexes:
            host.wait(self._host_folder(state.hosts[index].name), state.hosts[index])

    def _state(self) -> State:
        state = load(self.folder)
        if state is None:
            raise TestbedError(f"testbed {self.instance!r} · is not up · python -m testbed up 2")
        return state

    def _find(self, name: str) -> tuple[int, HostInfo]:
        found = self._state().host(name)
        if found is None:
            raise TestbedError(f"{name!r} · no such host · there are: {', '.join(h.name for h in self.hosts())}")
        return found

    def _host_folder(self, name: str) -> Path:
        return self.folder / "hosts" / name

    @staticmethod
    def _until(true: Callable[[], bool], message: str, timeout: float = HANG_S) -> None:
        deadline = time.monotonic() + timeout
        while not true():
            if time.monotonic() > deadline:
                raise TestbedError(f"{message} after {timeout:.0f} s")
            time.sleep(0.02)


def _layer(spec: HostSpec) -> str:
    """What lies over the common disk, for overlayfs: "FOLDER:" or ""."""
    if spec.kind == "vm":
        return f"{base.systemd()}:"
    return f"{base.compilers()}:" if spec.compilers else ""


def default() -> Testbed:
    """The instance that $QWEN_RIG_TESTBED names, or `main`."""
    return Testbed(os.environ.get("QWEN_RIG_TESTBED") or "main")
