"""cloud.yml: which sources there are, what is taken from each, and how its machines are reached."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from qwen_rig import hosttext, strictjson
from qwen_rig.catalog.lines import Entries
from qwen_rig.catalog.yamlfile import shown
from qwen_rig.cloud import clouds, libcloud, pasted, runpod, terraform, vast
from qwen_rig.cloud.model import RESERVED, Instance
from qwen_rig.connection import DEFAULT_PORT, HOST_NAME, Connections, keyed
from qwen_rig.knobs import renamed

EXAMPLE = "inventories/cloud.example.yml"
Read = Callable[[Any, str, Mapping[str, Any]], Iterator[Instance]]
SOURCES: dict[str, Read] = {
    "vast": vast.read, "runpod": runpod.read, "aws": clouds.aws, "gcp": clouds.gcp, "azure": clouds.azure,
    "lambda": clouds.lambda_cloud, "terraform": terraform.read, "ssh": pasted.read, "ssh-config": pasted.aliases,
    "libcloud": libcloud.read,
}
PLAIN = ("ssh", "ssh-config")  # these are text or a list in cloud.yml itself, not JSON
ORIGINS = ("file", "command", "stdin", "hosts")
OWN = ("source", "group", "label", "state", "tags", "output", "private", "provider", "arguments", "keywords", *ORIGINS)
LARGEST = 16 << 20  # letters of an answer; a machine has some thousand
COMMAND_S = 120  # a provider's API may take its time; a command that asks for a login never ends


def _texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) and each for each in value)


def _group(value: Any) -> bool:
    return isinstance(value, str) and bool(HOST_NAME.fullmatch(value)) and value.isidentifier() \
        and value not in RESERVED


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _tags(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(each, (str, int, float)) for pair in value.items()
                                           for each in pair)


_A_TEXT, _PATTERN = (_text, "a text; put it in quotes"), (_text, "a text such as train-*")
TYPES: dict[str, tuple[Callable[[Any], bool], str]] = {  # a source's own keys: what each may be, and that in words
    "source": _A_TEXT, "output": _A_TEXT, "provider": _A_TEXT, "file": _A_TEXT, "label": _PATTERN, "state": _PATTERN,
    "group": (_group, f"letters, digits and _ only, a letter first; {' and '.join(RESERVED)} are groups already"),
    "tags": (_tags, "a mapping such as {project: qwen}"),
    "private": (lambda value: isinstance(value, bool), "true or false, without quotes"),
    "stdin": (lambda value: value is True, "… | pyinfra inventories/cloud.py …, with stdin: true"),
    "command": (_texts, "must be a list of words: [vastai, show, instances, --raw]"),
    "arguments": (_texts, "a list of environment variables' names: [AWS_ID, AWS_SECRET]"),
    "keywords": (lambda value: isinstance(value, dict), "a mapping such as {region: eu-central-1}"),
    "hosts": (lambda value: isinstance(value, (list, dict)) and bool(value), "a list, or a mapping of name: line"),
}


@dataclass
class Found:
    """What was found: groups of (name, pyinfra host data); and a line on each machine that isn't running."""

    groups: dict[str, list[tuple[str, dict[str, Any]]]] = field(default_factory=dict)
    idle: list[str] = field(default_factory=list)


def load_cloud(path: Path, known_hosts: Path, ask: Callable[[str], str] | None = None) -> Found:
    """The running machines of all sources, by group (the source's, unless `group:` says another). Runs the commands
    that the file names, without a shell; dials nobody. Raises RigError: one line with file, line and remedy.
    """
    missing = f"copy {EXAMPLE} there and say where your machines are listed, or name another file: CLOUD_HOSTS=path"
    return _Cloud(path, EXAMPLE, missing, ask).found(known_hosts)


class _Cloud(Connections):
    """One file being read."""

    def found(self, known_hosts: Path) -> Found:
        top = self.entries((), "the file")
        for name, (line, _) in top.items():
            if name not in ("defaults", "sources"):
                self.refuse(line, f"unknown key {name!r}", "the file has two keys: defaults and sources")
        if "sources" not in top:
            self.refuse(next((line for line, _ in top.values()), 1), "the file has no sources", self.example)
        defaults = self.entries(("defaults",), "defaults") if "defaults" in top else {}
        self.known(defaults, "defaults")
        found, seen = Found(), dict[Any, str]()
        for title, (line, _) in self.entries(("sources",), "sources").items():
            own = self.entries(("sources", title), f"source {title}")
            self.known(own, f"source {title}", also=OWN)
            for name in ("address", "port"):
                if name in own:
                    self.refuse(own[name].line, f"source {title} finds addresses and ports itself",
                                "for a machine whose address you know: source: ssh, or lab.yml")
            options = {name: own[name].value for name in OWN if name in own}
            own = {name: pair for name, pair in own.items() if name not in OWN}
            for one in self._instances(title, line, options):
                if not one.running:
                    found.idle.append(f"{one.name}{_called(one)} is {one.state}: listed, not dialled")
                    continue
                data = self._data(one, line, own, defaults, known_hosts)
                place = str(data["ssh_hostname"]).lower(), data.get("ssh_port", DEFAULT_PORT)
                for mark, what in ((one.name, "name"), (place, "address and port")):
                    if mark in seen:
                        self.refuse(line, f"{one.name} has the {what} of {seen[mark]}", "list each machine once")
                    seen[mark] = one.name
                found.groups.setdefault(options.get("group", options["source"].replace("-", "_")), []).append(
                    (one.name, data))
        if not found.groups:
            self.refuse(top["sources"].line, "no source has a running machine" + ("".join(f"; {line}" for line
                        in found.idle[:3])), "start one, or widen label and tags")
        return found

    def _instances(self, title: str, at: int, options: dict[str, Any]) -> list[Instance]:
        """The instances of one source, filtered; only what is left must be fit to dial."""
        source = options.get("source")
        if not isinstance(source, str) or source not in SOURCES:
            self.refuse(at, f"source {title} can't be of kind {source!r}", f"source: one of {', '.join(SOURCES)}")
        for name, value in options.items():
            fits, wanted = TYPES[name]
            if not fits(value):
                self.refuse(self.line(("sources", title, name)), f"{name} of {title} can't be {shown(value)}", wanted)
        label, state, tags = options.get("label", "*"), options.get("state", "*"), options.get("tags", {})
        where = f"{self.where(at)}, source {title}"
        data = None if source == "libcloud" else self._data_of(title, at, options)
        found = [one for one in SOURCES[source](data, where, options)
                 if fnmatchcase(one.label, label) and fnmatchcase(one.state, state)
                 and all(one.tags.get(k) == str(v) for k, v in tags.items())]
        for one in found:
            if one.wrong:
                raise one.wrong
        return found

    def _data_of(self, title: str, at: int, options: dict[str, Any]) -> Any:
        """What the source says: read from a file, a command, standard input, or cloud.yml itself."""
        ways = [way for way in ORIGINS if way in options]
        if len(ways) != 1:
            self.refuse(at, f"source {title} wants exactly one of {', '.join(ORIGINS)}, has {len(ways)}", self.example)
        way, value = ways[0], options[ways[0]]
        if way == "hosts":
            if options["source"] not in PLAIN:
                self.refuse(at, f"hosts of {title}", "hosts: takes a list, for source ssh and ssh-config alone")
            return value
        text = {"file": self._file, "command": self._command, "stdin": self._stdin}[way](title, at, value)
        if options["source"] in PLAIN:
            return hosttext.lines(text)
        return strictjson.read(text, self.where(at), "run the command by hand and look", LARGEST,
                               f"what {title} says is no JSON")

    def _file(self, title: str, at: int, value: Any) -> str:
        path = self._path(value, at)
        try:
            with path.open(encoding="utf-8") as file:
                return file.read(LARGEST + 1)
        except (OSError, UnicodeDecodeError) as error:
            self.refuse(at, f"file of {title} can't be read: {path}: {error}", "correct the path")

    def _command(self, title: str, at: int, value: Any) -> str:
        """Its output. The command is a list of words, and no shell sees it."""
        try:
            done = subprocess.run(value, capture_output=True, text=True, errors="replace", timeout=COMMAND_S,
                                  stdin=subprocess.DEVNULL, cwd=self.path.absolute().parent, check=False)
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:  # ValueError: a NUL
            self.refuse(at, f"command of {title} can't be run: {error}", "install it, or log in with it first")
        if done.returncode != 0:
            said = " ".join((done.stderr or done.stdout).split())[-200:]
            self.refuse(at, f"command of {title} ended with {done.returncode}: {said}", "run it by hand and look")
        return done.stdout

    def _stdin(self, title: str, at: int, value: Any) -> str:
        if sys.stdin is None or sys.stdin.isatty():
            self.refuse(at, f"nothing is piped in for {title}", "… | pyinfra inventories/cloud.py …, with stdin: true")
        return sys.stdin.buffer.read().decode("utf-8", "replace")

    def _data(self, one: Instance, at: int, own: Entries, defaults: Entries, known_hosts: Path,
              ) -> dict[str, Any]:
        """pyinfra's host data. User and key are what the source's block says, else what the instance itself does, else
        the defaults'; those of an alias, and its port, are ~/.ssh/config's."""
        said = {"user": one.user or one.ssh_config, "key": one.key or one.ssh_config, "port": one.ssh_config}
        usual = {name: pair for name, pair in defaults.items() if not said.get(name)}
        given = {**renamed(usual), **renamed(own)}
        data = self.host_data(one.name, given)
        found = {"ssh_hostname": one.address, "ssh_port": one.port, "ssh_user": data.get("ssh_user", one.user)}
        data.update({key: value for key, value in found.items() if value is not None})
        if one.key and "ssh_key" not in data:
            data.update(self.key(at, one.name, self._path(one.key, at), given.get("key_passphrase_env")))
        if one.label and one.label != one.name:
            data["x_label"] = one.label
        return data if "host_key_alias" in given else keyed(data, one.name, known_hosts)


def _called(one: Instance) -> str:
    return f" ({one.label!r})" if one.label and one.label != one.name else ""
