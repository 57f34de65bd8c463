"""Where the use of a day, a week or a month will end, at the pace of the latest time of that length. Pure."""

from __future__ import annotations

from datetime import datetime

from token_budget.named_tuples import NamedTuple
from token_budget.windows import Window, end_of, start_of, to_ms

HOUR_MS = 3_600_000
PACE_MS = {Window.DAILY: 24 * HOUR_MS, Window.WEEKLY: 7 * 24 * HOUR_MS, Window.MONTHLY: 30 * 24 * HOUR_MS}


class Projection(NamedTuple):
    """A window, from its beginning to its end in milliseconds, and what it comes to in the unit of its limit.

    `projected` is the use at its end. `reached_ms` is when the limit is reached: now if it is, None if that is not
    before the window's end.
    """

    start_ms: int
    end_ms: int
    projected: int
    reached_ms: int | None


def pace_since(window: Window, now_ms: int) -> int:
    """From when on use counts for the pace: the latest 24 hours, 7 days or 30 days."""
    return now_ms - PACE_MS[window]


def project(window: Window, limit: int, used: int, latest: int, now: datetime) -> Projection:
    """Where the window around `now` (local time) will end. `latest` was used since `pace_since`."""
    now_ms, start_ms, end_ms = to_ms(now), to_ms(start_of(window, now)), to_ms(end_of(window, now))
    projected = used + round(max(0, latest) * (end_ms - now_ms) / PACE_MS[window])
    reached_ms: int | None = None
    if used >= limit:
        reached_ms = now_ms
    elif projected >= limit:
        reached_ms = min(end_ms, now_ms + round((limit - used) * PACE_MS[window] / latest))
    return Projection(start_ms, end_ms, projected, reached_ms)
