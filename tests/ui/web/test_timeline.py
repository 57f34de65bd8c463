"""What budgets had used at moments of a run."""

from __future__ import annotations

from typing import Any

from claude_orchestrator.ui.web.timeline import MOST_POINTS, Timeline, recorded


def brief(tokens: int, state: str = "running") -> dict[str, Any]:
    budgets = [{"label": "overall", "unit": "tokens", "used": tokens}]
    return {"run": {"state": state}, "totals": {"total_tokens": tokens, "cost_usd": None}, "budgets": budgets}


def usage(at: float, instance: str, tokens: int, cost: float, attempt: int = 1) -> dict[str, Any]:
    counts = {"usage": [tokens, 0, 0, 0], "cost_usd": cost}
    return {"kind": "usage", "at": at, "instance": instance, "attempt": attempt, **counts}


def test_a_long_run_keeps_a_bounded_number_of_points_and_its_ends() -> None:
    timeline = Timeline()
    for second in range(100_000):
        timeline.take(float(second), brief(second))
    data = timeline.data()
    assert MOST_POINTS / 2 <= len(data["at"]) <= MOST_POINTS and data["at"][0] == 0.0 and data["at"][-1] > 99_000
    assert data["series"]["tokens"] == data["series"]["tokens:overall"] == sorted(data["series"]["tokens"])


def test_a_level_line_needs_its_ends_only() -> None:
    timeline = Timeline()
    for second in range(1_000):
        timeline.take(float(second), brief(5))
    assert timeline.data()["at"] == [0.0, 999.0]


def test_a_run_that_is_over_gets_no_more_points() -> None:
    timeline = Timeline()
    timeline.take(1.0, brief(5))
    timeline.take(9.0, brief(6, "ended"))
    assert timeline.data()["at"] == [1.0]


def test_a_journal_gives_totals_as_differences_of_totals() -> None:
    records = [None, {"kind": "launch"}, usage(1, "a", 10, 0.1), usage(2, "b", 5, 0), usage(3, "a", 30, 0.3)]
    data = recorded([*records, usage(4, "a", 7, 0.1, attempt=2)]).data()
    assert data["at"] == [1, 2, 3, 4] and data["series"]["tokens"] == [10, 15, 35, 42]
    assert [round(value, 3) for value in data["series"]["usd"]] == [0.1, 0.1, 0.3, 0.4]


def test_a_cost_by_prices_comes_before_the_one_that_claude_states_at_the_end() -> None:
    data = recorded([usage(1, "a", 10, 0.0) | {"cost_nano_usd": 250_000_000, "cost_usd": None}]).data()
    assert data["series"]["usd"] == [0.25]
    timeline, totals = Timeline(), {"total_tokens": 1, "cost_usd": 0.5, "cost_nano_usd": 750_000_000}
    timeline.take(1.0, {**brief(1), "totals": totals})
    assert timeline.data()["series"]["usd"] == [0.75]


def test_budgets_are_followed_back_from_their_end() -> None:
    budgets = [{"label": "daily", "unit": "tokens", "used": 150}, {"label": "/a", "unit": "USD", "used": 0.5}]
    records = [usage(1, "a", 10, 0.5), usage(2, "b", 40, 0.7)]
    data = recorded(records, budgets, {"a": ("daily", "/a"), "b": ("daily",)}).data()
    assert data["series"]["tokens:daily"] == [110, 150] and data["series"]["USD:/a"] == [0.5, 0.5]
