"""How much of this machine's processors stands idle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

STAT = Path("/proc/stat")
IDLE, WAITING = 3, 4  # places of the times in its first line


class IdleShare:
    """Which share of the processors stood idle since the last call, from 0 to 1; all of it where nobody knows.

    Linux counts the times, in hundredths of a second. `read` returns the lines that it shows.
    """

    def __init__(self, read: Callable[[], str] = STAT.read_text) -> None:
        self._read = read
        self._before = self._times()

    def __call__(self) -> float:
        """The share."""
        before, self._before = self._before, self._times()
        if before is None or self._before is None:
            return 1.0
        passed, idle = (now - then for now, then in zip(self._before, before, strict=True))
        return min(1.0, max(0.0, idle / passed)) if passed > 0 else 0.0

    def _times(self) -> tuple[int, int] | None:
        """All time of all processors, and how much of it they stood idle."""
        try:
            name, *words = self._read().partition("\n")[0].split()
            times = [int(word) for word in words[:8]]  # what follows is counted in these already
            return (sum(times), times[IDLE] + times[WAITING]) if name == "cpu" else None
        except (OSError, ValueError, LookupError):
            return None
