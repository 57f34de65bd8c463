"""Where a day, a week and a month will end, by hand-made figures."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from token_budget.usage.page.projection import HOUR_MS, Projection, pace_since, project
from token_budget.windows import Window, to_ms

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)  # a Wednesday
NOW_MS = to_ms(NOON)


@pytest.mark.parametrize(
    ("window", "hours", "back", "ahead"),
    [(Window.DAILY, 24, 12, 12), (Window.WEEKLY, 7 * 24, 60, 108), (Window.MONTHLY, 30 * 24, 588, 132)],
)
def test_the_pace_is_that_of_the_latest_time_of_the_same_length(
    window: Window, hours: int, back: int, ahead: int
) -> None:
    assert pace_since(window, NOW_MS) == NOW_MS - hours * HOUR_MS
    found = project(window, 10**9, 50, hours * 10, NOON)
    assert found == Projection(NOW_MS - back * HOUR_MS, NOW_MS + ahead * HOUR_MS, 50 + ahead * 10, None)


@pytest.mark.parametrize(
    ("used", "latest", "projected", "hours"),
    [
        (60, 240, 180, 4.0),  # ten an hour, and forty are left
        (100, 0, 100, 0.0),
        (130, 24, 142, 0.0),
        (99, 0, 99, None),
        (40, 120, 100, 12.0),  # reached as the day ends
        (10, -5, 10, None),  # corrections outweigh the use
    ],
)
def test_the_moment_at_which_a_limit_is_reached(used: int, latest: int, projected: int, hours: float | None) -> None:
    found = project(Window.DAILY, 100, used, latest, NOON)
    assert found.projected == projected
    assert found.reached_ms == (None if hours is None else NOW_MS + round(hours * HOUR_MS))
