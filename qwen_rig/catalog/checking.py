"""A file's data put into its form by pydantic; every mistake is one RigError line with file, line and key."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from difflib import get_close_matches
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from qwen_rig.catalog.yamlfile import Loc, YamlFile, key_name, shown
from qwen_rig.errors import RigError

T = TypeVar("T")

KINDS = {  # pydantic's type of error → what the value must be
    "string_type": "a text", "string_too_short": "a text", "bool_type": "true or false", "int_type": "a whole number",
    "float_type": "a number", "tuple_type": "a list", "list_type": "a list", "dict_type": "a mapping",
    "dataclass_type": "a mapping", "dataclass_exact_type": "a mapping", "mapping_type": "a mapping",
}
SCHEMA_KINDS = {"string": "a text", "boolean": "true or false", "integer": "a whole number", "number": "a number",
                "array": "a list", "object": "a mapping"}


def checked(file: YamlFile, form: type[T]) -> T:
    """What a file holds, in its form. Raises RigError for the first mistake."""
    adapter: TypeAdapter[T] = _adapter(cast(Any, form))
    try:
        return adapter.validate_python(file.data)
    except ValidationError as error:
        raise _told(file, adapter, error) from None


@cache
def _adapter(form: Any) -> TypeAdapter[Any]:
    return TypeAdapter(form)


def _told(file: YamlFile, adapter: TypeAdapter[Any], error: ValidationError) -> RigError:
    """The first mistake in our words."""
    found = error.errors(include_url=False)
    first = found[0]
    if first["type"] == "missing" and not _misspelt(file, found, first["loc"]):  # an unknown key there says more
        first = next((other for other in found if other["type"] == "unexpected_keyword_argument"
                      and other["loc"][:-1] == first["loc"][:-1]), first)
    kind, loc, value = first["type"], _place(file, first["loc"]), first["input"]
    name = key_name(loc) or "the file"
    if kind == "missing":
        return file.error(f"{name} is missing", loc[:-1], _misspelt(file, found, first["loc"])
                          or f"give it {_wanted(adapter, loc)}")
    if kind == "unexpected_keyword_argument":
        return file.error(f"unknown key {name}", loc, _meant(adapter, loc))
    key = kind == "invalid_key" or first["loc"][-1:] == ("[key]",)
    if kind == "wrong":
        context = first.get("ctx", {})
        return file.error(f"{key_name(loc[:-1]) if key else name} {context['what']}", loc, context["remedy"])
    if key:
        wanted = KINDS.get(kind, "a text")
        return file.error(f"{key_name(loc[:-1]) or 'the file'} has the key {shown(loc[-1])}, which isn't {wanted}", loc,
                          "quote it" if wanted == "a text" else "")
    if kind in KINDS:
        remedy = "quote it" if KINDS[kind] == "a text" and isinstance(value, (int, float, date)) else ""
        if KINDS[kind] == "a text" and loc and isinstance(loc[-1], int):
            return file.error(f"{key_name(loc[:-1])} must hold texts only, not {shown(value)}", loc, remedy)
        return file.error(f"{name} must be {KINDS[kind]}, not {shown(value)}", loc, remedy)
    return file.error(f"{name} can't be {shown(value)}: {first['msg']}", loc)


def _place(file: YamlFile, loc: tuple[Any, ...]) -> Loc:
    """A place as the file has it: pydantic's own steps (of unions, of keys) are none of the file's."""
    here, found = file.data, []
    for index, part in enumerate(loc):
        inside = part in here if isinstance(here, dict) else isinstance(here, list) and part in range(len(here))
        if inside:
            here = here[part]
        elif index < len(loc) - 1 or part == "[key]":
            continue
        found.append(part)
    return tuple(found)


def _misspelt(file: YamlFile, found: Any, missing: tuple[Any, ...]) -> str:
    """Where a missing key may stand under a name that is unknown."""
    for other in found:
        if other["type"] == "unexpected_keyword_argument" and other["loc"][:-1] == missing[:-1]:
            name = other["loc"][-1]
            if get_close_matches(str(name), [str(missing[-1])], 1):
                line = file.line(_place(file, other["loc"]))
                return f"{name} stands there{f' in line {line}' if line else ''}: check its spelling"
    return ""


def _meant(adapter: TypeAdapter[Any], loc: Loc) -> str:
    known = [*_schema_at(adapter, loc[:-1]).get("properties", {})]
    close = get_close_matches(str(loc[-1]), known, 1)
    return f"did you mean {close[0]}?" if close else f"it takes {', '.join(known)}" if known else "check its spelling"


def _wanted(adapter: TypeAdapter[Any], loc: Loc) -> str:
    return SCHEMA_KINDS.get(str(_schema_at(adapter, loc).get("type")), "a value")


def _schema_at(adapter: TypeAdapter[Any], loc: Loc) -> Mapping[str, Any]:
    """What the form says of a place, as JSON schema; {} where it says nothing."""
    whole = adapter.json_schema()

    def resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in schema or "anyOf" in schema or "allOf" in schema:
            if "$ref" in schema:
                schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
            else:
                options = schema.get("anyOf") or schema["allOf"]
                schema = next((option for option in options if option.get("type") != "null"), {})
        return schema

    here = resolved(whole)
    for part in loc:
        if isinstance(part, int) and "items" in here:
            here = resolved(here["items"])
        else:
            inner = here.get("properties", {}).get(part, here.get("additionalProperties"))
            here = resolved(inner) if isinstance(inner, dict) else {}
    return here
