"""What a type says of its values to pydantic, without pydantic: that is loaded only where a form is put together.

A mark stands in `Annotated`; `named` in a dataclass's `__pydantic_config__`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qwen_rig.frozen import frozen


def named(**keys: str) -> dict[str, Any]:
    """A dataclass's configuration: the keys that its fields have in the data, where these aren't their names."""
    return {"alias_generator": lambda field: keys.get(field, field)}


@frozen
class Before:
    """A mark: the function makes the value what its type takes (as pydantic's BeforeValidator)."""

    function: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core.core_schema import no_info_before_validator_function
        return no_info_before_validator_function(self.function, handler(source))


@frozen
class After:
    """A mark: the function checks a value that has its type (as pydantic's AfterValidator)."""

    function: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core.core_schema import no_info_after_validator_function
        return no_info_after_validator_function(self.function, handler(source))


@frozen
class Exactly:
    """A mark: the value has the type already; of a text, that it has a letter."""

    least: int | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        return {**handler(source), "strict": True} | ({"min_length": self.least} if self.least else {})
