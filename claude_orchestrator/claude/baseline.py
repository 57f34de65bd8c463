"""Where the CLI's own count of a process begins: after an earlier process of its session, or after `/clear`. Pure."""

from __future__ import annotations

from claude_orchestrator.claude.events import ModelUsage
from token_budget.models import NO_USAGE, Usage


def _number(version: str) -> int:
    """A version as a number to compare; 0 for what is none."""
    parts = version.split(".")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) <= 9 for part in parts):
        return 0
    return int(parts[0]) * 10**10 + int(parts[1]) * 10**5 + int(parts[2])


STARTS_AT_ZERO = range(_number("2.0.0"), _number("2.1.222"))  # measured: 2.1.197, 2.1.221; 2.1.330 carries on


class Baseline:
    """What to subtract from the CLI's readings, and what to add to them, to get the use of one process."""

    def __init__(self) -> None:
        self.is_known = False
        self._carried, self._carried_usd = NO_USAGE, 0.0
        self._before, self._before_usd = NO_USAGE, 0.0

    def state(self, reading: ModelUsage) -> None:
        """The reading before the first turn: what earlier processes of the session had counted."""
        self._carry(reading.usage, reading.cost_usd)

    def guess(self, reading: ModelUsage, seen: Usage, version: str, *, resumed: bool) -> bool:
        """Guess that from the first reading and from what the stream has shown, where the CLI was not asked in time.

        Returns whether the reading has more than the stream.
        """
        carried = reading.usage - seen
        has_more = any(carried.counts[i] for i in (0, 2, 3))  # output alone is not carried, it is not seen yet
        if not (resumed and has_more) or _number(version) in STARTS_AT_ZERO:
            self._carry(NO_USAGE, 0.0)
            return False
        self._carry(carried, reading.cost_usd)
        return True

    def restart(self, counted: Usage, cost_usd: float) -> None:
        """The CLI counts from zero again. Until then it had counted this."""
        self._before, self._before_usd = counted, cost_usd
        self._carry(NO_USAGE, 0.0)

    def usage_in(self, reading: ModelUsage) -> Usage:
        """What the process has used by this reading."""
        return reading.usage - self._carried + self._before

    def cost_in(self, cost_usd: float) -> float:
        """What the process has cost by a reading with this cost, in USD."""
        return self._before_usd + cost_usd - self._carried_usd

    def _carry(self, usage: Usage, cost_usd: float | None) -> None:
        self.is_known = True
        self._carried, self._carried_usd = usage, cost_usd or 0.0
