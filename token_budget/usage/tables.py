"""Text tables and sparklines that fit a width. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from token_budget.text import ELLIPSIS, RenderOptions, display_width, fit, format_usd

CYAN, BOLD, RESET = "\033[36m", "\033[1m", "\033[0m"
LEAST_BAR, MOST_BAR, LEAST_NAME, MOST_NAME = 4, 24, 8, 40
MOST_CELL = 24
SPARKS, ASCII_SPARKS = "▁▂▃▄▅▆▇█", "_.:-=+*#"


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column of a table. Where there is no room, the columns with the highest `drop` go first; 0 stays."""

    title: str
    cells: Sequence[str]
    drop: int = 0
    left: bool = False

    @property
    def width(self) -> int:
        """The cells that the column needs."""
        return max(display_width(text) for text in (self.title, *self.cells))

    def texts(self, width: int) -> list[str]:
        """The title and the cells, aligned within a width."""
        padded = []
        for text in (self.title, *self.cells):
            spaces = " " * (width - display_width(text))
            padded.append(text + spaces if self.left else spaces + text)
        return padded


def table(columns: Sequence[TableColumn], options: RenderOptions, shares: Sequence[float] | None = None) -> list[str]:
    """A title line and a line for each row, within the width.

    The first column gives way where there is little room. A share from 0 to 1 becomes a bar behind its row.
    """
    name, *others = columns
    others = _fitting(name, others, options.width - (2 + LEAST_BAR if shares else 0))
    room = options.width - sum(2 + column.width for column in others)
    name_width = max(1, min(name.width, MOST_NAME, room - (2 + LEAST_BAR if shares else 0)))
    bars = _bars(shares or (), min(MOST_BAR, room - name_width - 2), options)
    names = [shorten(text, name_width, options) for text in (name.title, *name.cells)]
    rows = zip(names, *(column.texts(column.width) for column in others), strict=True)
    lines = [cut("  ".join(texts), options) for texts in rows]
    return [
        colored(lines[0].rstrip(), BOLD, options),
        *(
            f"{line}  {colored(bars[place], CYAN, options)}" if place < len(bars) and bars[place] else line.rstrip()
            for place, line in enumerate(lines[1:])
        ),
    ]


def _fitting(name: TableColumn, columns: Sequence[TableColumn], width: int) -> list[TableColumn]:
    """The columns that fit beside the first one; those with the same `drop` go together."""
    kept = list(columns)
    while kept and min(LEAST_NAME, name.width) + sum(2 + column.width for column in kept) > width:
        worst = max(column.drop for column in kept)
        if not worst:
            break
        kept = [column for column in kept if column.drop != worst]
    return kept


def _bars(shares: Sequence[float], width: int, options: RenderOptions) -> list[str]:
    if width < LEAST_BAR:
        return []
    block = "#" if options.ascii_only else "█"
    return [block * max(1, round(share * width)) if share > 0 else "" for share in shares]


def shorten(text: str, width: int, options: RenderOptions) -> str:
    """The text made printable, cut with an ellipsis or padded to exactly that many cells."""
    return fit(text, width, ellipsis="..." if options.ascii_only else ELLIPSIS)


def short_cell(text: str, options: RenderOptions) -> str:
    """The text of a cell: printable, and not longer than a cell may be."""
    return shorten(text, MOST_CELL, options).rstrip()


def cut(text: str, options: RenderOptions) -> str:
    """The text, cut where it is wider than a line."""
    return text if display_width(text) <= options.width else shorten(text, options.width, options)


def colored(text: str, color: str, options: RenderOptions) -> str:
    """The text in a colour, where colours are wanted."""
    return f"{color}{text}{RESET}" if options.color and text else text


def sparkline(values: Sequence[int], options: RenderOptions) -> str:
    """The values as one line of columns, at most the width. Where there are more, it averages neighbours."""
    size = max(1, -(-len(values) // max(1, options.width)))
    means = [statistics.fmean(values[start : start + size]) for start in range(0, len(values), size)]
    signs = ASCII_SPARKS if options.ascii_only else SPARKS
    most = max(means, default=0)
    # the lowest sign is for nothing at all
    places = (max(1, round(mean / most * (len(signs) - 1))) if mean > 0 else 0 for mean in means)
    return colored("".join(signs[place] for place in places), CYAN, options)


def cost_text(nano_usd: int | None, unpriced_tokens: int = 0) -> str:
    """An estimated cost. A `+` means that some of the use has no price, so that the true cost is higher."""
    if nano_usd is None:
        return "?" if unpriced_tokens else "-"
    return format_usd(nano_usd) + ("+" if unpriced_tokens else "")
