"""A picture of what was used: over time, against budgets, by command. One SVG or HTML text without scripts. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from html import escape
from itertools import accumulate, pairwise
from typing import Literal

from token_budget.ledger.records import FOREVER_MS
from token_budget.ledger.schema import QUARTER_MS
from token_budget.ledger.store import LedgerStore
from token_budget.text import display_width, fit, format_tokens, format_usd, printable
from token_budget.usage.history import ESTIMATES, PLAIN_PROMPT
from token_budget.windows import Window, start_of

Form = Literal["svg", "html"]
Local = Callable[[int], datetime]
Budget = tuple[str, str, int]  # label, window, limit in tokens

# Okabe and Ito, "Color Universal Design" (2008): told apart by the colour-blind; grey is for all other commands
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
OTHER_COLOR, LINE_COLOR, LIMIT_COLOR = "#999999", "#0072B2", "#D55E00"
OTHER, OTHER_NAME = "", "(other)"  # neither is a command's
WIDTH, LEFT, RIGHT, PLOT_TOP = 960, 84, 230, 84
TALL, SHORT, GAP = 210, 130, 78  # heights of panels and the room between them
PLOT_WIDTH = WIDTH - LEFT - RIGHT
DAY_MS, HOUR_MS = 86_400_000, 3_600_000
LEAD_DAYS = {Window.DAILY: 2, Window.WEEKLY: 8, Window.MONTHLY: 32}  # a window began at most so long before
MOST_LABELS, NAME_CELLS, FULL_NAME_CELLS = 9, 20, 200
STYLE = (
    "text{font-family:system-ui,'Segoe UI',Helvetica,Arial,sans-serif;font-size:12px;fill:#333}"
    ".title{font-size:20px;font-weight:600;fill:#111}.head{font-size:14px;font-weight:600;fill:#111}"
    ".muted{fill:#666}.end{text-anchor:end}.mid{text-anchor:middle}.limit{fill:#A84300;font-weight:600}"
)
PAGE_STYLE = (
    "body{font-family:system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#222}"
    "svg{max-width:100%;height:auto}table{border-collapse:collapse;width:100%;font-size:.85rem}"
    "caption{text-align:left;font-weight:600;padding:.5rem 0}"
    "th,td{padding:.3rem .6rem;text-align:right;border-bottom:1px solid #ddd}"
    "th:first-child{text-align:left}thead th{overflow-wrap:anywhere}.wide{overflow-x:auto}"
)


@dataclass(frozen=True, slots=True)
class _Data:
    """What is drawn. `days` are the beginnings of the local days in milliseconds and, last, the end of the last one."""

    days: list[int]
    until_ms: int
    use: list[tuple[int, int]]  # by quarters of an hour: tokens
    by_day: list[Counter[str]]
    totals: Counter[str]  # by the command as shown, most first, OTHER last
    cost_nano_usd: int | None
    unpriced_tokens: int
    local: Local

    def x(self, ms: int) -> float:
        """Where a moment is in the picture."""
        begin, end = self.days[0], self.days[-1]
        return LEFT + PLOT_WIDTH * (min(max(ms, begin), end) - begin) / (end - begin)

    def day(self, place: int) -> date:
        """The date of a day."""
        return self.local(self.days[place]).date()

    @property
    def span(self) -> str:
        """The days as text."""
        first, last = self.day(0), self.day(len(self.days) - 2)
        return f"{first}" if first == last else f"{first} to {last}"


def plot(
    ledger: LedgerStore, since_ms: int, until_ms: int, local: Local, form: Form, budgets: Sequence[Budget] = ()
) -> str:
    """A self-contained picture of the use from a moment up to another, with each (label, window, limit in tokens).

    `since_ms` 0 begins with the first use, an `until_ms` of FOREVER_MS ends with the last. Raises ValueError for an
    unknown window or a limit that is not positive.
    """
    for label, window, limit in budgets:
        if window not in set(Window) or limit <= 0:
            raise ValueError(f"budget {printable(label)}: expected daily, weekly or monthly and a limit above zero")
    data = _read(ledger, since_ms, until_ms, local)
    if data is None:
        svg = _empty()
        return svg if form == "svg" else _page("Token use", svg, "")
    panels = [_cumulative(data, PLOT_TOP)]
    top = PLOT_TOP + TALL + GAP
    for budget in budgets:
        panels.append(_against(ledger, data, budget, top))
        top += SHORT + GAP
    panels.append(_stacked(data, top))
    height = max(top + TALL, top + 20 * len(data.totals)) + 58
    total, title = sum(data.totals.values()), f"Token use, {data.span}"
    leading = ", ".join(f"{_command(name)} {format_tokens(tokens)}" for name, tokens in data.totals.items())
    said = f"{total:,} tokens in all; by command: {leading}."
    svg = _svg(title, said, height, [_text(LEFT, 36, title, "title"), *panels])
    return svg if form == "svg" else _page(title, svg, _data_table(data))


def _read(ledger: LedgerStore, since_ms: int, until_ms: int, local: Local) -> _Data | None:
    sums = ledger.sums("command", since_ms=since_ms, until_ms=until_ms, by_time=True)
    if not sums:
        return None
    totals: Counter[str] = Counter()
    use: Counter[int] = Counter()
    for part in sums:
        totals[part.group or PLAIN_PROMPT] += part.usage.total_tokens
        use[part.start_ms or 0] += part.usage.total_tokens
    top = dict(sorted(totals.items(), key=lambda item: (-item[1], item[0]))[: len(COLORS)])
    first_ms = min(use) if since_ms <= 0 else since_ms
    end_ms = max(use) + QUARTER_MS if until_ms >= FOREVER_MS else max(until_ms, first_ms + 1)
    days = day_starts(first_ms, end_ms, local)
    place_of = {local(ms).date(): place for place, ms in enumerate(days[:-1])}
    by_day: list[Counter[str]] = [Counter() for _ in days[1:]]
    shown: Counter[str] = Counter(top)
    for part in sums:
        name, tokens = part.group or PLAIN_PROMPT, part.usage.total_tokens
        if name not in top:
            name = OTHER
            shown[OTHER] += tokens
        by_day[place_of[local(part.start_ms or 0).date()]][name] += tokens
    costs = [part.cost_nano_usd for part in sums if part.cost_nano_usd is not None]
    unpriced = sum(part.unpriced_tokens for part in sums)
    return _Data(days, end_ms, sorted(use.items()), by_day, shown, sum(costs) if costs else None, unpriced, local)


def day_starts(since_ms: int, until_ms: int, local: Local) -> list[int]:
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


# -- panels --


def _cumulative(data: _Data, top: int) -> str:
    sums = list(accumulate(tokens for _, tokens in data.use))
    points = [(data.days[0], 0), *((ms, value) for (ms, _), value in zip(data.use, sums, strict=True))]
    most = max(1, *sums)
    side = [f"{format_tokens(sums[-1])} tokens"]
    if data.cost_nano_usd is not None:
        side.append(f"{format_usd(data.cost_nano_usd)}{'+' if data.unpriced_tokens else ''} (estimate)")
    parts = [
        _frame(data, top, TALL, most, "Cumulative use", "tokens"),
        *_steps(data, points, top, TALL, _ceiling(most)),
    ]
    parts += [_text(WIDTH - RIGHT + 18, top + 14 + 20 * place, text) for place, text in enumerate(side)]
    return _group("cumulative", parts)


def _against(ledger: LedgerStore, data: _Data, budget: Budget, top: int) -> str:
    """The use within each window, which begins at zero again, and the limit as a line across."""
    label, window, limit = budget[0], Window(budget[1]), budget[2]
    local, begin_ms = data.local, data.days[0]

    def began(ms: int) -> date:
        return start_of(window, local(ms)).date()

    used = 0
    points: list[tuple[int, int]] = []
    current = began(begin_ms)
    # windows begin with a day: one that was quiet must fall to zero as well
    events: Counter[int] = Counter(dict.fromkeys(data.days[:-1], 0))
    lead_ms = begin_ms - LEAD_DAYS[window] * DAY_MS
    for part in ledger.sums(since_ms=lead_ms, until_ms=data.until_ms, by_time=True):
        events[part.start_ms or 0] += part.usage.total_tokens
    most = 0
    for ms, tokens in sorted(events.items()):
        if began(ms) != current:
            if ms < begin_ms:
                continue
            current, used = began(ms), 0
        used += tokens
        most = max(most, used) if ms >= begin_ms else most
        points.append((ms, used))
    before = [value for ms, value in points if ms < begin_ms]
    points = [(begin_ms, before[-1] if before else 0), *(point for point in points if point[0] >= begin_ms)]
    ceiling = _ceiling(max(most, limit))
    y = top + SHORT - SHORT * limit / ceiling
    name = _name(label)
    head = f"Use within each {({'daily': 'day', 'weekly': 'week', 'monthly': 'month'})[window]}"
    side = WIDTH - RIGHT + 18
    parts = [
        _frame(data, top, SHORT, max(most, limit), head, "tokens"),
        *_steps(data, points, top, SHORT, ceiling),
        f'<line class="budget" x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + PLOT_WIDTH}" y2="{y:.1f}" stroke="{LIMIT_COLOR}" '
        'stroke-width="2" stroke-dasharray="7 4"/>',
        _text(side, top + 14, f"{name}: {format_tokens(limit)}", "limit"),
        _text(side, top + 34, f"most used: {format_tokens(most)} ({int(most * 100 / limit)} %)"),
    ]
    return _group("budget", parts)


def _stacked(data: _Data, top: int) -> str:
    heights = [sum(max(0, tokens) for tokens in day.values()) for day in data.by_day]
    most = max(1, *heights)
    ceiling = _ceiling(most)
    parts = [_frame(data, top, TALL, most, "Use by day and base command", "tokens a day")]
    colors = _colors(data)
    for place, day in enumerate(data.by_day):
        left, right = data.x(data.days[place]), data.x(data.days[place + 1])
        gap = min(6.0, (right - left) * 0.12)
        y = float(top + TALL)
        for name in data.totals:
            if (tokens := day[name]) <= 0:
                continue
            tall = TALL * tokens / ceiling
            y -= tall
            tip = _xml(f"{data.day(place)}: {_command(name, FULL_NAME_CELLS)} {tokens:,} tokens")
            parts.append(
                f'<rect class="bar" x="{left + gap:.2f}" y="{y:.3f}" width="{right - left - 2 * gap:.2f}" '
                f'height="{tall:.3f}" fill="{colors[name]}" stroke="#fff" stroke-width=".6"><title>{tip}</title></rect>'
            )
    for place, (name, tokens) in enumerate(data.totals.items()):
        x, y = WIDTH - RIGHT + 18, top + 4 + 20 * place
        parts.append(f'<rect class="key" x="{x}" y="{y}" width="12" height="12" rx="2" fill="{colors[name]}"/>')
        parts.append(_text(x + 18, y + 10, _command(name)))
        parts.append(_text(WIDTH - 12, y + 10, format_tokens(tokens), "end muted"))
    parts.append(_text(LEFT, top + TALL + 48, f"{_year(data)}, local time; {ESTIMATES}", "muted"))
    return _group("commands", parts)


def _colors(data: _Data) -> dict[str, str]:
    named = [name for name in data.totals if name != OTHER]
    return {**dict(zip(named, COLORS, strict=False)), OTHER: OTHER_COLOR}


def _year(data: _Data) -> str:
    first, last = data.day(0).year, data.day(len(data.days) - 2).year
    return f"days of {first}" if first == last else f"days of {first} to {last}"


# -- parts of panels --


def _frame(data: _Data, top: int, tall: int, most: int, head: str, unit: str) -> str:
    """A panel's title, its axes with their labels, and its grid."""
    bottom, ceiling = top + tall, _ceiling(most)
    step = _tick(most)
    parts = [_text(LEFT, top - 16, head, "head")]
    for value in range(0, ceiling + 1, step):
        y = bottom - tall * value / ceiling
        color = "#888" if value == 0 else "#e4e4e4"
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + PLOT_WIDTH}" y2="{y:.1f}" stroke="{color}"/>')
        parts.append(_text(LEFT - 8, y + 4, format_tokens(value).replace(".0", ""), "end muted"))
    middle = top + tall / 2
    parts.append(
        f'<text class="mid muted" transform="translate(18 {middle:.0f}) rotate(-90)" x="0" y="0">{_xml(unit)}</text>'
    )
    for x, label in _moments(data):
        parts.append(f'<line x1="{x:.1f}" y1="{bottom}" x2="{x:.1f}" y2="{bottom + 5}" stroke="#888"/>')
        parts.append(_text(x, bottom + 19, label, "mid muted"))
    return "".join(parts)


def _moments(data: _Data) -> Iterable[tuple[float, str]]:
    """Where the time axis has labels: hours where there are few days."""
    count = len(data.days) - 1
    if count <= 2:
        begin, end = data.days[0], data.days[-1]
        for ms in range(begin, end, QUARTER_MS):
            moment = data.local(ms)
            if moment.minute == 0 and moment.hour % (3 * count) == 0:
                yield data.x(ms), f"{moment:%H:%M}" if moment.hour else f"{moment:%m-%d}"
        return
    step = -(-count // MOST_LABELS)
    for place in range(0, count, step):
        yield data.x(data.days[place]), f"{data.day(place):%m-%d}"


def _steps(data: _Data, points: Sequence[tuple[int, int]], top: int, tall: int, ceiling: int) -> list[str]:
    """A step line up to the end of the span and the area below it."""
    bottom = top + tall

    def y(value: int) -> float:
        return bottom - tall * max(0, value) / ceiling

    path = f"M{data.x(points[0][0]):.1f} {y(points[0][1]):.2f}"
    for (_, before), (ms, value) in pairwise(points):
        if value != before:
            path += f"H{data.x(ms):.1f}V{y(value):.2f}"
    end = data.x(data.until_ms)
    path += f"H{end:.1f}"
    area = f"{path}V{bottom}H{data.x(points[0][0]):.1f}Z"
    return [
        f'<path d="{area}" fill="{LINE_COLOR}" fill-opacity=".13"/>',
        f'<path class="use" d="{path}" fill="none" stroke="{LINE_COLOR}" stroke-width="2" stroke-linejoin="round"/>',
    ]


def _tick(most: int) -> int:
    """The distance between grid lines: 1, 2 or 5 times a power of ten, for at most five of them."""
    step = 1
    while most > step * 5:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return step


def _ceiling(most: int) -> int:
    """The top of an axis: the grid line at or above the highest value."""
    step = _tick(most)
    return -(-most // step) * step


# -- text --


def _name(name: str, cells: int = NAME_CELLS) -> str:
    """A name from a config, harmless and not too long."""
    name = printable(name)
    return name if display_width(name) <= cells else fit(name, cells).rstrip()


def _command(name: str, cells: int = NAME_CELLS) -> str:
    return _name(name or OTHER_NAME, cells)


def _xml(text: str) -> str:
    return escape(printable(text))


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"' + (f' class="{kind}"' if kind else "") + f">{_xml(text)}</text>"


def _group(name: str, parts: Iterable[str]) -> str:
    return f'<g id="{name}">{"".join(parts)}</g>' if name != "budget" else f'<g class="budget">{"".join(parts)}</g>'


def _svg(title: str, said: str, height: int, parts: Iterable[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-labelledby="title desc"><title id="title">{_xml(title)}</title>'
        f'<desc id="desc">{_xml(said)}</desc><style>{STYLE}</style>'
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _empty() -> str:
    said = "Nothing was used in this time."
    return _svg("Token use", said, 160, [_text(LEFT, 36, "Token use", "title"), _text(LEFT, 84, said)])


def _page(title: str, svg: str, table: str) -> str:
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/><title>{_xml(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<style>{PAGE_STYLE}</style></head><body>{svg}{table}</body></html>\n"
    )


def _data_table(data: _Data) -> str:
    """The picture's figures: a row for each day, most recent last, a column for each command."""
    names = list(data.totals)
    heads = ["day", *(_command(name, FULL_NAME_CELLS) for name in names), "total"]
    head = "".join(f'<th scope="col">{_xml(head)}</th>' for head in heads)
    rows = [(str(data.day(place)), day) for place, day in enumerate(data.by_day)]
    body = "".join(_cells(title, [*(day[name] for name in names), sum(day.values())]) for title, day in rows)
    foot = _cells("total", [*data.totals.values(), sum(data.totals.values())])
    return (
        f'<div class="wide"><table><caption>Tokens by day and base command</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody><tfoot>{foot}</tfoot></table></div>"
    )


def _cells(title: str, counts: Iterable[int]) -> str:
    return f'<tr><th scope="row">{_xml(title)}</th>{"".join(f"<td>{count:,}</td>" for count in counts)}</tr>'
