"""Where windows of time begin and end, and what they are called."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from token_budget.windows import Window, end_of, name_of, start_of, to_ms

TUESDAY = datetime(2026, 11, 24, 16, 30, 5, 7)


@pytest.mark.parametrize(
    ("window", "start", "end", "name"),
    [
        (Window.DAILY, datetime(2026, 11, 24), datetime(2026, 11, 25), "day 2026-11-24"),
        (Window.WEEKLY, datetime(2026, 11, 23), datetime(2026, 11, 30), "week of 2026-11-23"),
        (Window.MONTHLY, datetime(2026, 11, 1), datetime(2026, 12, 1), "month 2026-11"),
    ],
)
def test_a_window(window: Window, start: datetime, end: datetime, name: str) -> None:
    assert (start_of(window, TUESDAY), end_of(window, TUESDAY), name_of(window, TUESDAY)) == (start, end, name)
    assert start_of(window, start) == start and start_of(window, end) == end


def test_windows_end_where_the_year_does() -> None:
    last_day = datetime(2026, 12, 31, 23, 59)
    assert end_of(Window.DAILY, last_day) == end_of(Window.MONTHLY, last_day) == datetime(2027, 1, 1)
    assert start_of(Window.WEEKLY, datetime(2027, 1, 1)) == datetime(2026, 12, 28)


@pytest.mark.parametrize(("month", "days"), [(1, 31), (2, 28), (4, 30)])
def test_a_month_has_its_days(month: int, days: int) -> None:
    now = datetime(2026, month, 15)
    assert (end_of(Window.MONTHLY, now) - start_of(Window.MONTHLY, now)).days == days


def test_a_day_begins_at_local_midnight_even_when_an_hour_comes_twice() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    second_time = datetime(2026, 10, 25, 2, 30, tzinfo=berlin, fold=1)
    start = start_of(Window.DAILY, second_time)
    assert (start, start.fold) == (datetime(2026, 10, 25, tzinfo=berlin), 0)
    assert to_ms(end_of(Window.DAILY, second_time)) - to_ms(start) == 25 * 3_600_000


def test_milliseconds_since_1970() -> None:
    assert to_ms(datetime(1970, 1, 1, 0, 0, 1, 234_567, UTC)) == 1_235
