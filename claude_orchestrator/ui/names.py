"""Names that are cut to a width and can still be told apart. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from token_budget.text import display_width, fit, printable

LEAST_ENDS = 2  # characters of the beginning and of the end that stay


def fitted_names(names: Sequence[str], width: int, ellipsis: str) -> list[str]:
    """Each name in exactly `width` cells. Those that are too long lose their middle.

    Where names that differ would look alike, the long ones lose what they have in common instead.
    """
    shown = [fit(name, width, ellipsis=ellipsis, middle=True) for name in names]
    if len(set(shown)) == len(set(names)):
        return shown
    long = [place for place, name in enumerate(names) if display_width(printable(name)) > width]
    clean = {place: printable(names[place]) for place in long}
    head = _common(list(clean.values()))
    tail = _common([name[head:][::-1] for name in clean.values()])
    for place, name in clean.items():
        middle = name[head : len(name) - tail]
        room = width - display_width(middle) - 2 * display_width(ellipsis)
        if not middle or room < 2 * LEAST_ENDS:
            continue
        end = min(tail, room // 2)
        begin = min(head, room - end)
        cut_head = name[:begin] + ellipsis if begin < head else name[:head]
        cut_tail = ellipsis + name[len(name) - end :] if end < tail else name[len(name) - tail :]
        shown[place] = fit(cut_head + middle + cut_tail, width, ellipsis=ellipsis, middle=True)
    return shown


def _common(texts: Sequence[str]) -> int:
    """How many characters all texts begin with."""
    first, last = min(texts), max(texts)
    length = next((place for place, char in enumerate(first) if last[place] != char), len(first))
    return min(length, len(last))
