"""What claude takes as `--json-schema`: an object schema in the words of JSON Schema draft 7. Pure.

Claude checks an answer against the schema itself, so only the schema is checked here, before anything is spent:
2.1.332 refuses at its start what is no schema, and 2.1.197 silently starts without it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from token_budget.fields import BadValue, expected, show_json

MAX_CHARS = 100_000  # an argument of a process has at most 128 KiB on Linux
TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
DRAFTS = ("http://json-schema.org/draft-07/schema", "https://json-schema.org/draft/2020-12/schema")
_ONE = frozenset({"additionalItems", "additionalProperties", "contains", "else", "if", "not", "propertyNames", "then"})
_LISTS = frozenset({"allOf", "anyOf", "oneOf"})
_BY_NAME = frozenset({"$defs", "definitions", "properties", "patternProperties"})
_NUMBERS = frozenset({"exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"})
_COUNTS = frozenset({"maxItems", "maxLength", "maxProperties", "minItems", "minLength", "minProperties"})
_TEXTS = frozenset({"$comment", "$id", "$ref", "$schema", "description", "format", "pattern", "title"})
_ANY = frozenset({"const", "contentEncoding", "contentMediaType", "default", "examples", "readOnly", "writeOnly"})
_OTHERS = frozenset({"dependencies", "enum", "items", "required", "type", "uniqueItems"})
KEYWORDS = _ONE | _LISTS | _BY_NAME | _NUMBERS | _COUNTS | _TEXTS | _ANY | _OTHERS
Faults = Iterator[tuple[str, str]]


def as_argument(schema: object) -> str:
    """A schema as the text that claude takes. Raises BadValue with every fault and its path."""
    if not isinstance(schema, dict):
        raise expected("a JSON Schema, which is an object, or a file with one", schema)
    try:
        faults = [*_top_faults(schema), *_faults(schema, "", schema)]
    except RecursionError:
        faults = [("", "is too deeply nested")]
    if faults:
        raise BadValue(*faults[:20])
    text = json.dumps({key: value for key, value in schema.items() if key != "$schema"}, separators=(",", ":"))
    if len(text) > MAX_CHARS:
        raise BadValue(("", f"is too large: {len(text):,} characters, and at most {MAX_CHARS:,} can be passed on"))
    return text


def _top_faults(schema: Mapping[str, Any]) -> Faults:
    kind = schema.get("type", "object")
    if kind != "object" and kind in TYPES:
        yield ".type", f"the answer has to be an object, got {show_json(kind)}: make it a property of an object"
    draft = schema.get("$schema", DRAFTS[0])
    if isinstance(draft, str) and draft.rstrip("#") not in DRAFTS:
        yield ".$schema", f"expected {DRAFTS[0]}#, got {show_json(draft)}"


def _faults(schema: object, path: str, root: Mapping[str, Any]) -> Faults:
    if isinstance(schema, bool) and path:
        return
    if not isinstance(schema, dict):
        yield path, f"expected a schema, which is an object, got {show_json(schema)}"
        return
    for key, value in schema.items():
        yield from _keyword(key, value, f"{path}.{key}", root)


def _keyword(key: str, value: object, path: str, root: Mapping[str, Any]) -> Faults:
    """The faults of one keyword's value."""
    if key in _ONE or (key == "items" and not isinstance(value, list)):
        yield from _faults(value, path, root)
    elif key in _LISTS or key == "items":
        if not isinstance(value, list) or not value:
            yield path, f"expected a list of schemas, got {show_json(value)}"
            return
        for index, part in enumerate(value):
            yield from _faults(part, f"{path}[{index}]", root)
    elif key in _BY_NAME:
        if not isinstance(value, dict):
            yield path, f"expected an object of schemas, got {show_json(value)}"
            return
        for name, part in value.items():
            yield from _faults(part, f"{path}.{name}", root)
            if key == "patternProperties":
                yield from _pattern(name, f"{path}.{name}")
    elif key not in KEYWORDS:
        yield path, f"{show_json(key)} is no keyword of JSON Schema draft 7, and claude refuses it"
    else:
        yield from _simple(key, value, path, root)


def _simple(key: str, value: object, path: str, root: Mapping[str, Any]) -> Faults:
    """A fault in the value of a keyword that holds no schema."""
    for keys, fits, wanted in _EXPECTED:
        if key in keys and not fits(value):
            yield path, f"expected {wanted}, got {show_json(value)}"
            return
    if key == "pattern":
        yield from _pattern(str(value), path)
    elif key == "$ref" and resolve(str(value), root) is None:
        yield path, f"{show_json(value)} names nothing in this schema"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _names_types(value: object) -> bool:
    kinds = value if isinstance(value, list) else [value]
    return bool(kinds) and all(kind in TYPES for kind in kinds)


def _is_list_of_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


_EXPECTED: tuple[tuple[Collection[str], Callable[[object], bool], str], ...] = (
    (("type",), _names_types, f"one of {', '.join(TYPES)}"),
    (("enum",), lambda value: isinstance(value, list) and bool(value), "a list of values"),
    (("required",), _is_list_of_names, "a list of names"),
    (_COUNTS, _is_count, "a whole number from 0"),
    (_NUMBERS, _is_number, "a number"),
    (("uniqueItems",), lambda value: isinstance(value, bool), "true or false"),
    (_TEXTS, lambda value: isinstance(value, str), "a string"),
)


def _pattern(pattern: str, path: str) -> Faults:
    """Only faults that every dialect has, because claude uses that of JavaScript."""
    try:
        re.compile(pattern)
    except re.error as error:
        if "unterminated" in error.msg or "unbalanced" in error.msg or "nothing to repeat" in error.msg:
            yield path, f"{show_json(pattern)} is no regular expression: {error.msg}"


def resolve(ref: str, root: Mapping[str, Any]) -> object:
    """What a reference within a schema names; None if that is nothing."""
    found: object = root
    if not ref.startswith("#"):
        return None
    for word in ref.removeprefix("#").split("/")[1:]:
        key = word.replace("~1", "/").replace("~0", "~")
        found = found.get(key) if isinstance(found, dict) else None
    return found
