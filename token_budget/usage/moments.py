"""Reads the moments that people write: `7d`, `yesterday`, `2026-11-01`."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta

from token_budget.text import printable
from token_budget.windows import Window, end_of, start_of, to_ms

HOUR_MS = 3_600_000
WORDS = {"today": Window.DAILY, "yesterday": Window.DAILY, "week": Window.WEEKLY, "month": Window.MONTHLY}
EXPECTED = "a past moment such as 24h, 7d, 4w, today, yesterday, week, month or 2026-11-01"


def read_since(text: str, now: datetime, option: str = "--since") -> int:
    """The moment, in ms, at which what the text names begins, in the time zone of `now`.

    `week` and `month` are the present ones. `7d` is this time of day a week ago. Raises ValueError with a line for the
    user, who gave `option`.
    """
    return _read(text, now, option, is_end=False)


def read_until(text: str, now: datetime, option: str = "--until") -> int:
    """The moment, in ms, at which what the text names has ended: `yesterday` and dates include their whole day.

    Raises ValueError with a line for the user, who gave `option`.
    """
    return _read(text, now, option, is_end=True)


def _read(text: str, now: datetime, option: str, *, is_end: bool) -> int:
    text = text.strip()
    try:
        if span := re.fullmatch(r"([0-9]{1,6})([hdw])", text):
            return _before(now, int(span[1]), span[2])
        named = _named(text, now)
        if named is not None:
            window, day = named
            if start_of(window, day) <= now:
                return to_ms(end_of(window, day) if is_end else start_of(window, day))
    except (ValueError, OverflowError, OSError):
        pass
    raise ValueError(f"{option}: expected {EXPECTED}, got '{printable(text)}'")


def _before(now: datetime, number: int, unit: str) -> int:
    if unit == "h":  # elapsed time, even when the clocks changed
        return to_ms(now) - number * HOUR_MS
    return to_ms(now - timedelta(days=number * (7 if unit == "w" else 1)))


def _named(text: str, now: datetime) -> tuple[Window, datetime] | None:
    """The day, week or month that a text names, and a moment in it; None if it names none."""
    if text in WORDS:
        return WORDS[text], now - timedelta(days=1) if text == "yesterday" else now
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        day = date.fromisoformat(text)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        return Window.DAILY, midnight.replace(year=day.year, month=day.month, day=day.day)
    return None
