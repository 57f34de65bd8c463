"""Items of a fan-out: what they are, and what a placeholder gets from one. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from claude_orchestrator.config.placeholders import Placeholder
from token_budget.fields import BadValue, expected, nearest_name, show_json
from token_budget.text import short_digest

Item = str | Mapping[str, Any]
MAX_ITEM_CHARS = 1024 * 1024
MAX_LABEL_CHARS = 80
PATH_PARTS = ("stem", "name", "dir")
# control characters, line ends, characters that turn the direction of text around, halves of surrogate pairs
_UNSAFE = r"[\s\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+"  # compiled where there are items
_UNSENDABLE = re.compile(r"[\x00\ud800-\udfff]")


def read_item(value: object) -> Item:
    """A JSON value as an item: a text, an object, or a number, which becomes a text. Raises BadValue."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(value)
    if not isinstance(value, str | dict):
        raise expected("a text or an object", value)
    text = value if isinstance(value, str) else as_text(value)
    if len(text) > MAX_ITEM_CHARS:
        raise BadValue(("", f"an item has at most {MAX_ITEM_CHARS:,} characters, and this one has {len(text):,}"))
    if _UNSENDABLE.search(text if isinstance(value, str) else "".join(_texts(value))):
        raise BadValue(("", f"a NUL or half a surrogate pair cannot be passed to claude, got {show_json(value)}"))
    return value


def _texts(value: object) -> Iterable[str]:
    """Every text in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def as_text(value: object) -> str:
    """A JSON value as a placeholder inserts it: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def item_value(placeholder: Placeholder, item: Item, index: int) -> str:
    """What `{{item}}`, `{{item.key}}` or `{{index}}` stands for. Raises BadValue for a placeholder that is unknown."""
    if placeholder.root == "index" and not placeholder.path:
        return str(index)
    if placeholder.root != "item":
        raise unknown_placeholder(placeholder, item)
    if not placeholder.path:
        return as_text(item)
    if isinstance(item, str):
        return _path_part(placeholder, item)
    return as_text(_inner(placeholder, item))


def _path_part(placeholder: Placeholder, item: str) -> str:
    path = PurePosixPath(item)
    match placeholder.path:
        case "stem":
            return path.stem
        case "name":
            return path.name
        case "dir":
            return str(path.parent)
    raise unknown_placeholder(placeholder, item)


def _inner(placeholder: Placeholder, item: Mapping[str, Any]) -> object:
    """The value at a path such as `key`, `key.inner` or `list.0`; a key may contain dots itself."""
    if placeholder.path in item:
        return item[placeholder.path]
    value: object = item
    for key in placeholder.path.split("."):
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isascii() and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            raise unknown_placeholder(placeholder, item)
    return value


def unknown_placeholder(placeholder: Placeholder, item: Item | None = None) -> BadValue:
    """The fault of a placeholder that nothing stands for. Without an item there is no fan-out."""
    if item is None and placeholder.root in ("item", "index"):
        return BadValue(("", f"{placeholder.text}: there are no items: add for_each (\\{{{{ is a literal {{{{)"))
    parts = PATH_PARTS if isinstance(item, str) else tuple(item or ())
    known = [] if item is None else ["item", "index", *(f"item.{part}" for part in parts)]
    name = placeholder.text.strip("{} \t")
    near = nearest_name(name, known)
    shown = ", ".join(f"{{{{{name}}}}}" for name in known[:12])
    hint = f"; did you mean {{{{{near}}}}}?" if near else f"; known here: {shown}" if known else ""
    return BadValue(("", f"unknown placeholder {placeholder.text}{hint} (\\{{{{ is a literal {{{{)"))


# -- names --


def label_of(item: Item) -> str:
    """What stands for an item in names: a text itself, an object's `id` or `name`, else its values."""
    if isinstance(item, str):
        return name_part(item)
    for key in ("id", "name"):
        if isinstance(item.get(key), str | int):
            return name_part(as_text(item[key]))
    return name_part(",".join(map(as_text, item.values())))


def name_part(text: str) -> str:
    """A text as one line for a name. If that changes it, it gets a short hash, so that it stays unique."""
    line = re.sub(_UNSAFE, " ", text).strip()
    if line == text and len(line) <= MAX_LABEL_CHARS:
        return line
    digest = short_digest(text)
    room = MAX_LABEL_CHARS - len(digest) - 1
    if len(line) > room:
        line = f"{line[: room // 2 - 1]}..{line[-(room - room // 2 - 1) :]}"
    return f"{line}-{digest}".lstrip("-")
