"""Data files as frozen dataclasses, which pydantic checks (checking.py).

A form is a dataclass on `Row`, whose fields are the file's keys; nothing is converted that a reader would have to
guess (no number is taken for a text, no bool for a number), and a key that the form lacks is refused.

pydantic is loaded only where something is checked: a run mostly finds the project's own data kept (kept.py), and a
tenth of a second counts before a host is dialled.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from qwen_rig.catalog.kept import kept
from qwen_rig.catalog.marks import After as After
from qwen_rig.catalog.marks import Before, Exactly
from qwen_rig.catalog.yamlfile import YamlFile, read, shown

if TYPE_CHECKING:
    from pydantic_core import PydanticCustomError

T = TypeVar("T")
DATA = Path(__file__).parents[1] / "data"


class Row:
    """A mapping of a data file. A dataclass on it lists the keys; one without a default must be there."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}  # pydantic.ConfigDict


def wrong(what: str, remedy: str = "") -> PydanticCustomError:
    """What a form's own check raises: words that follow the key's name ("can't be 'x'"), and what to do."""
    from pydantic_core import PydanticCustomError
    return PydanticCustomError("wrong", "{what}", {"what": what, "remedy": remedy})


def one_of(*words: str) -> After:
    """A check: the text is one of these words."""
    def check(text: str) -> str:
        if text not in words:
            raise wrong(f"can't be {shown(text)}", f"it takes {', '.join(words)}")
        return text
    return After(check)


def _version(text: str) -> str:
    try:
        Version(text)
    except InvalidVersion:
        raise wrong(f"must be a version, not {shown(text)}") from None
    return text


def _sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise wrong(f"must be 64 lower-case hex digits, not {shown(text)}")
    return text


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise wrong(f"is no regular expression: {error}") from None
    return text


def _specifier(text: str) -> str:
    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        raise wrong(f"must be like \">=4.46,<4.47\", not {shown(text)}") from None
    return text


def _list(value: Any) -> Any:
    return () if value is None else value


NULL_IS_EMPTY = Before(_list)  # of a list: a key with nothing behind it is an empty one


Text = Annotated[str, Exactly(1)]
Flag = Annotated[bool, Exactly()]
Whole = Annotated[int, Exactly()]
Number = Annotated[float, Exactly()]  # a whole number will do
Texts = tuple[Text, ...]
MaybeTexts = Annotated[Texts, NULL_IS_EMPTY]
VersionText = Annotated[Text, After(_version)]  # as PEP 440 has it, kept as it's written
SpecifierText = Annotated[Text, After(_specifier)]
Sha256 = Annotated[Text, After(_sha256)]
PatternText = Annotated[Text, After(_pattern)]


def load(path: Path, form: type[T]) -> T:
    """The file in its form. Raises RigError."""
    made_by = os.stat(sys.modules[form.__module__].__file__ or "").st_mtime_ns  # a form may lie outside catalog/
    return kept(path, f"{path.stem}-{form.__name__}-{made_by}", lambda: checked(read(path), form))


def checked(file: YamlFile, form: type[T]) -> T:
    """What a file holds, in its form. Raises RigError for the first mistake."""
    from qwen_rig.catalog import checking
    return checking.checked(file, form)
