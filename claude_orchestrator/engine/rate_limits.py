"""The rate limits of a subscription, as the CLI reports them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_PERCENT = 1_000_000  # a larger figure cannot be a limit's use


def rate_limit_rows(limits: Mapping[str, Any]) -> list[tuple[str, float, str]]:
    """Each limit's name, its use in percent, and when it resets (empty if the CLI does not report that)."""
    rows = []
    for name, limit in limits.items():
        used = limit.get("utilization") if isinstance(limit, Mapping) else None
        if isinstance(used, int | float) and not isinstance(used, bool) and 0 <= used <= MAX_PERCENT:
            resets_at = limit.get("resets_at")
            rows.append((str(name), float(used), resets_at if isinstance(resets_at, str) else ""))
    return rows
