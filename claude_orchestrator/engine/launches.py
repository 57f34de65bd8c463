"""The launches of one run in the last hour, where there is no ledger that counts those of all runs. Pure."""

from __future__ import annotations

from collections import deque

from token_budget.ledger.records import HOUR_MS


class Launches:
    """Counts launches. Times are Unix times in milliseconds."""

    def __init__(self) -> None:
        self._at_ms: deque[int] = deque()

    def claim(self, most: int, now_ms: int) -> int:
        """Claim one of `most` launches in an hour; returns 0, or the milliseconds until one is free."""
        while self._at_ms and self._at_ms[0] <= now_ms - HOUR_MS:
            self._at_ms.popleft()
        if len(self._at_ms) >= most:
            return max(1, self._at_ms[-most] + HOUR_MS - now_ms)
        self._at_ms.append(now_ms)
        return 0
