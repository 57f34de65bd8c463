"""`for_each`: where the items of a fan-out come from, as a config says it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

from claude_orchestrator.config.compound_kinds import collect, list_of, read_object
from claude_orchestrator.config.kinds import LINE
from token_budget.fields import BadValue, Kind, expected
from token_budget.named_tuples import NamedTuple

if TYPE_CHECKING:
    from claude_orchestrator.config.items import Item

MAX_ITEMS = 100_000
FORMATS = ("lines", "jsonl", "csv")


class InlineItems(NamedTuple):
    """Items that the config itself has."""

    items: tuple[Item, ...]


class Glob(NamedTuple):
    """The files of the workspace that match a pattern, without those that match one of `exclude`."""

    patterns: tuple[str, ...]
    exclude: tuple[str, ...] = ()


class ItemFile(NamedTuple):
    """A file of items, in one of FORMATS. `-` is standard input; a relative path is one of the workspace."""

    format: str
    path: str


class ResultOf(NamedTuple):
    """A list in the result of an instance, or of a group: it exists once that has ended.

    `limit` and `shuffle` select items as they do for the other sources.
    """

    name: str
    path: str = ""
    limit: int | None = None
    shuffle: int | None = None


ForEach = InlineItems | Glob | ItemFile | ResultOf


def _read_listed(value: list[object]) -> InlineItems:
    if not value:
        raise BadValue(("", "expected at least one item, got an empty list"))
    check_count(len(value))
    return InlineItems(collect((f"[{index}]", item, _ITEM) for index, item in enumerate(value)))


def check_count(number: int) -> None:
    """Refuse more items than a run can have. Raises BadValue."""
    if number > MAX_ITEMS:
        raise BadValue(("", f"expected at most {MAX_ITEMS:,} items, got {number:,}"))


def _read_matrix(value: object) -> InlineItems:
    """Every combination of the values; the last key changes fastest."""
    if not isinstance(value, dict) or not value:
        raise expected("an object of lists", value)
    faults = [
        (f".{key}", "expected a list of at least one value")
        for key, values in value.items()
        if not isinstance(values, list) or not values
    ]
    if faults:
        raise BadValue(*faults)
    check_count(prod(map(len, value.values())))
    return InlineItems(tuple(_read_item(dict(zip(value, chosen, strict=True))) for chosen in product(*value.values())))


def _read_patterns(value: object) -> tuple[str, ...]:
    patterns: tuple[str, ...] = list_of(_PATTERN).read(value if isinstance(value, list) else [value])
    if not patterns:
        raise BadValue(("", "expected at least one pattern, got an empty list"))
    return patterns


def _read_pattern(value: object) -> str:
    text: str = LINE.read(value)
    if text.startswith("/") or ".." in text.split("/"):
        raise expected("a pattern of files in the workspace, such as src/**/*.py", value)
    return text.removeprefix("./")


def _read(value: object) -> ForEach:
    if isinstance(value, list):
        return _read_listed(value)
    if not isinstance(value, dict):
        raise expected("a list of items, or an object with glob, lines, jsonl, csv, matrix or result_of", value)
    values = read_object(value, _KINDS)
    sources = [key for key in values if key not in _ADDITIONS]
    if len(sources) != 1:
        raise BadValue(("", f"expected one of {', '.join(_SOURCES)}, got {' and '.join(sources) or 'none'}"))
    source = sources[0]
    if "exclude" in values and source != "glob":
        raise BadValue((".exclude", "only with glob"))
    if "path" in values and source != "result_of":
        raise BadValue((".path", "only with result_of"))
    if source == "result_of":
        return ResultOf(values["result_of"], values.get("path", ""))
    if source == "glob":
        return Glob(values["glob"], values.get("exclude", ()))
    if source == "matrix":
        matrix: InlineItems = values["matrix"]
        return matrix
    return ItemFile(source, values[source])


def _read_item(value: object) -> Item:
    from claude_orchestrator.config.items import read_item  # a start without items needs none

    return read_item(value)


_ITEM = Kind(_read_item, {"type": ["string", "number", "object"]})
_PATTERN = Kind(_read_pattern, {**LINE.schema, "not": {"pattern": r"^/|(^|/)\.\.(/|$)"}})
_PATTERNS = Kind(
    _read_patterns, {"anyOf": [_PATTERN.schema, {"type": "array", "minItems": 1, "items": _PATTERN.schema}]}
)
_MATRIX = Kind(
    _read_matrix,
    {"type": "object", "minProperties": 1, "additionalProperties": {"type": "array", "minItems": 1}},
)
_KINDS: Mapping[str, Kind] = {
    "glob": _PATTERNS,
    "exclude": _PATTERNS,
    **dict.fromkeys(FORMATS, LINE),
    "matrix": _MATRIX,
    "result_of": LINE,
    "path": LINE,
}
_ADDITIONS = {"exclude": "glob", "path": "result_of"}  # the source that each goes with
_SOURCES = tuple(key for key in _KINDS if key not in _ADDITIONS)


def _source_schema(key: str) -> dict[str, Any]:
    more = {name: _KINDS[name].schema for name, source in _ADDITIONS.items() if source == key}
    properties = {key: _KINDS[key].schema, **more}
    return {
        "type": "object",
        "required": [key],
        "properties": {"$schema": {}, **properties},
        "patternProperties": {"^//": {}},
        "additionalProperties": False,
    }


FOR_EACH = Kind(
    _read,
    {
        "anyOf": [
            {"type": "array", "minItems": 1, "maxItems": MAX_ITEMS, "items": _ITEM.schema},
            *map(_source_schema, _SOURCES),
        ]
    },
)
