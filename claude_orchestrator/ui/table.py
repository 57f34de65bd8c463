"""The table of instances: which columns it has, how wide they are, and which rows come first. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from claude_orchestrator.engine.snapshot import Row
from claude_orchestrator.engine.state import State
from claude_orchestrator.ui.names import fitted_names
from token_budget.named_tuples import NamedTuple
from token_budget.text import RenderOptions, display_width, fit, format_tokens, format_usd, printable
from token_budget.visualization import GREEN, RED, RESET, YELLOW, budget_color

STATE_COLORS = {
    State.COMPLETED: GREEN,
    State.RUNNING: "\033[36m",
    State.WAITING: YELLOW,
    State.PENDING: "",
    State.SKIPPED: YELLOW,
}
NAME_WIDTH = 64
NOW_WIDTH = 60
LEAST_SHOWN_S = 3.0  # of what an instance does
LEAST = {"INSTANCE": 16, "NOW": 20}  # cells, of the columns that may be narrower than their values
NOW_ROOM = 24  # that names leave to NOW, whatever it shows: so they keep their width
GROWTH = (  # who gets spare cells first
    ("INSTANCE", 24),
    ("NOW", NOW_ROOM),
    ("INSTANCE", NAME_WIDTH),
    ("NOW", NOW_WIDTH),
)
ORDER = {State.RUNNING: 0, State.WAITING: 2, State.PENDING: 3, State.COMPLETED: 4, State.SKIPPED: 5}  # others failed: 1
FAILED_SHARE = 4  # of the rows, where more run than fit in, one in so many is for what failed


class Column(NamedTuple):
    """A column. On a narrow terminal those with low numbers in `keep` go first. `empty`: a value that says nothing."""

    title: str
    value: Callable[[Row], str]
    keep: int
    width: int = 0
    left: bool = False
    empty: str = "-"
    color: Callable[[Row], str] = lambda row: ""


def duration(seconds: float) -> str:
    """`59s`, `3:25` or `1:02:25`."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def at_least(exact: bool) -> str:
    """The mark of a count that is a lower bound."""
    return "" if exact else ">="


def _now(row: Row) -> str:
    return row.doing if row.doing_s is None or row.doing_s < LEAST_SHOWN_S else f"{row.doing} ({duration(row.doing_s)})"


def _tokens(row: Row) -> str:
    return at_least(row.exact) + format_tokens(row.usage.total_tokens) if row.attempts else "-"


def _percentage(row: Row) -> str:
    return "-" if row.budget_percentage is None else f"{int(row.budget_percentage)}%"


def _budget_color(row: Row) -> str:
    return "" if row.budget_percentage is None else budget_color(row.budget_percentage)


INSTANCE = Column("INSTANCE", lambda row: row.name, 99, left=True)
COLUMNS: dict[str, Column] = {
    "state": Column(
        "STATE", lambda row: row.label, 98, 9, left=True, color=lambda row: STATE_COLORS.get(row.state, RED)
    ),
    "model": Column("MODEL", lambda row: row.model.removeprefix("claude-").partition("[")[0] or "-", 1, 5, left=True),
    "time": Column("TIME", lambda row: "-" if row.seconds is None else duration(row.seconds), 6, 5),
    "tokens": Column("TOKENS", _tokens, 9, 7),
    "input": Column("INPUT", lambda row: format_tokens(row.usage.input_tokens), 3, 6),
    "output": Column("OUTPUT", lambda row: format_tokens(row.usage.output_tokens), 3, 6),
    "cache_write": Column("C.WRITE", lambda row: format_tokens(row.usage.cache_creation_input_tokens), 2, 7),
    "cache_read": Column("C.READ", lambda row: format_tokens(row.usage.cache_read_input_tokens), 2, 6),
    "cost": Column("COST", lambda row: "-" if row.nano_usd is None else format_usd(row.nano_usd), 5, 7),
    "turn": Column("TURN", lambda row: f"{row.turn}/{row.turns}" if row.attempts else "-", 4, 4),
    "try": Column("TRY", lambda row: str(row.attempts or "-"), 2, 3),
    "subagents": Column("SUBAGENTS", lambda row: row.subagents, 3, 9, empty=""),
    "tools": Column("TOOLS", lambda row: str(row.tools), 3, 5, empty="0"),
    "budget": Column("BUDGET", _percentage, 5, 6, color=_budget_color),
    "now": Column("NOW", _now, 7, 8, left=True, empty=""),
}


class TableStyle(NamedTuple):
    """How to draw the table: the names of its columns besides INSTANCE, and how many lines it may take.

    `names` is the width that names should get, so that it stays while other rows are shown.
    """

    columns: tuple[str, ...]
    max_lines: int | None = None
    names: int = 0


def instance_table(rows: Sequence[Row], options: RenderOptions, style: TableStyle) -> list[str]:
    """A title and a line for each row, none wider than `options.width`; [] without rows.

    With `max_lines`, running and failed instances come first, and the last line counts the others. A column without any
    value is left out.
    """
    if not rows or (style.max_lines is not None and style.max_lines < 2):
        return []
    shown, hidden = first_rows(rows, None if style.max_lines is None else style.max_lines - 1)
    columns, widths = _fitted(shown, options, style)
    titles = [_cell(column.title, column, width, options) for column, width in zip(columns, widths, strict=True)]
    lines = [" ".join(titles).rstrip()]
    names = fitted_names([row.name for row in shown], widths[0], dots(options))
    for row, name in zip(shown, names, strict=True):
        cells = [name]
        for column, width in zip(columns[1:], widths[1:], strict=True):
            cell, color = _cell(column.value(row), column, width, options), column.color(row) if options.color else ""
            cells.append(f"{color}{cell}{RESET}" if color else cell)
        lines.append(" ".join(cells).rstrip())
    if hidden:
        lines.append(fit(_others(hidden, options), options.width, ellipsis=dots(options)).rstrip())
    return lines


def first_rows(rows: Sequence[Row], most: int | None) -> tuple[Sequence[Row], Sequence[Row]]:
    """The rows that are shown, and the others. With `most` lines, one of them is for the number of the others."""
    if most is None or len(rows) <= most:
        return rows, ()
    ordered = sorted(rows, key=lambda row: ORDER.get(row.state, 1))
    running = sum(row.state is State.RUNNING for row in rows)
    failed = sum(row.state not in ORDER for row in rows)
    room = max(1, most - 1)
    for_failed = min(failed, max(room - running, room // FAILED_SHARE))
    first = [*ordered[: room - for_failed][:running], *ordered[running : running + for_failed]]
    rest = ordered[running + failed :]
    first += rest[: room - len(first)]
    names = {row.name for row in first}
    return first, [row for row in rows if row.name not in names]


def dots(options: RenderOptions) -> str:
    """What stands for text that was cut out."""
    return "..." if options.ascii_only else "…"


def _others(hidden: Sequence[Row], options: RenderOptions) -> str:
    states = Counter(row.state for row in hidden)
    counts = ", ".join(f"{states[state]:,} {state}" for state in State if states[state])
    return f"{dots(options)} and {len(hidden):,} more: {counts}"


def _fitted(rows: Sequence[Row], options: RenderOptions, style: TableStyle) -> tuple[list[Column], list[int]]:
    """The columns that have a value and fit in, and their widths."""
    columns = [INSTANCE, *(COLUMNS[name] for name in style.columns)]
    values = {column.title: [column.value(row) for row in rows] for column in columns}
    columns = [
        column for column in columns if column.keep > 90 or any(value != column.empty for value in values[column.title])
    ]
    needed = {
        column.title: max(
            column.width, len(column.title), *(display_width(printable(one)) for one in values[column.title])
        )
        for column in columns
    }
    needed["INSTANCE"] = min(NAME_WIDTH, max(style.names, needed["INSTANCE"]))
    needed["NOW"] = min(NOW_WIDTH, needed.get("NOW", 0))
    widths = {title: min(width, LEAST.get(title, width)) for title, width in needed.items()}
    while len(columns) > 1 and _total(columns, widths) > options.width:
        columns.remove(min(columns, key=lambda column: column.keep))
    needed["NOW"] = max(NOW_ROOM, needed["NOW"])
    for title, most in GROWTH:
        if any(column.title == title for column in columns):
            spare = options.width - _total(columns, widths)
            widths[title] += max(0, min(spare, min(most, needed[title]) - widths[title]))
    return columns, [min(options.width, widths[column.title]) for column in columns]


def _total(columns: Sequence[Column], widths: Mapping[str, int]) -> int:
    return sum(widths[column.title] + 1 for column in columns) - 1


def _cell(value: str, column: Column, width: int, options: RenderOptions) -> str:
    cell = fit(value, width, ellipsis=dots(options))
    return cell if column.left else cell.strip().rjust(width)
