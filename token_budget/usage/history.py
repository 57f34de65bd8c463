"""Reads the ledger into rows: what was used by day, command, model, run, instance or workspace."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Literal

from token_budget.ledger.records import FOREVER_MS, InstanceRecord, UsageSum
from token_budget.ledger.store import GroupBy, LedgerStore
from token_budget.models import Usage
from token_budget.named_tuples import NamedTuple

By = Literal["day"] | GroupBy
BYS: tuple[By, ...] = ("day", "command", "model", "run", "instance", "workspace")
LocalTime = Callable[[int], datetime]
PLAIN_PROMPT = "(prompt)"  # no base command
UNKNOWN = "(unknown)"  # no model, no workspace
LEAST_FOR_DRIFT = 6
MOST_EMPTY_DAYS = 366  # in a row
ESTIMATES = "costs are estimates: subscriptions do not pay per token"


def local_time(ms: int) -> datetime:
    """The moment in the machine's own time zone."""
    return datetime.fromtimestamp(ms / 1000)


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What one group has used. `p50` and `p90` are tokens of a finished instance, with all its attempts.

    `groups` has a value for each way in which the rows are grouped. `unpriced_tokens` are not in `cost_nano_usd`.
    `drift` is the median use of the latest third of finished instances over that of the earliest third: 1.35 is 35 %
    more.
    """

    groups: tuple[str, ...]
    usage: Usage = field(default_factory=Usage)
    cost_nano_usd: int | None = None
    unpriced_tokens: int = 0
    instances: int = 0
    completed: int = 0
    p50: int | None = None
    p90: int | None = None
    drift: float | None = None
    verified: int = 0
    checked_nano_usd: int | None = None

    @property
    def group(self) -> str:
        """The first of the values."""
        return self.groups[0]

    @property
    def cache_share(self) -> float | None:
        """Cache reads as a share of all input; None without input."""
        usage = self.usage
        read = usage.cache_read_input_tokens
        whole = usage.input_tokens + usage.cache_creation_input_tokens + read
        return read / whole if whole > 0 else None

    @property
    def cost_per_completed(self) -> int | None:
        """Nano-dollars for one completed instance, with the cost of those that failed shared among them."""
        return _share_of(self.cost_nano_usd, self.completed)

    @property
    def cost_per_verified(self) -> int | None:
        """Nano-dollars for one instance whose check has passed, with the cost of those that failed theirs."""
        return _share_of(self.checked_nano_usd, self.verified)


def _share_of(cost_nano_usd: int | None, count: int) -> int | None:
    return None if cost_nano_usd is None or not count else round(cost_nano_usd / count)


class EndedInstances(NamedTuple):
    """The instances that ended in a span, and what those with a check have cost, by run and name."""

    instances: Sequence[InstanceRecord]
    costs_of_checked: Mapping[tuple[str, str], int]


def ended(ledger: LedgerStore, since_ms: int = 0, until_ms: int = FOREVER_MS) -> EndedInstances:
    """The instances of a span, which are the same in whatever groups its use is shown."""
    instances = ledger.instances(since_ms=since_ms, until_ms=until_ms)
    has_checks = any(one.verified is not None for one in instances)
    return EndedInstances(instances, ledger.costs_of_checked() if has_checks else {})


def history(
    ledger: LedgerStore,
    by: Sequence[By],
    since_ms: int = 0,
    until_ms: int = FOREVER_MS,
    local: LocalTime = local_time,
    of_span: EndedInstances | None = None,
) -> list[UsageRow]:
    """What was used from a moment up to another: days and runs by time, all else by use, most first.

    By day alone, days without use have rows too, from the first day of the span to its last. If the span has no
    beginning, they start with the first use. More than MOST_EMPTY_DAYS such days in a row have none. An instance counts
    where its last attempt ended. Whoever shows a span in several ways reads `of_span` once with `ended`.
    """
    of_span = of_span or ended(ledger, since_ms, until_ms)
    columns = [name for name in by if name != "day"]
    used: dict[tuple[str, ...], list[UsageSum]] = defaultdict(list)
    for part in ledger.sums(*columns, since_ms=since_ms, until_ms=until_ms, by_time="day" in by):
        found = dict(zip(columns, part.groups, strict=True))
        used[_groups(by, found, part.start_ms or 0, local)].append(part)
    instances: dict[tuple[str, ...], list[InstanceRecord]] = defaultdict(list)
    for one in of_span.instances:
        instances[_groups(by, _values_of(one), one.at_ms, local)].append(one)
    rows = {groups: _row(groups, used[groups], instances[groups], by) for groups in {*used, *instances}}
    if costs := of_span.costs_of_checked:
        for groups, row in rows.items():
            spent = [costs[one.run, one.instance] for one in instances[groups] if (one.run, one.instance) in costs]
            rows[groups] = replace(row, checked_nano_usd=sum(spent) if spent else None)
    if tuple(by) == ("day",):
        days = _days((row.group for row in rows.values()), since_ms, until_ms, local)
        return [rows.get((day,)) or UsageRow((day,)) for day in days]
    return _ordered(rows.values(), by, ledger)


def _values_of(instance: InstanceRecord) -> dict[GroupBy, str | None]:
    return {
        "command": instance.base_command,
        "model": instance.model,
        "run": instance.run,
        "instance": instance.instance,
        "workspace": instance.workspace,
    }


def _groups(by: Sequence[By], found: dict[GroupBy, str | None], at_ms: int, local: LocalTime) -> tuple[str, ...]:
    return tuple(
        local(at_ms).date().isoformat()
        if name == "day"
        else found[name] or (PLAIN_PROMPT if name == "command" else UNKNOWN)
        for name in by
    )


def _ordered(rows: Iterable[UsageRow], by: Sequence[By], ledger: LedgerStore) -> list[UsageRow]:
    """Days and runs by time, within them by use."""
    starts = {run.run: run.started_ms for run in ledger.runs()} if "run" in by else {}

    def key(row: UsageRow) -> tuple[str, int, str, int, tuple[str, ...]]:
        found = dict(zip(by, row.groups, strict=True))
        run = found.get("run", "")
        return found.get("day", ""), starts.get(run, 0), run, -row.usage.total_tokens, row.groups

    return sorted(rows, key=key)


def _row(
    groups: tuple[str, ...], sums: Iterable[UsageSum], instances: Sequence[InstanceRecord], by: Sequence[By]
) -> UsageRow:
    counts, cost_nano_usd, unpriced = [0, 0, 0, 0], None, 0
    for part in sums:
        counts = [a + b for a, b in zip(counts, part.usage.counts, strict=True)]
        if part.cost_nano_usd is not None:
            cost_nano_usd = part.cost_nano_usd + (cost_nano_usd or 0)
        unpriced += part.unpriced_tokens
    tokens = [instance.tokens for instance in instances if instance.outcome is not None and instance.tokens > 0]
    return UsageRow(
        groups,
        Usage(*counts),
        cost_nano_usd,
        unpriced,
        len(instances),
        sum(instance.outcome == "completed" for instance in instances),
        percentile(tokens, 50),
        percentile(tokens, 90),
        _drift(tokens) if has_drift(by) else None,
        sum(instance.outcome == "completed" and instance.verified is True for instance in instances),
    )


def has_drift(by: Sequence[By]) -> bool:
    """Whether rows have a drift: it is a command's, over all its days and runs."""
    return "command" in by and "day" not in by and "run" not in by


def percentile(values: Iterable[int], percent: int) -> int | None:
    """The least value that at least `percent` of a hundred values do not exceed; None without values."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] if ordered else None


def _drift(tokens: Sequence[int]) -> float | None:
    if len(tokens) < LEAST_FOR_DRIFT:
        return None
    third = len(tokens) // 3
    return statistics.median(tokens[-third:]) / statistics.median(tokens[:third])


def _days(found: Iterable[str], since_ms: int, until_ms: int, local: LocalTime) -> list[str]:
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
