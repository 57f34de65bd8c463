"""Kinds of values that consist of others: lists, names in a row, objects. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from token_budget.fields import BadValue, Kind, expected, is_comment, nearest_name, show_json
from token_budget.text import printable


def list_of(element: Kind) -> Kind:
    """A list whose items are of one kind."""

    def read(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise expected("a list of strings", value)
        return collect((f"[{index}]", item, element) for index, item in enumerate(value))

    return Kind(read, {"type": "array", "items": element.schema})


def collect(parts: Iterable[tuple[str, object, Kind]]) -> tuple[Any, ...]:
    """The values of several parts, each with its place; raises BadValue with the faults of all of them."""
    values, faults = [], []
    for place, value, kind in parts:
        try:
            values.append(kind.read(value))
        except BadValue as error:
            faults += [(place + inner, why) for inner, why in error.faults]
    if faults:
        raise BadValue(*faults)
    return tuple(values)


def names_of(known: Mapping[str, object]) -> Kind:
    """Some of these names, in any order, separated by commas."""

    def read(value: object) -> tuple[str, ...]:
        names = [name.strip().lower() for name in value.split(",")] if isinstance(value, str) else []
        unknown = next((name for name in names if name not in known), None)
        if unknown is not None:
            why = f"{show_json(unknown)} is unknown{_hint(unknown, known)}: expected some of {', '.join(known)}"
            raise BadValue(("", why))
        if not names:
            raise expected(f"some of {', '.join(known)}", value)
        return tuple(dict.fromkeys(names))

    return Kind(read, {"type": "string"}, ",".join)


def read_object(value: object, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """The values of an object's keys, without those that are null. Raises BadValue with every fault.

    An unknown key is a fault that names the nearest known one.
    """
    if not isinstance(value, dict):
        raise expected("an object", value)
    known = {key: item for key, item in value.items() if key in kinds and item is not None}
    faults = [
        (f".{printable(key)}", f"unknown key{_hint(key, kinds)}")
        for key in value
        if key not in kinds and not is_comment(key)
    ]
    try:
        values = collect((f".{key}", item, kinds[key]) for key, item in known.items())
    except BadValue as error:
        raise BadValue(*error.faults, *faults) from None
    if faults:
        raise BadValue(*faults)
    return dict(zip(known, values, strict=True))


def _hint(key: str, known: Iterable[str]) -> str:
    near = nearest_name(key, known)
    return f"; did you mean {near!r}?" if near else f"; known keys: {', '.join(known)}"


def object_of(make: Callable[[dict[str, Any]], Any], kinds: Mapping[str, Kind], ref: str) -> Kind:
    """An object with certain keys; `ref` names its part of the schema."""
    return Kind(lambda value: make(read_object(value, kinds)), {"$ref": f"#/$defs/{ref}"})
