"""Structured output as a simulated instance gives it: the smallest value that has the form of a schema. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from claude_orchestrator.config.json_schema import resolve

MAX_DEPTH = 12
MAX_ITEMS = 100


def sample_of(schema_text: str) -> Any:
    """A value for a schema; texts in a list differ. Patterns, formats and conditions are not heeded."""
    root = json.loads(schema_text)
    return _sample({"type": "object", **root}, root, MAX_DEPTH, "")


def _sample(schema: object, root: Mapping[str, Any], depth: int, mark: str) -> Any:
    if not isinstance(schema, dict) or depth == 0:
        return None
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if schema.get(key):
            return schema[key][0]
    if "$ref" in schema:
        return _sample(resolve(schema["$ref"], root), root, depth - 1, mark)
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema and "properties" not in schema:
            return _sample(schema[key][0], root, depth - 1, mark)
    return _of_type(schema, root, depth, mark)


def _of_type(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int, mark: str) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            names = dict.fromkeys((*schema.get("properties", {}), *schema.get("required", ())))
            parts = schema.get("properties", {})
            return {name: _sample(parts.get(name, {}), root, depth - 1, mark) for name in names}
        case "array":
            count = min(MAX_ITEMS, max(schema.get("minItems", 0), min(2, schema.get("maxItems", 2))))
            items = schema.get("items", {})
            each = items if isinstance(items, list) else [items] * count
            return [_sample(item, root, depth - 1, f"{mark}-{place}") for place, item in enumerate(each, 1)]
        case "integer" | "number":
            return _number(schema)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            most = schema.get("maxLength")
            word = "rehearsed" if most is None else "rehearsed"[: max(0, most - len(mark))]
            return f"{word}{mark}".ljust(schema.get("minLength", 0), ".")[:most]


def _number(schema: Mapping[str, Any]) -> Any:
    step = schema.get("multipleOf", 1)
    least = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    most = schema.get("maximum", schema.get("exclusiveMaximum"))
    number = least + step if "exclusiveMinimum" in schema else least
    return number if most is None or number <= most else most if "maximum" in schema else most - step
