"""Text that must fit a terminal or a table: width, cutting, wrapping, CSV, harmless characters. Pure."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from token_budget.named_tuples import NamedTuple

if TYPE_CHECKING:
    from decimal import Decimal

ELLIPSIS = "…"
ESCAPE = r"\033\[[0-9;]*m"  # sets a colour; compiled where there is one
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # the first characters of a formula in a spreadsheet


class RenderOptions(NamedTuple):
    """How to render text: cells per line, colours, plain ASCII, with or without the budget panel."""

    width: int = 100
    color: bool = False
    ascii_only: bool = False
    visuals: bool = True


def counted(number: int, noun: str) -> str:
    """A number and what it counts: `1 instance`, `1,000 instances`."""
    return f"{number:,} {noun if number == 1 else noun + 's'}"


def printable(text: str) -> str:
    """The text with escapes for everything that could control a terminal, such as control characters and bidi marks."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or unicodedata.category(char) in ("Mn", "Zs") else _escaped(char) for char in text
    )


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def display_width(text: str) -> int:
    """The number of terminal cells that `text` (printable, no escape sequences) takes."""
    if text.isascii():
        return len(text)
    return sum(_cells(char) for char in text)


def _cells(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def fit(text: str, width: int, *, ellipsis: str = ELLIPSIS, middle: bool = False) -> str:
    """`text` made printable, cut with an ellipsis or padded with spaces to exactly `width` cells.

    `middle`: it keeps its end as well as its beginning.
    """
    text = printable(text)
    cells = display_width(text)
    if cells > width:
        text, cells = (_cut_middle if middle else _cut)(text, width, ellipsis)
    return text + " " * (width - cells)


def _cut(text: str, width: int, ellipsis: str) -> tuple[str, int]:
    room = width - display_width(ellipsis)
    if room < 0:
        return ellipsis[:width], min(width, display_width(ellipsis))
    taken = 0
    for index, char in enumerate(text):
        cells = _cells(char)
        if taken + cells > room:
            return text[:index] + ellipsis, taken + display_width(ellipsis)
        taken += cells
    return text, taken


def _cut_middle(text: str, width: int, ellipsis: str) -> tuple[str, int]:
    room = (width - display_width(ellipsis)) // 2
    if room < 2:
        return _cut(text, width, ellipsis)
    end, cells = "", 0
    for char in reversed(text):
        if cells + _cells(char) > room:
            break
        end, cells = char + end, cells + _cells(char)
    head, head_cells = _cut(text, width - cells, ellipsis)
    return head + end, head_cells + cells


def wrap(text: str, width: int, indent: str = "") -> list[str]:
    """`text` made printable, in lines within `width` cells. Lines break at spaces; only longer words are cut.

    All lines but the first are indented. One space separates words.
    """
    room = max(2, width - len(indent))
    lines: list[str] = []
    for word in printable(text).split():
        joined = f"{lines[-1]} {word}" if lines else word
        if display_width(joined) <= room or display_width(word) > room:
            lines[-1:] = _pieces(joined, room)
        else:
            lines.append(word)
    return [indent * (place > 0) + line.strip() for place, line in enumerate(lines)] or [""]


def _pieces(text: str, room: int) -> Iterator[str]:
    start = taken = 0
    for index, char in enumerate(text):
        cells = _cells(char)
        if taken + cells > room:
            yield text[start:index]
            start, taken = index, 0
        taken += cells
    yield text[start:]


def uncolored(text: str) -> str:
    """The text without the sequences that colour it."""
    return re.sub(ESCAPE, "", text) if "\033" in text else text


def encodable(text: str) -> str:
    """The text with escapes for halves of surrogate pairs, which no database accepts."""
    return text.encode(errors="backslashreplace").decode()


def short_digest(text: str) -> str:
    """Eight hexadecimal digits that tell texts apart which look alike in names."""
    from token_budget.digests import sha256  # most starts need none

    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def csv_line(cells: Iterable[str | int | float | Decimal | None]) -> str:
    """A line of CSV without its end. Text that a spreadsheet would take for a formula gets an apostrophe in front."""
    import csv  # few programs need it

    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(
        map(_cell, cells)
    )  # the writer quotes every cell that contains a part of the line end
    return line.getvalue().removesuffix("\r\n")


def _cell(cell: str | int | float | Decimal | None) -> str | int | float | None:
    from decimal import Decimal

    if isinstance(cell, Decimal):
        return f"{cell:f}"
    return f"'{cell}" if isinstance(cell, str) and cell.lstrip(" ").startswith(FORMULA) else cell


NANO = 1_000_000_000  # nano-dollars in a dollar
SHELL_HINT = ": write an amount in single quotes, as in '$2.50', because the shell replaces $2"


def format_usd(nano_usd: int) -> str:
    """Nano-dollars as text: `$1.23`, `$1,234.50`, and `$0.0042` where cents would hide it."""
    if 0 < abs(nano_usd) < NANO // 10:
        return f"${nano_usd / NANO:.4f}"
    return f"${nano_usd / NANO:,.2f}"


def decimal_usd(nano_usd: int) -> str:
    """Nano-dollars as an exact decimal string of dollars: `2.5`, `0.000000001`."""
    whole, fraction = divmod(abs(nano_usd), NANO)
    digits = f"{fraction:09}".rstrip("0")
    return f"{'-' if nano_usd < 0 else ''}{whole}" + (f".{digits}" if digits else "")


def format_tokens(tokens: int) -> str:
    """Tokens in short: `950`, `3.0K`, `1.2M`, `4.5B`."""
    for size, unit in ((1_000_000_000, "B"), (1_000_000, "M"), (1_000, "K")):
        # 999,950 rounds to 1000.0K, which is 1.0M
        if tokens >= size - size // 20_000 and tokens >= 1_000:
            return f"{tokens / size:.1f}{unit}"
    return str(tokens)


def about_tokens(tokens: float) -> str:
    """Tokens in three digits at most: `950`, `3K`, `48.7K`, `487K`, `1.2M`."""
    text = format_tokens(round(tokens))
    number, unit = text.rstrip("KMB"), text.lstrip("0123456789.")
    return f"{float(number):.0f}{unit}" if unit and (float(number) >= 100 or number.endswith(".0")) else text


def countdown(seconds: float) -> str:
    """`1:02:05`, always with minutes."""
    whole = max(0, int(seconds + 0.999))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
