"""Reads lines that hold more than one JSON object, or codes for a terminal around them. Pure."""

from __future__ import annotations

import json
import re

MAX_OBJECTS = 1_000
_AROUND = re.compile(r"(?:[\x00-\x1a\x1c-\x20\ufeff]|\x1b\[[0-9;?]*[A-Za-z])*")  # control characters, colours, a BOM
_decode_at = json.JSONDecoder(strict=False).raw_decode


def objects_in(line: bytes) -> tuple[list[object], bool]:
    """The JSON objects that the line begins with, and whether they are the whole line.

    It never looks inside what it cannot read: a text in there may look like an event.
    """
    text = line.decode("utf-8", "replace")
    found: list[object] = []
    place = _end_of_around(text, 0)
    while text.startswith("{", place) and len(found) < MAX_OBJECTS:
        try:
            data, end = _decode_at(text, place)
        except (ValueError, RecursionError):
            break
        found.append(data)
        place = _end_of_around(text, end)
    return found, bool(found) and place == len(text)


def _end_of_around(text: str, place: int) -> int:
    around = _AROUND.match(text, place)
    return around.end() if around else place
