"""Reads from the ledger what a plot draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from token_budget.ledger.records import FOREVER_MS, QUARTER_MS, UsageSum
from token_budget.ledger.store import LedgerStore
from token_budget.models import Unit
from token_budget.text import format_tokens, format_usd
from token_budget.usage.history import PLAIN_PROMPT, UNKNOWN, LocalTime, local_time
from token_budget.windows import Window, start_of

OTHER = ""  # no command's and no model's name
MOST_NAMES = 8  # the others are drawn as one
DAY_MS, HOUR_MS = 86_400_000, 3_600_000
LEAD_DAYS = {Window.DAILY: 2, Window.WEEKLY: 8, Window.MONTHLY: 32}  # a window began at most so long before
WindowLimit = tuple[str, str, int]  # label, window, limit in the plot's unit


@dataclass(frozen=True, slots=True)
class PlotRequest:
    """What to draw: a span, in tokens or money, by command or model, with limits beside it.

    `since_ms` 0 begins with the first use, an `until_ms` of FOREVER_MS ends with the last.
    """

    since_ms: int = 0
    until_ms: int = FOREVER_MS
    unit: Unit = Unit.TOKENS
    by: Literal["command", "model"] = "command"
    limits: Sequence[WindowLimit] = ()
    local: LocalTime = local_time

    def value(self, part: UsageSum) -> int:
        """What a part counts in the plot's unit: tokens, or nano-dollars where its cost is known."""
        return part.usage.total_tokens if self.unit is Unit.TOKENS else part.cost_nano_usd or 0

    def name(self, part: UsageSum) -> str:
        """The command or the model of a part."""
        return part.group or (PLAIN_PROMPT if self.by == "command" else UNKNOWN)

    def show(self, value: int) -> str:
        """A value in short."""
        return format_tokens(value) if self.unit is Unit.TOKENS else format_usd(value)


@dataclass(frozen=True, slots=True)
class PlotData:
    """What is drawn. `days` are the beginnings of the local days in milliseconds and, last, the end of the last one."""

    request: PlotRequest
    days: list[int]
    until_ms: int
    use: list[tuple[int, int]]  # by quarters of an hour
    by_day: list[Counter[str]]
    totals: dict[str, int]  # by the name as shown, most first, OTHER last
    cost_nano_usd: int | None
    unpriced_tokens: int

    def day(self, place: int) -> date:
        """The date of a day."""
        return self.request.local(self.days[place]).date()

    @property
    def span(self) -> str:
        """The days as text."""
        first, last = self.day(0), self.day(len(self.days) - 2)
        return f"{first}" if first == last else f"{first} to {last}"

    @property
    def years(self) -> str:
        """The years of the days, as text."""
        first, last = self.day(0).year, self.day(len(self.days) - 2).year
        return f"days of {first}" if first == last else f"days of {first} to {last}"


def read_plot_data(ledger: LedgerStore, request: PlotRequest) -> PlotData | None:
    """What was used in the span; None if nothing was."""
    return plot_data(read_sums(ledger, request), request)


def read_sums(ledger: LedgerStore, request: PlotRequest) -> list[UsageSum]:
    """What `plot_data` needs, which is the same in tokens and in money."""
    return ledger.sums(request.by, since_ms=request.since_ms, until_ms=request.until_ms, by_time=True)


def plot_data(sums: Sequence[UsageSum], request: PlotRequest) -> PlotData | None:
    """What is drawn of these sums; None if there are none."""
    if not sums:
        return None
    totals, use = Counter[str](), Counter[int]()
    for part in sums:
        totals[request.name(part)] += request.value(part)
        use[part.start_ms or 0] += request.value(part)
    first_ms = min(use) if request.since_ms <= 0 else request.since_ms
    end_ms = max(use) + QUARTER_MS if request.until_ms >= FOREVER_MS else max(request.until_ms, first_ms + 1)
    days = day_starts(first_ms, end_ms, request.local)
    shown = _most(totals)
    costs = [part.cost_nano_usd for part in sums if part.cost_nano_usd is not None]
    return PlotData(
        request,
        days,
        end_ms,
        sorted(use.items()),
        _by_day(sums, request, days, shown),
        shown,
        sum(costs) if costs else None,
        sum(part.unpriced_tokens for part in sums),
    )


def _most(totals: Counter[str]) -> dict[str, int]:
    """The names with the most use, and OTHER for the rest."""
    ordered = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    rest = {OTHER: sum(value for _, value in ordered[MOST_NAMES:])} if len(ordered) > MOST_NAMES else {}
    return {**dict(ordered[:MOST_NAMES]), **rest}


def _by_day(
    sums: Iterable[UsageSum], request: PlotRequest, days: Sequence[int], shown: dict[str, int]
) -> list[Counter[str]]:
    place_of = {request.local(ms).date(): place for place, ms in enumerate(days[:-1])}
    by_day = [Counter[str]() for _ in days[1:]]
    for part in sums:
        name = request.name(part)
        day = place_of[request.local(part.start_ms or 0).date()]
        by_day[day][name if name in shown else OTHER] += request.value(part)
    return by_day


def day_starts(since_ms: int, until_ms: int, local: LocalTime) -> list[int]:
    """The beginnings of the local days that a span touches, then the end of the last; by whole quarters of an hour."""
    ms = since_ms // QUARTER_MS * QUARTER_MS
    while local(ms - QUARTER_MS).date() == local(ms).date():
        ms -= QUARTER_MS
    found = [ms]
    while ms < until_ms:
        today = local(ms).date()
        ms += 22 * HOUR_MS  # no day is shorter
        while local(ms).date() == today:
            ms += QUARTER_MS
        found.append(ms)
    return found


def use_within(ledger: LedgerStore, data: PlotData, window: Window) -> tuple[list[tuple[int, int]], int]:
    """The use since the beginning of each window, at the moments when it changed, and the most that it came to.

    It begins with what the first window had before the span.
    """
    request, begin_ms = data.request, data.days[0]

    def began(ms: int) -> date:
        return start_of(window, request.local(ms)).date()

    changes: Counter[int] = Counter(dict.fromkeys(data.days[:-1], 0))  # a window that was quiet must fall to zero too
    lead_ms = begin_ms - LEAD_DAYS[window] * DAY_MS
    for part in ledger.sums(since_ms=lead_ms, until_ms=data.until_ms, by_time=True):
        changes[part.start_ms or 0] += request.value(part)
    before = sum(value for ms, value in changes.items() if ms < begin_ms and began(ms) == began(begin_ms))
    points, used, most, current = [(begin_ms, before)], before, 0, began(begin_ms)
    for ms, value in sorted(changes.items()):
        if ms < begin_ms:
            continue
        if began(ms) != current:
            current, used = began(ms), 0
        used += value
        most = max(most, used)
        points.append((ms, used))
    return points, most
