"""What a form can't take, made from the form itself: a sound document with one value of another type than its field's,
or with a key that the form lacks, or lacks itself."""

from __future__ import annotations

import copy
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

Place = tuple[Any, Any, Any]  # container, key, the annotation of what stands there; MISSING: a key that must be there
NOT: dict[Any, st.SearchStrategy[Any]] = {  # type → what isn't of it, and what no strict reader takes for it
    str: st.integers() | st.floats() | st.booleans() | st.just([]) | st.just({}) | st.just(["x"]),
    bool: st.integers() | st.sampled_from(["yes", "true", "", [], {}]),
    int: st.booleans() | st.floats(allow_nan=False) | st.sampled_from(["5", "²", "", [], {}, "x" * 5000]),
    float: st.booleans() | st.sampled_from(["5", "²", "", [], {}]),
    list: st.integers() | st.booleans() | st.sampled_from(["x", {"a": 1}]),
    dict: st.integers() | st.booleans() | st.sampled_from(["x", ["x"]]),
}


def unfit(annotation: Any) -> st.SearchStrategy[Any] | None:
    """Values that this annotation can't take; None where it takes anything."""
    kinds = kinds_of(annotation)
    if None in kinds:
        return None
    made = [NOT[kind] for kind in kinds if kind in NOT]
    wrong = st.one_of(made).filter(lambda value: not any(_is(value, kind) for kind in kinds))
    return wrong if type(None) in kinds else wrong | st.none() if list not in kinds else wrong


def kinds_of(annotation: Any) -> set[Any]:
    """The plain types of data that an annotation takes; with None in them where it may be anything."""
    origin = get_origin(annotation)
    if annotation is Any:
        return {None}
    if origin is Annotated:
        return kinds_of(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return set().union(*map(kinds_of, get_args(annotation)))
    if origin is Literal:
        return {type(word) for word in get_args(annotation)}
    if is_dataclass(annotation) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return {dict}
    if origin in (tuple, list, frozenset, set):
        return {list}
    if annotation in (str, int, bool, float, type(None)):
        return {annotation}
    return {None}


def _is(value: Any, kind: Any) -> bool:
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind


def places(value: Any, annotation: Any) -> list[Place]:
    """Each place in a sound document whose type the form tells."""
    found: list[Place] = []
    for option in _options(annotation):
        if is_dataclass(option) and isinstance(value, dict):
            hints = get_type_hints(option, include_extras=True)
            names = {field.name for field in fields(option)}
            if not set(value) <= names:
                continue
            for field in fields(option):
                if field.name in value:
                    found += [(value, field.name, hints[field.name]), *places(value[field.name], hints[field.name])]
                    if field.default is MISSING and field.default_factory is MISSING:
                        found.append((value, field.name, MISSING))
            return found
        inner = [each for each in get_args(option) if each is not Ellipsis]
        if get_origin(option) is dict and isinstance(value, dict):
            return [row for key in value for row in [(value, key, inner[1]), *places(value[key], inner[1])]]
        if get_origin(option) in (tuple, list) and isinstance(value, list) and len(inner) == 1:
            return [row for at, each in enumerate(value) for row in [(value, at, inner[0]), *places(each, inner[0])]]
    return found


def _options(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _options(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [option for each in get_args(annotation) for option in _options(each)]
    return [annotation]


def spoilt(document: Any, form: Any) -> st.SearchStrategy[Any]:
    """The document, wrong in one place."""
    count = len(places(document, form))

    def at(number: int) -> st.SearchStrategy[Any]:
        made = copy.deepcopy(document)
        container, key, annotation = places(made, form)[number]
        if annotation is MISSING:
            del container[key]
            return st.just(made)
        wrong = unfit(annotation)
        if wrong is None:
            return st.nothing()

        def put(value: Any) -> Any:
            container[key] = value
            return copy.deepcopy(made)

        return wrong.map(put)

    return st.integers(0, count - 1).flatmap(at)
