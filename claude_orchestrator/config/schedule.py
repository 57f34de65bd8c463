"""`--start-at`: from `30m`, `2h`, `14:30` or `1am` to seconds from now. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_SPAN = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_CLOCK = re.compile(r"(\d{1,2})(?::(\d{2}))?(?::(\d{2}))?\s*(am|pm)?")
MAX_DAYS = 30


def seconds_until(text: str, now: datetime) -> float:
    """Seconds from `now` (local time) to `text`: a span such as `1h30m`, or the next time of day such as `1am`.

    Raises ValueError with what was expected.
    """
    words = text.strip().lower()
    if match := _SPAN.fullmatch(words):
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        span = timedelta(hours=hours, minutes=minutes, seconds=seconds) if words and hours < 10_000 else timedelta()
        if timedelta() < span <= timedelta(days=MAX_DAYS):
            return span.total_seconds()
    elif match := _CLOCK.fullmatch(words):
        at = _time_of_day(now, *match.groups())
        if at is not None:
            if at <= now:
                at += timedelta(days=1)
            return at.timestamp() - now.timestamp()  # by the wall clock, also across a change to or from summer time
    raise ValueError(f"expected a span such as 30m or 2h, or a time such as 14:30 or 1am, got {text!r}")


def _time_of_day(
    now: datetime, hour_text: str, minute: str | None, second: str | None, half: str | None
) -> datetime | None:
    hour = int(hour_text)
    if half is None and minute is None:
        return None  # a bare number is ambiguous
    if half is not None:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half == "pm" else 0)
    if hour > 23 or int(minute or 0) > 59 or int(second or 0) > 59:
        return None
    return now.replace(hour=hour, minute=int(minute or 0), second=int(second or 0), microsecond=0)
