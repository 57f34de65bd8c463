"""When one more instance may start on this machine. Pure.

A start takes about a second of a processor. Many at once take all the longer, and all end together: until then nobody
uses the rate limits. So few start at a time, and the first one sends its request while others still start.
"""

from __future__ import annotations

from collections.abc import Callable

SAMPLE_S = 0.25
LONGEST_START_S = 10.0  # what takes longer waits for something else


class Starts:
    """The instances that have started and sent no request yet: one for each processor, and more for those that idle.

    `idle` returns the share of the processors that stood idle since it was last called.
    """

    def __init__(self, processors: int, idle: Callable[[], float]) -> None:
        self._processors = processors
        self._idle = idle
        self._since: dict[str, float] = {}
        self._sampled_at = float("-inf")
        self._spare = 0

    def began(self, instance: str, now: float) -> None:
        """An instance starts."""
        if len(self._since) >= self._processors:
            self._spare -= 1
        self._since[instance] = now

    def ended(self, instance: str) -> None:
        """It has sent a request, or is gone."""
        self._since.pop(instance, None)

    def is_crowded(self, now: float) -> bool:
        """Whether one more start would only slow down the others."""
        while self._since and now - next(iter(self._since.values())) > LONGEST_START_S:
            del self._since[next(iter(self._since))]
        if len(self._since) < self._processors:
            return False
        if now - self._sampled_at >= SAMPLE_S:
            self._spare = int(self._idle() * self._processors + 0.5)
            self._sampled_at = now
        return self._spare <= 0
