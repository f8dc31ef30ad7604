"""YAML that remembers its lines, so that every complaint can name one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

import yaml

from qwen_rig.errors import RigError

Entries = dict[str, tuple[yaml.Node, yaml.Node]]  # name → (where its key stands, its value unread)


class Lines:
    """One YAML file. Raises RigError with `file:line` for whatever can't be read."""

    def __init__(self, path: Path, example: str, missing: str) -> None:
        """`example`: the file that shows the form; `missing`: what to do where `path` isn't there."""
        self.path = path.expanduser()
        inside = self.path.absolute().is_relative_to(Path.cwd())
        self.shown = os.path.relpath(self.path) if inside else str(self.path)
        self.example = f"{example} shows the form"
        try:
            self._loader = yaml.SafeLoader(self.path.read_text(encoding="utf-8"))
            top = self._loader.get_single_node()
        except FileNotFoundError:
            raise RigError("no such file", self.shown, missing) from None
        except OSError as error:
            raise RigError(f"can't be read: {error.strerror}", self.shown, "name one that can") from None
        except UnicodeDecodeError:
            raise RigError("can't be read: not UTF-8 text", self.shown, "save it as UTF-8") from None
        except yaml.YAMLError as error:
            raise self._bad(error) from None
        if top is None:
            raise RigError("the file is empty", self.shown, self.example)
        self.top = top

    def entries(self, node: yaml.Node, what: str) -> Entries:
        """The pairs of a mapping; merge keys (`<<`) resolved, a name given twice refused."""
        if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null"):
            return {}  # a name with nothing behind it
        if not isinstance(node, yaml.MappingNode):
            self.refuse(node, f"{what} must be a mapping of `name: value` lines", self.example)
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or not key.tag.endswith((":str", ":merge")):
                self.refuse(key, f"a name in {what} is not text", 'put it in quotes: "5090"')
            if key.value in seen:
                self.refuse(key, f"{key.value!r} stands twice in {what}, first in line {seen[key.value]}",
                            "rename one or remove it")
            seen[key.value] = key.start_mark.line + 1
        try:
            self._loader.flatten_mapping(node)
        except yaml.YAMLError as error:
            raise self._bad(error) from None
        return {key.value: (key, value) for key, value in node.value}

    def value(self, node: yaml.Node) -> Any:
        """What a node holds, as Python's own types."""
        try:
            return self._loader.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError) as error:  # ValueError: the 31st of February
            raise self._bad(error, node) from None

    def refuse(self, node: yaml.Node, what: str, remedy: str) -> NoReturn:
        raise RigError(what, self.where(node), remedy)

    def where(self, node: yaml.Node) -> str:
        return f"{self.shown}:{node.start_mark.line + 1}"

    def _bad(self, error: Exception, node: yaml.Node | None = None) -> RigError:
        words, line = str(error), node.start_mark.line if node else 0
        if isinstance(error, yaml.MarkedYAMLError):
            words = error.problem or error.context or "unreadable"
            mark = error.problem_mark or error.context_mark
            line = mark.line if mark else line
        elif isinstance(error, yaml.reader.ReaderError):
            words = f"a character that YAML doesn't allow (U+{error.character:04X})"
            line = self.path.read_text(encoding="utf-8").count("\n", 0, error.position)
        return RigError(f"bad YAML: {' '.join(words.split())}", f"{self.shown}:{line + 1}", self.example)
