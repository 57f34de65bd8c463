"""What an answer's headers say of the API's rate limits. Pure.

Names and meaning: https://docs.claude.com/en/api/rate-limits. Limits are per minute, for each model, and refill
continuously. `reset` is the time at which a limit is whole again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from token_budget.named_tuples import NamedTuple
from token_budget.string_enums import StrEnum
from token_budget.timestamps import unix_s

PREFIX = "anthropic-ratelimit-"
RETRY_AFTER = "retry-after"
MAX_COUNT = 10**12


class Resource(StrEnum):
    """What a limit counts, by its name in the headers. `tokens` is the tightest limit on tokens of both kinds."""

    REQUESTS = "requests"
    INPUT = "input-tokens"
    OUTPUT = "output-tokens"
    TOKENS = "tokens"


class Reading(NamedTuple):
    """A limit as an answer reports it: how much of it is left, and in how many seconds it is whole again."""

    resource: Resource
    limit: int
    remaining: int
    reset_in_s: float | None = None


def read_limits(headers: Mapping[str, str], wall: float) -> list[Reading]:
    """The limits that the headers report; `wall` is the time now (Unix). Anything unreadable is left out."""
    readings = []
    for resource in Resource:
        limit = _count(headers.get(f"{PREFIX}{resource}-limit"))
        remaining = _count(headers.get(f"{PREFIX}{resource}-remaining"))
        if limit and remaining is not None:
            reset_at = unix_s(headers.get(f"{PREFIX}{resource}-reset"), needs_offset=True)
            reset_in_s = None if reset_at is None else max(0.0, reset_at - wall)
            readings.append(Reading(resource, limit, min(remaining, limit), reset_in_s))
    return readings


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The seconds after which a retry may succeed, if the headers say it."""
    try:
        seconds = float(headers.get(RETRY_AFTER, ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _count(text: str | None) -> int | None:
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > 12:
        return None
    return int(text)
