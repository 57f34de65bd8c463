"""How launches are spread once the API refuses requests by a rate limit. Pure.

More instances would only be refused too. Each new refusal doubles the time between two launches, and each minute
without one halves it.
"""

from __future__ import annotations

FIRST_S, LONGEST_S = 2.0, 60.0
QUIET_S = 60.0  # without a refusal


class LaunchPace:
    """The least time between two launches. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._delay_s = 0.0
        self._changed_at = 0.0
        self._launched_at = 0.0

    def refused(self, now: float) -> bool:
        """A request was refused by a rate limit. Returns whether launches are spread more than before.

        Instances that run at once are refused at once: that counts once.
        """
        if now < self._changed_at + self._delay_s:
            return False
        before = self.delay_s(now)
        self._delay_s = min(LONGEST_S, max(FIRST_S, 2 * before))
        self._changed_at = now
        return self._delay_s > before

    def launched(self, now: float) -> None:
        """An instance is launched."""
        self._launched_at = now

    def delay_s(self, now: float) -> float:
        """The least seconds between two launches now."""
        halvings = int(max(0.0, now - self._changed_at) / QUIET_S)
        delay_s = self._delay_s / 2 ** min(halvings, 64)
        return delay_s if delay_s >= FIRST_S / 2 else 0.0

    def next_at(self, now: float) -> float:
        """When the next instance may be launched."""
        delay_s = self.delay_s(now)
        return max(self._launched_at, self._changed_at) + delay_s if delay_s else now

    def describe(self, now: float) -> str | None:
        """The pace and its reason; None if launches are not spread."""
        delay_s = self.delay_s(now)
        return f"launches are at least {delay_s:g} s apart, because the API refuses requests" if delay_s else None
