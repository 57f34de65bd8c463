"""What was used, from the ledger: tables by day, command, model or run, one run in detail, JSON and CSV. Pure."""

from __future__ import annotations

import difflib
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Literal

from token_budget.ledger.records import (
    FOREVER_MS,
    AttemptRecord,
    InstanceRecord,
    NoteRecord,
    RunRecord,
    UsageSum,
)
from token_budget.ledger.run_budgets import read_budgets
from token_budget.ledger.store import LedgerStore
from token_budget.models import Budget, Scope, Unit, Usage, Weights
from token_budget.text import (
    ELLIPSIS,
    NANO,
    RenderOptions,
    csv_line,
    display_width,
    fit,
    format_tokens,
    format_usd,
    printable,
    wrap,
)
from token_budget.windows import Window, end_of, start_of, to_ms

By = Literal["day", "command", "model", "run"]
PLAIN_PROMPT = "(prompt)"  # no base command
UNKNOWN_MODEL = "(unknown)"
HOUR_MS = 3_600_000
LEAST_FOR_DRIFT = 6
MOST_EMPTY_DAYS = 366  # in a row
ESTIMATES = "costs are estimates: subscriptions do not pay per token"
CYAN, BOLD, RESET = "\033[36m", "\033[1m", "\033[0m"
LEAST_BAR, MOST_BAR, LEAST_NAME, MOST_NAME = 4, 24, 8, 40
SPARKS, ASCII_SPARKS = "▁▂▃▄▅▆▇█", "_.:-=+*#"
NEAR_AMONG = 5_000  # latest runs


def local_time(ms: int) -> datetime:
    """The moment in the machine's own time."""
    return datetime.fromtimestamp(ms / 1000)


@dataclass(frozen=True, slots=True)
class Row:
    """What one group has used. `p50` and `p90` are tokens for a finished instance, all its attempts together.

    `unpriced_tokens` are not in `cost_nano_usd`. `drift` is the median use of a command's latest third of finished
    instances over that of its earliest third: 1.35 is 35 % more.
    """

    group: str
    usage: Usage = field(default_factory=Usage)
    cost_nano_usd: int | None = None
    unpriced_tokens: int = 0
    instances: int = 0
    completed: int = 0
    p50: int | None = None
    p90: int | None = None
    drift: float | None = None

    @property
    def cache_share(self) -> float | None:
        """Cache reads as a share of all input; None without input."""
        usage = self.usage
        read = usage.cache_read_input_tokens
        whole = usage.input_tokens + usage.cache_creation_input_tokens + read
        return read / whole if whole > 0 else None

    @property
    def cost_per_completed(self) -> int | None:
        """Nano-dollars that one completed instance has cost, those that failed beside it included."""
        return None if self.cost_nano_usd is None or not self.completed else round(self.cost_nano_usd / self.completed)


# -- from the ledger to rows --


def history(
    ledger: LedgerStore,
    by: By,
    since_ms: int = 0,
    until_ms: int = FOREVER_MS,
    local: Callable[[int], datetime] = local_time,
) -> list[Row]:
    """What was used from a moment up to another: days and runs by time, commands and models by use, most first.

    Days without use have rows too, from the first day of the span (of use, where no beginning is given) to its last,
    but none of more than MOST_EMPTY_DAYS such days in a row has. An instance counts where its last attempt ended.
    """
    sums = ledger.sums(*(() if by == "day" else (by,)), since_ms=since_ms, until_ms=until_ms, by_time=by == "day")
    used: dict[str, list[UsageSum]] = defaultdict(list)
    for part in sums:
        used[_group_of_sum(part, by, local)].append(part)
    instances: dict[str, list[InstanceRecord]] = defaultdict(list)
    for instance in ledger.instances(since_ms=since_ms, until_ms=until_ms):
        instances[_group_of_instance(instance, by, local)].append(instance)
    rows = {group: _row(group, used[group], instances[group], by) for group in {*used, *instances}}
    if by == "day":
        return [rows.get(day) or Row(day) for day in _days(rows, since_ms, until_ms, local)]
    if by == "run":
        starts = {run.run: run.started_ms for run in ledger.runs()}
        return sorted(rows.values(), key=lambda row: (starts.get(row.group, 0), row.group))
    return sorted(rows.values(), key=lambda row: (-row.usage.total_tokens, row.group))


def _group_of_sum(part: UsageSum, by: By, local: Callable[[int], datetime]) -> str:
    if by == "day":
        return local(part.start_ms or 0).date().isoformat()
    return part.group or (PLAIN_PROMPT if by == "command" else UNKNOWN_MODEL)


def _group_of_instance(instance: InstanceRecord, by: By, local: Callable[[int], datetime]) -> str:
    if by == "day":
        return local(instance.at_ms).date().isoformat()
    if by == "run":
        return instance.run
    return (instance.base_command or PLAIN_PROMPT) if by == "command" else (instance.model or UNKNOWN_MODEL)


def _row(group: str, sums: Iterable[UsageSum], instances: Sequence[InstanceRecord], by: By) -> Row:
    counts, cost_nano_usd, unpriced = [0, 0, 0, 0], None, 0
    for part in sums:
        counts = [a + b for a, b in zip(counts, part.usage.counts, strict=True)]
        if part.cost_nano_usd is not None:
            cost_nano_usd = part.cost_nano_usd + (cost_nano_usd or 0)
        unpriced += part.unpriced_tokens
    tokens = [instance.tokens for instance in instances if instance.outcome is not None and instance.tokens > 0]
    return Row(
        group,
        Usage(*counts),
        cost_nano_usd,
        unpriced,
        len(instances),
        sum(instance.outcome == "completed" for instance in instances),
        percentile(tokens, 50),
        percentile(tokens, 90),
        _drift(tokens) if by == "command" else None,
    )


def percentile(values: Iterable[int], percent: int) -> int | None:
    """The least of the values that at least `percent` of a hundred are not above; None without values."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] if ordered else None


def _drift(tokens: Sequence[int]) -> float | None:
    if len(tokens) < LEAST_FOR_DRIFT:
        return None
    third = len(tokens) // 3
    return statistics.median(tokens[-third:]) / statistics.median(tokens[:third])


def _days(found: Iterable[str], since_ms: int, until_ms: int, local: Callable[[int], datetime]) -> list[str]:
    days = {date.fromisoformat(day) for day in found}
    if not days:
        return []
    known = {*days}
    if since_ms > 0:
        known.add(local(since_ms).date())
    if until_ms < FOREVER_MS:
        known.add(local(until_ms - 1).date())
    for before, after in pairwise(sorted(known)):
        if (after - before).days <= MOST_EMPTY_DAYS:
            days |= {before + timedelta(days=number) for number in range((after - before).days + 1)}
    return [day.isoformat() for day in sorted(days)]


def since(text: str, now: datetime, option: str = "--since") -> int:
    """The moment, in ms, that `7d`, `24h`, `4w`, `2026-11-01`, `today` or `month` (its first) means in the zone of now.

    Spans are exact: `7d` is this time of day a week ago. Raises ValueError with a line for the user, who gave `option`.
    """
    text = text.strip()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    try:
        if text in ("today", "month"):
            return to_ms(midnight.replace(day=1) if text == "month" else midnight)
        if span := re.fullmatch(r"([0-9]{1,6})([hdw])", text):
            number, unit = int(span[1]), span[2]
            if unit == "h":  # in elapsed time, whatever the clocks did
                return to_ms(now) - number * HOUR_MS
            return to_ms(now - timedelta(days=number * (7 if unit == "w" else 1)))
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            day = date.fromisoformat(text)
            begin = midnight.replace(year=day.year, month=day.month, day=day.day)
            if begin <= now:
                return to_ms(begin)
    except (ValueError, OverflowError, OSError):
        pass
    expected = "a past moment such as 24h, 7d, 4w, today, month or 2026-11-01"
    raise ValueError(f"{option}: expected {expected}, got '{printable(text)}'")


# -- rows as text --


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of a table; those with the highest `drop` go first where there is no room, those with 0 never."""

    title: str
    cells: Sequence[str]
    drop: int = 0
    left: bool = False

    @property
    def width(self) -> int:
        return max(display_width(text) for text in (self.title, *self.cells))


def _table(columns: Sequence[_Column], options: RenderOptions, shares: Sequence[float] | None = None) -> list[str]:
    """A title line and a line for each row within the width; the first column gives way, bars take the rest."""
    name, *others = columns
    bar = 2 + LEAST_BAR if shares else 0
    while others and min(LEAST_NAME, name.width) + bar + sum(2 + column.width for column in others) > options.width:
        worst = max(others, key=lambda column: column.drop)
        if not worst.drop:
            break
        others.remove(worst)
    room = options.width - sum(2 + column.width for column in others)
    name_width = max(1, min(name.width, MOST_NAME, room - bar))
    bar_width = min(MOST_BAR, room - name_width - 2) if shares else 0
    lines = []
    for place, texts in enumerate(zip(*((column.title, *column.cells) for column in (name, *others)), strict=True)):
        parts = [_fit(texts[0], name_width, options)]
        for text, column in zip(texts[1:], others, strict=True):
            spaces = " " * (column.width - display_width(text))
            parts.append(text + spaces if column.left else spaces + text)
        line = _cut("  ".join(parts), options)
        if shares and 0 < place <= len(shares) and shares[place - 1] > 0 and bar_width >= LEAST_BAR:
            drawn = ("#" if options.ascii_only else "█") * max(1, round(shares[place - 1] * bar_width))
            line += "  " + _colored(drawn, CYAN, options)
        lines.append(line.rstrip() if place else _colored(line.rstrip(), BOLD, options))
    return lines


def _fit(text: str, width: int, options: RenderOptions) -> str:
    return fit(text, width, ellipsis="..." if options.ascii_only else ELLIPSIS)


def _cut(text: str, options: RenderOptions) -> str:
    return text if display_width(text) <= options.width else _fit(text, options.width, options)


def _colored(text: str, color: str, options: RenderOptions) -> str:
    return f"{color}{text}{RESET}" if options.color and text else text


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _tokens(value: int | None) -> str:
    return "-" if value is None else format_tokens(value)


def _cost(nano: int | None, unpriced: int = 0) -> str:
    """An estimate; with `+` where some of the use has no price, so that it is more."""
    if nano is None:
        return "?" if unpriced else "-"
    return format_usd(nano) + ("+" if unpriced else "")


def _change(drift: float | None) -> str:
    return "-" if drift is None else f"{(drift - 1) * 100:+.0f} %"


def _total(rows: Sequence[Row]) -> Row:
    costs = [row.cost_nano_usd for row in rows if row.cost_nano_usd is not None]
    return Row(
        "total",
        sum((row.usage for row in rows), Usage()),
        sum(costs) if costs else None,
        sum(row.unpriced_tokens for row in rows),
        sum(row.instances for row in rows),
        sum(row.completed for row in rows),
    )


def render(rows: Sequence[Row], by: By, options: RenderOptions) -> list[str]:
    """A table with a bar for each row and totals, for days a sparkline, within the width."""
    if not rows:
        return wrap("nothing was used in this time", options.width)
    every = (*rows, _total(rows))
    columns = [
        _Column(by, [printable(row.group) for row in every], left=True),
        _Column("tokens", [format_tokens(row.usage.total_tokens) for row in every]),
        _Column("cost", [_cost(row.cost_nano_usd, row.unpriced_tokens) for row in every], 1),
        _Column("cached", [_share(row.cache_share) for row in every], 3),
        _Column("done", [f"{row.completed}/{row.instances}" if row.instances else "-" for row in every], 2),
        _Column("p50", [_tokens(row.p50) for row in every], 5),
        _Column("p90", [_tokens(row.p90) for row in every], 4),
        _Column("$/done", [_cost(row.cost_per_completed) for row in every], 6),
    ]
    if by == "command":
        columns.append(_Column("drift", [_change(row.drift) for row in every], 7))
    most = max(row.usage.total_tokens for row in rows)
    shares = [row.usage.total_tokens / most if most > 0 else 0.0 for row in rows]
    lines = _table(columns, options, shares)
    if by == "day":
        lines += ["", sparkline([row.usage.total_tokens for row in rows], options)]
        lines += wrap(f"{rows[0].group} to {rows[-1].group}, tallest {format_tokens(most)} tokens a day", options.width)
    return [*lines, "", *_explained(every[-1], by, options)]


def _explained(total: Row, by: By, options: RenderOptions) -> list[str]:
    texts = [ESTIMATES]
    if total.unpriced_tokens:
        texts.append(f"+ or ?: {format_tokens(total.unpriced_tokens)} tokens have no price and are not in the costs")
    texts.append("p50, p90: tokens of a finished instance; done: completed of all instances")
    if by == "command":
        texts.append("drift: median use of the latest third of the instances against the earliest third")
    return [line for text in texts for line in wrap(text, options.width)]


def sparkline(values: Sequence[int], options: RenderOptions) -> str:
    """The values as one line of columns, at most the width; neighbours are averaged where there are more."""
    size = max(1, -(-len(values) // max(1, options.width)))
    means = [statistics.fmean(values[start : start + size]) for start in range(0, len(values), size)]
    signs = ASCII_SPARKS if options.ascii_only else SPARKS
    most = max(means, default=0)
    # the lowest sign is for nothing at all
    places = (max(1, round(mean / most * (len(signs) - 1))) if mean > 0 else 0 for mean in means)
    return _colored("".join(signs[place] for place in places), CYAN, options)


# -- rows as data --


def as_json(rows: Iterable[Row]) -> list[dict[str, object]]:
    """The rows as JSON data: counts and percentiles in tokens, costs in USD (null: unknown), shares as fractions."""
    return [dict(_data(row)) for row in rows]


def _data(row: Row) -> dict[str, str | int | float | None]:
    return {
        "group": row.group,
        **asdict(row.usage),
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
    }


def as_csv(rows: Iterable[Row]) -> str:
    """The rows as CSV with the keys of the JSON as header; unknown values are empty, costs exact decimals in USD.

    A group that a spreadsheet would take for a formula has an apostrophe in front.
    """
    lines = [csv_line(_data(Row("")))]
    for row in rows:
        exact = {"cost_usd": _usd(row.cost_nano_usd), "cost_per_completed_usd": _usd(row.cost_per_completed)}
        cells = {**_data(row), **exact}.values()
        lines.append(csv_line(round(cell, 6) if isinstance(cell, float) else cell for cell in cells))
    return "".join(f"{line}\n" for line in lines)


def _usd(nano: int | None) -> Decimal | None:
    return None if nano is None else Decimal(nano).scaleb(-9).normalize()


# -- one run --


def run_detail(
    ledger: LedgerStore, run_id: str, options: RenderOptions, local: Callable[[int], datetime] = local_time
) -> list[str]:
    """A run in detail: its head, budgets, attempts, totals and notes; `last` is the run that started last.

    Raises ValueError with a line for the user where there is no such run.
    """
    run = find_run(ledger, run_id)
    attempts, notes = ledger.attempts(run=run.run), ledger.notes(run=run.run)
    lines = _head(run, options, local)
    budgets = _budgets(ledger, run, attempts, local)
    if budgets:
        lines += ["", *_budget_lines(budgets, options)]
    nothing = wrap("no attempt at an instance yet", options.width)
    lines += ["", *(_attempt_table(attempts, run, options) if attempts else nothing)]
    lines += ["", *wrap(ESTIMATES, options.width)]
    if any(not attempt.exact for attempt in attempts):
        lines += wrap(f"{_at_least(options)}: a lower bound: the attempt goes on, or was cut off", options.width)
    if notes:
        lines += ["", _colored(_cut("notes", options), BOLD, options)]
        lines += [line for note in notes for line in _note_lines(note, options, local)]
    return lines


def find_run(ledger: LedgerStore, run_id: str, option: str = "RUN_ID") -> RunRecord:
    """A run by its id; `last` is the one that started last. Raises ValueError with a line for the user of `option`."""
    if run_id != "last":
        found = ledger.runs(run=run_id)
        if found:
            return found[0]
    runs = ledger.runs()
    if not runs:
        raise ValueError(f"{option}: the ledger has no run yet")
    if run_id == "last":
        return runs[-1]
    ids = [run.run for run in reversed(runs)]
    near = difflib.get_close_matches(run_id, ids[:NEAR_AMONG], 3, 0.5)
    said = f"the nearest: {', '.join(map(printable, near))}" if near else f"the latest: {printable(ids[0])}"
    raise ValueError(f"{option}: expected a run of the ledger or last, got '{printable(run_id)}'; {said}")


def find_subject(ledger: LedgerStore, asked: str, option: str = "COMMAND") -> tuple[str | None, str]:
    """What a text asks a forecast for: a base command of the ledger, or an instance with a plain prompt.

    A base command is the text's first word, with or without its slash. The text may also be the name of an instance;
    the base command is then None. Raises ValueError with a line for the user of `option`.
    """
    word = next(iter(asked.split()), "")
    for name in (word, f"/{word}"):
        if ledger.attempts(base_command=name, latest=1):
            return name, ""
    if any(attempt.base_command is None for attempt in ledger.attempts(instance=asked.strip(), imported=False)):
        return None, asked.strip()
    known = sorted({part.group for part in ledger.sums("command") if part.group})
    near = difflib.get_close_matches(f"/{word.removeprefix('/')}", known, 3, 0.5)
    names = ", ".join(map(printable, near or known[:3])) or "none"
    said = f"the nearest: {names}" if near else f"known: {names}{', …' if len(known) > 3 else ''}"
    raise ValueError(f"{option}: expected a command of the ledger, got '{printable(asked)}'; {said}")


def _head(run: RunRecord, options: RenderOptions, local: Callable[[int], datetime]) -> list[str]:
    took = "not ended" if run.ended_ms is None else duration(run.ended_ms - run.started_ms)
    ended = "-" if run.exit_code is None else str(run.exit_code)
    facts = {
        "run": run.run,
        "started": f"{local(run.started_ms):%Y-%m-%d %H:%M:%S}",
        "duration": took,
        "machine": run.machine,
        "mode": run.mode,
        "exit code": ended,
    }
    return [_cut(f"{name:<9}  {printable(value)}", options) for name, value in facts.items()]


def duration(span_ms: int) -> str:
    """A span as text: `4.2 s`, `3 min 05 s`, `2 h 07 min`."""
    seconds = max(0, span_ms) // 1000
    if seconds < 60:
        return f"{max(0, span_ms) // 100 / 10:.1f} s"
    minutes, hours = seconds // 60, seconds // 3600
    return f"{minutes} min {seconds % 60:02d} s" if minutes < 60 else f"{hours} h {minutes % 60:02d} min"


def _budgets(
    ledger: LedgerStore, run: RunRecord, attempts: Sequence[AttemptRecord], local: Callable[[int], datetime]
) -> list[Budget]:
    """The run's budgets with what it used of them; of a window's, what all runs used in it up to the run's end."""
    recorded = read_budgets(run.budgets, {attempt.instance for attempt in attempts})
    return [_with_use(ledger, run, attempts, local, budget, recorded.weights) for budget in recorded.budgets]


def _with_use(
    ledger: LedgerStore,
    run: RunRecord,
    attempts: Sequence[AttemptRecord],
    local: Callable[[int], datetime],
    budget: Budget,
    weights: Weights,
) -> Budget:
    if str(budget.scope) in set(Window):
        begin_ms, end_ms = (to_ms(edge(Window(budget.scope), local(run.started_ms))) for edge in (start_of, end_of))
        until_ms = end_ms if run.ended_ms is None else min(end_ms, run.ended_ms + 1)
        parts = [(part.usage, part.cost_nano_usd) for part in ledger.sums(since_ms=begin_ms, until_ms=until_ms)]
    else:
        parts = [(one.usage, one.cost_nano_usd) for one in attempts if _draws(one, budget)]
    if budget.unit is Unit.USD:
        used = sum(cost or 0 for _, cost in parts)
    else:
        used = weights.draw(sum((usage for usage, _ in parts), Usage()))
    return Budget(budget.limit, scope=budget.scope, key=budget.key, unit=budget.unit, used=used)


def weights_of(run: RunRecord) -> Weights:
    """What a token of each kind drew from the run's budgets."""
    return read_budgets(run.budgets).weights


def _draws(attempt: AttemptRecord, budget: Budget) -> bool:
    keys = {Scope.OVERALL: "", Scope.COMMAND: attempt.base_command, Scope.INSTANCE: attempt.instance}
    return budget.scope in keys and keys[budget.scope] == budget.key


def _budget_lines(budgets: Sequence[Budget], options: RenderOptions) -> list[str]:
    said = [format_usd if budget.unit is Unit.USD else format_tokens for budget in budgets]
    columns = (
        _Column("budget", [printable(budget.label) for budget in budgets], left=True),
        _Column("used", [f"{budget.used / budget.limit:.0%}" for budget in budgets]),
        _Column("of", [f"{say(one.used)}/{say(one.limit)}" for say, one in zip(said, budgets, strict=True)], 1),
    )
    return _table(columns, options, [min(1.0, max(0.0, budget.used / budget.limit)) for budget in budgets])


def _at_least(options: RenderOptions) -> str:
    return ">=" if options.ascii_only else "≥"


def _outcome(attempt: AttemptRecord, run: RunRecord) -> str:
    """What became of an attempt; one that began after its run's end is of the run resumed."""
    has_ended = attempt.ended_ms is not None or (run.ended_ms is not None and run.ended_ms >= attempt.started_ms)
    return attempt.outcome or ("interrupted" if has_ended else "running")


def _attempt_table(attempts: Sequence[AttemptRecord], run: RunRecord, options: RenderOptions) -> list[str]:
    costs = [one.cost_nano_usd for one in attempts if one.cost_nano_usd is not None]
    usages = [one.usage for one in attempts]
    usages.append(sum(usages, Usage()))
    bound = ["" if one.exact else _at_least(options) for one in attempts]
    bound.append(_at_least(options) if any(bound) else "")
    unpriced = [one.usage.total_tokens if one.cost_nano_usd is None else 0 for one in attempts]
    counts = [[format_tokens(count) for count in usage.counts] for usage in usages]
    took = ["-" if one.ended_ms is None else duration(one.ended_ms - one.started_ms) for one in attempts]

    def cells(texts: Iterable[str | None], width: int = 24) -> list[str]:
        return [*(_fit(text or "-", width, options).rstrip() for text in texts), ""]

    totals = [start + format_tokens(usage.total_tokens) for start, usage in zip(bound, usages, strict=True)]
    spent = [*map(_cost, (one.cost_nano_usd for one in attempts), unpriced)]
    columns = (
        _Column("instance", [*(printable(one.instance) for one in attempts), "total"], left=True),
        _Column("#", [*(str(one.attempt) for one in attempts), ""], 2),
        _Column("command", cells(one.command for one in attempts), 6, left=True),
        _Column("model", cells(one.model for one in attempts), 7, left=True),
        _Column("outcome", cells(_outcome(one, run) for one in attempts), 1, left=True),
        _Column("took", [*took, ""], 4),
        _Column("input", [count[0] for count in counts], 8),
        _Column("output", [count[1] for count in counts], 9),
        _Column("cache write", [count[2] for count in counts], 10),
        _Column("cache read", [count[3] for count in counts], 11),
        _Column("tokens", totals),
        _Column("cost", [*spent, _cost(sum(costs) if costs else None, sum(unpriced))], 3),
    )
    return _table(columns, options)


def _note_lines(note: NoteRecord, options: RenderOptions, local: Callable[[int], datetime]) -> list[str]:
    where = f" {note.instance}" if note.instance else ""
    return wrap(f"{local(note.at_ms):%H:%M:%S} {note.kind}{where}: {note.text}", options.width, "  ")
