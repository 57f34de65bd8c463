"""When one more instance may start on this machine. Pure.

A start takes about a second of a processor. Many at once take all the longer, and all end together: until then nobody
uses the rate limits. So few start at a time, and the first one sends its request while others still start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

SAMPLE_S = 0.25
LONGEST_START_S = 10.0  # what takes longer waits for something else


@dataclass(slots=True)
class Starts:
    """The instances that have started and sent no request yet: one for each processor, and more for those that idle.

    `idle` returns the share of the processors that stood idle since it was last called.
    """

    processors: int
    idle: Callable[[], float]
    since: dict[str, float] = field(default_factory=dict)
    sampled_at: float = float("-inf")
    spare: int = 0

    def began(self, instance: str, now: float) -> None:
        """An instance starts."""
        if len(self.since) >= self.processors:
            self.spare -= 1
        self.since[instance] = now

    def ended(self, instance: str) -> None:
        """It has sent a request, or is gone."""
        self.since.pop(instance, None)

    def is_crowded(self, now: float) -> bool:
        """Whether one more start would only slow down the others."""
        while self.since and now - next(iter(self.since.values())) > LONGEST_START_S:
            del self.since[next(iter(self.since))]
        if len(self.since) < self.processors:
            return False
        if now - self.sampled_at >= SAMPLE_S:
            self.spare = int(self.idle() * self.processors + 0.5)
            self.sampled_at = now
        return self.spare <= 0
