"""Timestamps as other programs write them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

MAX_CHARS = 64


def unix_s(value: object, *, needs_offset: bool = False) -> float | None:
    """The Unix time of an ISO 8601 text; None for anything else.

    A text without an offset is in UTC. With `needs_offset`, it is no timestamp.
    """
    if not isinstance(value, str) or len(value) > MAX_CHARS:
        return None
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            return None if needs_offset else moment.replace(tzinfo=UTC).timestamp()
        return moment.timestamp()
    except (ValueError, OverflowError):
        return None
