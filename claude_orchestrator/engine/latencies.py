"""How long API requests take, as histograms by model and outcome. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

from claude_orchestrator.engine.run_events import RequestTimed
from token_budget.named_tuples import NamedTuple

# seconds; those that the semantic conventions of OpenTelemetry advise for gen_ai.client.operation.duration, and more
BOUNDS_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68)
MOST_SERIES = 100  # models and outcomes; names of models can be anything
OTHER = "other"


class LatencyLabels(NamedTuple):
    """The labels of a histogram: the model that a request names, and the HTTP status, or `none` without an answer."""

    model: str
    status: str


class Histogram:
    """How many values are at most each of `BOUNDS_S`, and more than all of them; with their sum."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0

    def note(self, seconds: float) -> None:
        """Add a value."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds


class Latencies:
    """The times to the first byte of an answer, and to its end."""

    def __init__(self) -> None:
        self._first_byte: dict[LatencyLabels, Histogram] = {}
        self._whole: dict[LatencyLabels, Histogram] = {}

    @property
    def first_byte(self) -> Mapping[LatencyLabels, Histogram]:
        """Until the first byte of an answer's body came."""
        return self._first_byte

    @property
    def whole(self) -> Mapping[LatencyLabels, Histogram]:
        """Until the answer had ended, or the request was given up."""
        return self._whole

    def note(self, event: RequestTimed) -> None:
        """Add a request."""
        asked = LatencyLabels(event.model, str(event.status or "none"))
        if asked not in self._whole and len(self._whole) >= MOST_SERIES:
            asked = asked._replace(model=OTHER)
        self._whole.setdefault(asked, Histogram()).note(event.seconds)
        if event.first_byte_s is not None:
            self._first_byte.setdefault(asked, Histogram()).note(event.first_byte_s)
