"""The limits of an account at a moment: since when each counts, in the account's time zone. Pure."""

from __future__ import annotations

from datetime import datetime, tzinfo

from token_budget.ledger.records import UTC_ZONE, AccountLimit, AccountRecord, Limit
from token_budget.models import Unit
from token_budget.windows import start_of, to_ms


def zone_named(name: str) -> tzinfo:
    """The time zone with this IANA name. Raises ValueError where this machine does not know it."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # only for accounts

    if name == UTC_ZONE:
        from datetime import UTC

        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"time zone {name!r}: expected a name such as Europe/Berlin that this machine knows") from None


def limits_at(account: AccountRecord, now_ms: int) -> list[Limit]:
    """What the ledger has to check at this moment, for each limit of the account. Raises ValueError."""
    now = datetime.fromtimestamp(now_ms / 1000, zone_named(account.zone))
    return [Limit(to_ms(start_of(window, now)), limit, unit) for window, unit, limit in account.limits]


def limit_name(limit: AccountLimit) -> str:
    """What people call a limit: `daily`, or `daily-cost` if it is in money."""
    return f"{limit.window}-cost" if limit.unit is Unit.USD else str(limit.window)
