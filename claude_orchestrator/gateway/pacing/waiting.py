"""Requests that wait for the API's rate limits, on one machine or on several. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from token_budget.named_tuples import NamedTuple


class WaitingRequests(NamedTuple):
    """So many requests wait noticeably. `reason` is that of most of them, if it is known."""

    number: int
    reason: str

    @property
    def text(self) -> str:
        """The same in words."""
        waiting = f"{self.number:,} {'request waits' if self.number == 1 else 'requests wait'}"
        return f"{waiting} for the API's rate limit" + (f" ({self.reason})" if self.reason else "")


def together(found: Iterable[WaitingRequests | None]) -> WaitingRequests | None:
    """Those of several machines."""
    there = [one for one in found if one is not None]
    if not there:
        return None
    return WaitingRequests(sum(one.number for one in there), max(there, key=lambda one: one.number).reason)
