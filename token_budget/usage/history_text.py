"""Shows rows of use as a table, as JSON and as CSV. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from token_budget.models import Usage
from token_budget.text import NANO, RenderOptions, csv_line, format_tokens, printable, wrap
from token_budget.usage.history import ESTIMATES, By, UsageRow, has_drift
from token_budget.usage.tables import TableColumn, cost_text, short_cell, sparkline, table

Data = dict[str, str | int | float | None]


def render(rows: Sequence[UsageRow], by: Sequence[By], options: RenderOptions) -> list[str]:
    """A table with a bar for each row and totals, within the width. Days alone get a sparkline."""
    if not rows:
        return wrap("nothing was used in this time", options.width)
    total = _total(rows, len(by))
    most = max(row.usage.total_tokens for row in rows)
    shares = [row.usage.total_tokens / most if most > 0 else 0.0 for row in rows]
    lines = table(_columns([*rows, total], by, options), options, shares)
    if tuple(by) == ("day",):
        lines += ["", sparkline([row.usage.total_tokens for row in rows], options)]
        lines += wrap(f"{rows[0].group} to {rows[-1].group}, tallest {format_tokens(most)} tokens a day", options.width)
    return [*lines, "", *_explained(total, by, options)]


def _total(rows: Sequence[UsageRow], size: int) -> UsageRow:
    costs = [row.cost_nano_usd for row in rows if row.cost_nano_usd is not None]
    checked = [row.checked_nano_usd for row in rows if row.checked_nano_usd is not None]
    return UsageRow(
        ("total", *[""] * (size - 1)),
        sum((row.usage for row in rows), Usage()),
        sum(costs) if costs else None,
        sum(row.unpriced_tokens for row in rows),
        sum(row.instances for row in rows),
        sum(row.completed for row in rows),
        verified=sum(row.verified for row in rows),
        checked_nano_usd=sum(checked) if checked else None,
    )


def _columns(rows: Sequence[UsageRow], by: Sequence[By], options: RenderOptions) -> list[TableColumn]:
    first, *others = (
        TableColumn(name, [printable(row.groups[place]) for row in rows], left=True) for place, name in enumerate(by)
    )
    columns = [
        first,
        *(TableColumn(one.title, [short_cell(cell, options) for cell in one.cells], left=True) for one in others),
        TableColumn("tokens", [format_tokens(row.usage.total_tokens) for row in rows]),
        TableColumn("cost", [cost_text(row.cost_nano_usd, row.unpriced_tokens) for row in rows], 1),
        TableColumn("cached", [_share(row.cache_share) for row in rows], 3),
        TableColumn("done", [f"{row.completed}/{row.instances}" if row.instances else "-" for row in rows], 2),
        TableColumn("p50", [_tokens(row.p50) for row in rows], 5),
        TableColumn("p90", [_tokens(row.p90) for row in rows], 4),
        TableColumn("$/done", [cost_text(row.cost_per_completed) for row in rows], 6),
    ]
    if any(row.verified for row in rows):
        columns.append(TableColumn("verified", [str(row.verified) for row in rows], 8))
        columns.append(TableColumn("$/verified", [cost_text(row.cost_per_verified) for row in rows], 9))
    if has_drift(by):
        columns.append(TableColumn("drift", [_change(row.drift) for row in rows], 7))
    return columns


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _tokens(value: int | None) -> str:
    return "-" if value is None else format_tokens(value)


def _change(drift: float | None) -> str:
    return "-" if drift is None else f"{(drift - 1) * 100:+.0f} %"


def _explained(total: UsageRow, by: Sequence[By], options: RenderOptions) -> list[str]:
    texts = [ESTIMATES]
    if total.unpriced_tokens:
        texts.append(f"+ or ?: {format_tokens(total.unpriced_tokens)} tokens have no price and are not in the costs")
    texts.append("p50, p90: tokens of a finished instance; done: completed of all instances")
    if has_drift(by):
        texts.append("drift: median use of the latest third of the instances against the earliest third")
    return [line for text in texts for line in wrap(text, options.width)]


# -- data --


def as_json(rows: Iterable[UsageRow], by: Sequence[By] = ()) -> list[dict[str, object]]:
    """The rows as JSON data: counts and percentiles in tokens, costs in USD (null: unknown), shares as fractions.

    Rows that are grouped in one way have the key `group`, others one key for each way.
    """
    return [dict(_data(row, by)) for row in rows]


def _data(row: UsageRow, by: Sequence[By]) -> Data:
    keys: Sequence[str] = by if len(by) > 1 else ("group",)
    return {
        **dict(zip(keys, row.groups, strict=True)),
        **row.usage._asdict(),
        "total_tokens": row.usage.total_tokens,
        "cost_usd": None if row.cost_nano_usd is None else row.cost_nano_usd / NANO,
        "unpriced_tokens": row.unpriced_tokens,
        "instances": row.instances,
        "completed": row.completed,
        "cost_per_completed_usd": None if row.cost_per_completed is None else row.cost_per_completed / NANO,
        "p50_tokens": row.p50,
        "p90_tokens": row.p90,
        "cache_share": row.cache_share,
        "drift": row.drift,
        "verified": row.verified,
        "cost_per_verified_usd": None if row.cost_per_verified is None else row.cost_per_verified / NANO,
    }


def as_csv(rows: Iterable[UsageRow], by: Sequence[By] = ()) -> str:
    """The rows as CSV with the keys of the JSON as its header. Unknown values are empty, costs exact decimals in USD.

    A group that a spreadsheet would take for a formula has an apostrophe in front.
    """
    lines = [csv_line(_data(UsageRow(("",) * max(1, len(by))), by))]
    for row in rows:
        exact = {"cost_usd": _usd(row.cost_nano_usd), "cost_per_completed_usd": _usd(row.cost_per_completed)}
        exact["cost_per_verified_usd"] = _usd(row.cost_per_verified)
        cells = {**_data(row, by), **exact}.values()
        lines.append(csv_line(round(cell, 6) if isinstance(cell, float) else cell for cell in cells))
    return "".join(f"{line}\n" for line in lines)


def _usd(nano_usd: int | None) -> Decimal | None:
    return None if nano_usd is None else Decimal(nano_usd).scaleb(-9).normalize()
