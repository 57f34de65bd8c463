"""What to send to a terminal so that lines on it become other lines. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from token_budget.text import ESCAPE, display_width, uncolored

_Cell = tuple[str, str]
_RESET = "\033[0m"
_TO_END, _BELOW = "\033[K", "\033[J"


def update(old: Sequence[str], new: Sequence[str]) -> str:
    """Turn the lines `old`, which end just above the cursor, into `new`. Only what has changed is sent.

    Lines are narrower than the terminal, and their colours end with them.
    """
    first = next((row for row, (was, now) in enumerate(zip(old, new, strict=False)) if was != now), None)
    first = min(len(old), len(new)) if first is None else first
    if first == len(old) == len(new):
        return ""
    parts = [_up(len(old) - first)]
    same = 0
    for row in range(first, len(new)):
        if row < len(old) and old[row] == new[row]:
            same += 1
            continue
        parts += [_down(same), _change(old[row] if row < len(old) else "", new[row]), "\n"]
        same = 0
    parts += [_down(same), _BELOW if len(new) < len(old) else ""]
    return "".join(parts)


def erase(old: Sequence[str], width: int) -> str:
    """Remove the lines, which a terminal of this width may have wrapped when it became narrower."""
    rows = sum(max(1, -(-display_width(uncolored(line)) // max(1, width))) for line in old)
    return f"{_up(rows)}{_BELOW}" if old else ""


def _up(rows: int) -> str:
    return f"\033[{rows}F" if rows else ""


def _down(rows: int) -> str:
    return f"\033[{rows}E" if rows else ""


def _change(was: str, now: str) -> str:
    """What turns a line into another one, from the line's start: the cells that differ."""
    old, new = _cells(was), _cells(now)
    first = next((place for place, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    last = len(new)
    if len(old) == len(new):
        while last > first and old[last - 1] == new[last - 1]:
            last -= 1
    while first and _is_rest(first, old, new):
        first -= 1
    while last < len(new) and _is_rest(last, old, new):
        last += 1
    to_end = _TO_END if len(new) < len(old) else ""
    return (f"\033[{first}C" if first else "") + _text(new[first:last]) + to_end


def _cells(line: str) -> list[_Cell]:
    """A line as its cells: the colour and the character of each. The second cell of a wide character has none."""
    cells: list[_Cell] = []
    color, place = "", 0
    for found in (*re.finditer(ESCAPE, line), None):
        text = line[place : len(line) if found is None else found.start()]
        if text.isascii():
            cells += [(color, char) for char in text]
        else:
            for char in text:
                width = display_width(char)
                if not width and cells:
                    cells[-1] = cells[-1][0], cells[-1][1] + char
                cells += [(color, char), (color, "")][:width]
        if found is not None:
            color, place = "" if found[0] == _RESET else found[0], found.end()
    return cells


def _is_rest(column: int, *lines: list[_Cell]) -> bool:
    """Whether the second cell of a wide character is in this column of one of the lines."""
    return any(column < len(line) and not line[column][1] for line in lines)


def _text(cells: Sequence[_Cell]) -> str:
    parts, now = [], ""
    for color, char in cells:
        if color != now:
            parts.append((_RESET if now else "") + color)
            now = color
        parts.append(char)
    return "".join(parts) + (_RESET if now else "")
