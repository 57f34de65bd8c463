"""The rate limits of a subscription, as the CLI reports them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_PERCENT = 1_000_000  # a larger figure cannot be a limit's use


def rate_limit_rows(limits: Mapping[str, Any]) -> list[tuple[str, float, str]]:
    """Each limit's name, its use in percent, and when it resets (empty if the CLI does not report that).

    The CLI reports limits by name, and those of single models in lists.
    """
    rows = []
    for name, found in limits.items():
        for limit in found if isinstance(found, list) else (found,):
            row = _row(str(name), limit) if isinstance(limit, Mapping) else None
            rows += [] if row is None else [row]
    return rows


def _row(name: str, limit: Mapping[str, Any]) -> tuple[str, float, str] | None:
    used = limit.get("utilization", limit.get("percent"))
    if not isinstance(used, int | float) or isinstance(used, bool) or not 0 <= used <= MAX_PERCENT:
        return None
    resets_at, kind = limit.get("resets_at"), limit.get("kind")
    scope = limit.get("scope")
    model = scope.get("model") if isinstance(scope, Mapping) else limit
    label = model.get("display_name") if isinstance(model, Mapping) else None
    parts = (kind if isinstance(kind, str) else name, label if isinstance(label, str) else "")
    return " ".join(filter(None, parts)), float(used), resets_at if isinstance(resets_at, str) else ""
