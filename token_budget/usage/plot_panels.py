"""Draws the panels of a plot: use over time, use against limits, use by day. Pure but for reading the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from token_budget.ledger.records import QUARTER_MS
from token_budget.ledger.store import LedgerStore
from token_budget.models import Unit
from token_budget.text import format_tokens, format_usd
from token_budget.usage import svg
from token_budget.usage.history import ESTIMATES
from token_budget.usage.plot_data import OTHER, PlotData, WindowLimit, use_within
from token_budget.windows import Window

# Okabe and Ito, "Color Universal Design" (2008): told apart by the colour-blind; grey is for all others
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
OTHER_COLOR, LINE_COLOR, LIMIT_COLOR = "#999999", "#0072B2", "#D55E00"
OTHER_NAME = "(other)"
WIDTH, LEFT, RIGHT, PLOT_TOP = 960, 84, 230, 84
TALL, SHORT, GAP = 210, 130, 78  # heights of panels and the room between them
PLOT_WIDTH, SIDE = WIDTH - LEFT - RIGHT, WIDTH - RIGHT + 18
MOST_LABELS, FULL_NAME_CELLS = 9, 200
PERIODS = {Window.DAILY: "day", Window.WEEKLY: "week", Window.MONTHLY: "month"}
NOUNS = {"command": "base command", "model": "model"}


def shown_name(name: str, cells: int = svg.NAME_CELLS) -> str:
    """A command's or model's name as the picture shows it."""
    return svg.short_name(name or OTHER_NAME, cells)


@dataclass(frozen=True, slots=True)
class Panel:
    """A place in the picture with its axes: `most` is the highest value to be drawn."""

    data: PlotData
    top: int
    tall: int
    most: int

    @property
    def bottom(self) -> int:
        """Where the time axis is."""
        return self.top + self.tall

    def x(self, ms: int) -> float:
        """Where a moment is."""
        begin, end = self.data.days[0], self.data.days[-1]
        return LEFT + PLOT_WIDTH * (min(max(ms, begin), end) - begin) / (end - begin)

    def height(self, value: int) -> float:
        """How high a value stands above the time axis."""
        return self.tall * max(0, value) / self._ceiling

    @property
    def _step(self) -> int:
        """The distance between grid lines: 1, 2 or 5 times a power of ten, for at most five of them."""
        step = 1
        while self.most > step * 5:
            step = step * 5 // 2 if str(step)[0] == "2" else step * 2
        return step

    @property
    def _ceiling(self) -> int:
        """The top of the axis: the grid line at or above the highest value."""
        return -(-self.most // self._step) * self._step

    def frame(self, head: str, unit: str) -> str:
        """The title, the axes with their labels, and the grid."""
        parts = [svg.text_at(LEFT, self.top - 16, head, "head")]
        for value in range(0, self._ceiling + 1, self._step):
            y = self.bottom - self.height(value)
            color = "#888" if value == 0 else "#e4e4e4"
            parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + PLOT_WIDTH}" y2="{y:.1f}" stroke="{color}"/>')
            parts.append(svg.text_at(LEFT - 8, y + 4, self._label(value), "end muted"))
        middle = self.top + self.tall / 2
        turned = f'transform="translate(18 {middle:.0f}) rotate(-90)" x="0" y="0"'
        parts.append(f'<text class="mid muted" {turned}>{svg.safe(unit)}</text>')
        for x, label in self._moments():
            line = f'x1="{x:.1f}" y1="{self.bottom}" x2="{x:.1f}" y2="{self.bottom + 5}"'
            parts.append(f'<line {line} stroke="#888"/>')
            parts.append(svg.text_at(x, self.bottom + 19, label, "mid muted"))
        return "".join(parts)

    def _label(self, value: int) -> str:
        text = self.data.request.show(value)
        return text if self.data.request.unit is Unit.USD else text.replace(".0", "")

    def _moments(self) -> Iterable[tuple[float, str]]:
        """Where the time axis has labels: hours where there are few days."""
        data, count = self.data, len(self.data.days) - 1
        if count <= 2:
            for ms in range(data.days[0], data.days[-1], QUARTER_MS):
                moment = data.request.local(ms)
                if moment.minute == 0 and moment.hour % (3 * count) == 0:
                    yield self.x(ms), f"{moment:%H:%M}" if moment.hour else f"{moment:%m-%d}"
            return
        step = -(-count // MOST_LABELS)
        for place in range(0, count, step):
            yield self.x(data.days[place]), f"{data.day(place):%m-%d}"

    def day_edges(self, place: int) -> tuple[float, float]:
        """The left side and the width of a day's bar."""
        left, right = self.x(self.data.days[place]), self.x(self.data.days[place + 1])
        gap = min(6.0, (right - left) * 0.12)
        return left + gap, right - left - 2 * gap

    def steps(self, points: Sequence[tuple[int, int]]) -> str:
        """A step line up to the end of the span, and the area below it."""
        first = self.x(points[0][0])
        path = f"M{first:.1f} {self.bottom - self.height(points[0][1]):.2f}"
        for (_, before), (ms, value) in pairwise(points):
            if value != before:
                path += f"H{self.x(ms):.1f}V{self.bottom - self.height(value):.2f}"
        path += f"H{self.x(self.data.until_ms):.1f}"
        line = f'fill="none" stroke="{LINE_COLOR}" stroke-width="2" stroke-linejoin="round"'
        return (
            f'<path d="{path}V{self.bottom}H{first:.1f}Z" fill="{LINE_COLOR}" fill-opacity=".13"/>'
            f'<path class="use" d="{path}" {line}/>'
        )


def unit_name(data: PlotData) -> str:
    """What the axes count."""
    return "tokens" if data.request.unit is Unit.TOKENS else "USD"


def amount(data: PlotData, value: int) -> str:
    """A value in full, with its unit."""
    return f"{value:,} tokens" if data.request.unit is Unit.TOKENS else format_usd(value)


def cumulative(data: PlotData, top: int) -> str:
    """The panel of all use since the beginning of the span."""
    sums = list(accumulate(value for _, value in data.use))
    points = [(data.days[0], 0), *((ms, value) for (ms, _), value in zip(data.use, sums, strict=True))]
    panel = Panel(data, top, TALL, max(1, *sums))
    side = [f"{format_tokens(sums[-1])} tokens"] if data.request.unit is Unit.TOKENS else []
    if data.cost_nano_usd is not None:
        side.append(f"{format_usd(data.cost_nano_usd)}{'+' if data.unpriced_tokens else ''} (estimate)")
    if data.request.unit is Unit.USD and data.unpriced_tokens:
        side.append(f"{format_tokens(data.unpriced_tokens)} tokens have no price")
    texts = "".join(svg.text_at(SIDE, top + 14 + 20 * place, text) for place, text in enumerate(side))
    return f'<g id="cumulative">{panel.frame("Cumulative use", unit_name(data))}{panel.steps(points)}{texts}</g>'


def against_limit(ledger: LedgerStore, data: PlotData, limit: WindowLimit, top: int) -> str:
    """The panel of the use within each day, week or month, with its limit as a line across.

    A day is a bar. A week or a month is a line that begins at zero again.
    """
    label, window, most_allowed = limit[0], Window(limit[1]), limit[2]
    points, most = use_within(ledger, data, window)
    panel = Panel(data, top, SHORT, max(most, most_allowed))
    y = panel.bottom - panel.height(most_allowed)
    show = data.request.show
    parts = [
        panel.frame(f"Use within each {PERIODS[window]}", unit_name(data)),
        _day_bars(panel) if window is Window.DAILY else panel.steps(points),
        f'<line class="budget" x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + PLOT_WIDTH}" y2="{y:.1f}" stroke="{LIMIT_COLOR}" '
        'stroke-width="2" stroke-dasharray="7 4"/>',
        svg.text_at(SIDE, top + 14, f"{svg.short_name(label)}: {show(most_allowed)}", "limit"),
        svg.text_at(SIDE, top + 34, f"most used: {show(most)} ({int(most * 100 / most_allowed)} %)"),
    ]
    return f'<g class="budget">{"".join(parts)}</g>'


def _day_bars(panel: Panel) -> str:
    parts, data = [], panel.data
    for place, day in enumerate(data.by_day):
        used = sum(day.values())
        if used > 0:
            left, width = panel.day_edges(place)
            tip = f"{data.day(place)}: {amount(data, used)}"
            parts.append(svg.bar(left, panel.bottom, (width, panel.height(used)), LINE_COLOR, tip))
    return "".join(parts)


def by_name(data: PlotData, top: int) -> str:
    """The panel of each day's use as a bar of its commands or models, with a key of the colours."""
    panel = Panel(data, top, TALL, max(1, *(sum(max(0, value) for value in day.values()) for day in data.by_day)))
    named = [name for name in data.totals if name != OTHER]
    colors = {**dict(zip(named, COLORS, strict=False)), OTHER: OTHER_COLOR}
    parts = [panel.frame(f"Use by day and {NOUNS[data.request.by]}", f"{unit_name(data)} a day")]
    for place, day in enumerate(data.by_day):
        left, width = panel.day_edges(place)
        bottom = float(panel.bottom)
        for name in data.totals:
            if day[name] > 0:
                tip = f"{data.day(place)}: {shown_name(name, FULL_NAME_CELLS)} {amount(data, day[name])}"
                parts.append(svg.bar(left, bottom, (width, panel.height(day[name])), colors[name], tip))
                bottom -= panel.height(day[name])
    for place, (name, value) in enumerate(data.totals.items()):
        y = top + 4 + 20 * place
        parts.append(f'<rect class="key" x="{SIDE}" y="{y}" width="12" height="12" rx="2" fill="{colors[name]}"/>')
        parts.append(svg.text_at(SIDE + 18, y + 10, shown_name(name)))
        parts.append(svg.text_at(WIDTH - 12, y + 10, data.request.show(value), "end muted"))
    parts.append(svg.text_at(LEFT, panel.bottom + 48, f"{data.years}, local time; {ESTIMATES}", "muted"))
    return f'<g id="{data.request.by}s">{"".join(parts)}</g>'
