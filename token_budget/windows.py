"""The time windows of limits across runs: a day, a week, a month, in local time. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from token_budget.string_enums import StrEnum


class Window(StrEnum):
    """The period of a limit across runs."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


def start_of(window: Window, now: datetime) -> datetime:
    """When the window around `now` (local time) began: at midnight of the day, of Monday, or of the first."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if window is Window.DAILY:
        return midnight
    if window is Window.WEEKLY:
        return midnight - timedelta(days=now.weekday())
    return midnight.replace(day=1)


def end_of(window: Window, now: datetime) -> datetime:
    """When the window around `now` (local time) ends and the next one begins."""
    start = start_of(window, now)
    if window is Window.MONTHLY:
        return (start + timedelta(days=32)).replace(day=1)
    return start + timedelta(days=1 if window is Window.DAILY else 7)


def name_of(window: Window, now: datetime) -> str:
    """The window's own name: `day 2026-11-24`, `week of 2026-11-23`, `month 2026-11`."""
    start = start_of(window, now)
    if window is Window.DAILY:
        return f"day {start:%Y-%m-%d}"
    return f"week of {start:%Y-%m-%d}" if window is Window.WEEKLY else f"month {start:%Y-%m}"


def to_ms(moment: datetime) -> int:
    """Milliseconds since 1970 in UTC; a moment without a zone is in local time."""
    return round(moment.timestamp() * 1000)
