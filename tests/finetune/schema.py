"""What the verbs of training print with --json, held to its schema."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

DEFINITIONS = json.loads((Path(__file__).parents[2] / "docs" / "training.schema.json").read_text())["$defs"]


def held(found: Any, document: str) -> Any:
    """The same, once it is as the schema's definition of that name has it, and JSON that every reader takes."""
    json.dumps(found, allow_nan=False)
    _validator(document).validate(found)
    return found


@cache
def _validator(document: str) -> Any:
    schema = {"$ref": f"#/$defs/{document}", "$defs": DEFINITIONS}
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    return kind(schema)
