"""Draws what was used over time, against limits, and by command or model, as one SVG or HTML text without scripts."""

from __future__ import annotations

from typing import Literal

from token_budget.ledger.store import LedgerStore
from token_budget.models import Unit
from token_budget.text import format_usd, printable
from token_budget.usage import svg
from token_budget.usage.plot_data import PlotData, PlotRequest, read_plot_data
from token_budget.usage.plot_panels import (
    FULL_NAME_CELLS,
    GAP,
    LEFT,
    NOUNS,
    PLOT_TOP,
    SHORT,
    TALL,
    WIDTH,
    against_limit,
    amount,
    by_name,
    cumulative,
    shown_name,
)
from token_budget.windows import Window

Form = Literal["svg", "html"]
TITLES = {Unit.TOKENS: "Token use", Unit.USD: "Cost"}


def plot(ledger: LedgerStore, request: PlotRequest, form: Form) -> str:
    """A self-contained picture of what was used.

    Raises ValueError for an unknown window or a limit that is not positive.
    """
    for label, window, limit in request.limits:
        if window not in set(Window) or limit <= 0:
            raise ValueError(f"budget {printable(label)}: expected daily, weekly or monthly and a limit above zero")
    data = read_plot_data(ledger, request)
    if data is None:
        title, picture = TITLES[request.unit], _empty(TITLES[request.unit])
        return picture if form == "svg" else svg.page(title, picture, "")
    title, picture = f"{TITLES[request.unit]}, {data.span}", _picture(ledger, data)
    return picture if form == "svg" else svg.page(title, picture, _figures(data))


def _picture(ledger: LedgerStore, data: PlotData) -> str:
    title = f"{TITLES[data.request.unit]}, {data.span}"
    panels, top = [cumulative(data, PLOT_TOP)], PLOT_TOP + TALL + GAP
    for limit in data.request.limits:
        panels.append(against_limit(ledger, data, limit, top))
        top += SHORT + GAP
    panels.append(by_name(data, top))
    height = max(top + TALL, top + 20 * len(data.totals)) + 58
    leading = ", ".join(f"{shown_name(name)} {data.request.show(value)}" for name, value in data.totals.items())
    summary = f"{amount(data, sum(data.totals.values()))} in all; by {data.request.by}: {leading}."
    return svg.picture(title, summary, (WIDTH, height), [svg.text_at(LEFT, 36, title, "title"), *panels])


def _empty(title: str) -> str:
    text = "Nothing was used in this time."
    return svg.picture(title, text, (WIDTH, 160), [svg.text_at(LEFT, 36, title, "title"), svg.text_at(LEFT, 84, text)])


def _figures(data: PlotData) -> str:
    """The picture's figures: a row for each day, most recent last, a column for each command or model."""

    def show(value: int) -> str:
        return f"{value:,}" if data.request.unit is Unit.TOKENS else format_usd(value)

    names = list(data.totals)
    heads = ["day", *(shown_name(name, FULL_NAME_CELLS) for name in names), "total"]
    rows = [
        (str(data.day(place)), [*(show(day[name]) for name in names), show(sum(day.values()))])
        for place, day in enumerate(data.by_day)
    ]
    total = [*map(show, data.totals.values()), show(sum(data.totals.values()))]
    unit = "Tokens" if data.request.unit is Unit.TOKENS else "USD"
    return svg.figures(f"{unit} by day and {NOUNS[data.request.by]}", heads, rows, total)
