"""What budgets had used at moments of a run, in a bounded number of points. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from token_budget.text import NANO

MOST_POINTS = 600
OVER = frozenset({"ended", "interrupted"})


class Timeline:
    """Samples of a run's use. When there are too many, every second one goes, and later ones come half as often."""

    def __init__(self, every_s: float = 1.0) -> None:
        self._every_s = every_s
        self._points: list[tuple[float, dict[str, float]]] = []

    def due(self, at: float) -> bool:
        """Whether a sample is due at this Unix time."""
        return not self._points or at - self._points[-1][0] >= self._every_s

    def take(self, at: float, brief: Mapping[str, Any]) -> None:
        """Take a sample, if one is due and it says more than the one before. A run that is over has its last one."""
        if not self.due(at) or brief["run"]["state"] in OVER:
            return
        self.add(at, figures(brief))

    def add(self, at: float, values: dict[str, float]) -> None:
        """Add a sample, unless it says no more than the one before."""
        if self._points and at - self._points[-1][0] < self._every_s:
            return
        if self._points and values == self._points[-1][1] and len(self._points) > 1 and values == self._points[-2][1]:
            self._points[-1] = (at, values)  # a level line needs its ends only
            return
        self._points.append((at, values))
        if len(self._points) > MOST_POINTS:
            del self._points[1:-1:2]
            self._every_s *= 2

    def data(self) -> dict[str, Any]:
        """The samples as JSON data: times, and the values of each series."""
        names = dict.fromkeys(name for _, values in self._points for name in values)
        series = {name: [values.get(name) for _, values in self._points] for name in names}
        return {"at": [round(at, 2) for at, _ in self._points], "series": series}


def figures(brief: Mapping[str, Any]) -> dict[str, float]:
    """What is drawn of a run: its tokens and dollars in all, and what each budget has used."""
    totals = brief["totals"]
    budgets: Iterable[Mapping[str, Any]] = brief["budgets"]
    return {
        "tokens": totals["total_tokens"],
        "usd": _dollars(totals),
        **{_series(budget): budget["used"] for budget in budgets},
    }


def recorded(
    records: Iterable[Mapping[str, Any] | None],
    budgets: Sequence[Mapping[str, Any]] = (),
    drawn: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> Timeline:
    """The tokens and dollars of a run over time, from its journal.

    `budgets` are those at the end, and `drawn` has the labels of the budgets that each instance draws on: from the end
    what was used later is taken off.
    """
    steps = list(_steps(records))
    later = {_series(budget): 0.0 for budget in budgets}
    ends = {_series(budget): (budget["label"], budget["unit"], budget["used"]) for budget in budgets}
    for _, instance, tokens, dollars in steps:
        for series, (label, unit, _) in ends.items():
            if label in drawn.get(instance, ()):
                later[series] += dollars if unit == "USD" else tokens
    timeline = Timeline(every_s=0.0)
    all_tokens, all_dollars = 0, 0.0
    for at, instance, tokens, dollars in steps:
        all_tokens, all_dollars = all_tokens + tokens, all_dollars + dollars
        for series, (label, unit, _) in ends.items():
            if label in drawn.get(instance, ()):
                later[series] -= dollars if unit == "USD" else tokens
        used = {series: max(0.0, end - later[series]) for series, (_, _, end) in ends.items()}
        timeline.add(at, {"tokens": all_tokens, "usd": all_dollars, **used})
    return timeline


def _steps(records: Iterable[Mapping[str, Any] | None]) -> Iterator[tuple[float, str, int, float]]:
    """Each change of what an instance has used: the time, its name, tokens and dollars. Counts are totals."""
    counted: dict[tuple[str, int], tuple[int, float]] = {}
    for record in records:
        if record is None or record.get("kind") not in ("usage", "end") or "usage" not in record:
            continue
        key = (record["instance"], record["attempt"])
        tokens, dollars = sum(record["usage"]), _dollars(record)
        before_tokens, before_dollars = counted.get(key, (0, 0.0))
        counted[key] = tokens, dollars
        yield record["at"], key[0], tokens - before_tokens, dollars - before_dollars


def _dollars(found: Mapping[str, Any]) -> float:
    """The cost: what budgets in money are charged, or else Claude's figure."""
    nano = found.get("cost_nano_usd")
    return float(found.get("cost_usd") or 0.0) if nano is None else nano / NANO


def _series(budget: Mapping[str, Any]) -> str:
    return f"{budget['unit']}:{budget['label']}"
