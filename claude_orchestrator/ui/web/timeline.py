"""What budgets had used at moments of a run, in a bounded number of points. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

MOST_POINTS = 600


class Timeline:
    """Samples of a run's use. When there are too many, every second one goes, and later ones come half as often."""

    def __init__(self, every_s: float = 1.0) -> None:
        self._every_s = every_s
        self._points: list[tuple[float, dict[str, float]]] = []

    def due(self, at: float) -> bool:
        """Whether a sample is due at this Unix time."""
        return not self._points or at - self._points[-1][0] >= self._every_s

    def take(self, at: float, brief: Mapping[str, Any]) -> None:
        """Take a sample, if one is due and it says more than the one before."""
        if not self.due(at):
            return
        values = figures(brief)
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
        "usd": totals["cost_usd"] or 0.0,
        **{f"{budget['unit']}:{budget['label']}": budget["used"] for budget in budgets},
    }
