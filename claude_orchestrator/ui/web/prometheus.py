"""The metrics of a run in the text format of Prometheus, which its own library writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Metric as Family
from prometheus_client.registry import Collector

from claude_orchestrator.engine.latencies import BOUNDS_S, Latencies
from claude_orchestrator.engine.run_view import RunChanges
from claude_orchestrator.engine.snapshot import Snapshot
from claude_orchestrator.ui.metrics import PREFIX, metrics_of


def exposition(run: Snapshot, changes: RunChanges) -> str:
    """The metrics of a run, and how long API requests took."""
    registry = CollectorRegistry()
    registry.register(_Collected([*_of_run(run, changes), *_of_latencies(changes.latencies)]))
    return generate_latest(registry).decode()


class _Collected(Collector):
    """Families of metrics that are known already."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        """All of them."""
        return self._families


def _of_run(run: Snapshot, changes: RunChanges) -> Iterator[Family]:
    for metric in metrics_of(run, changes):
        # the library adds the end of a counter's name where the family is described
        family = Family(f"{PREFIX}_{metric.name.removesuffix('_total')}", metric.help, metric.kind)
        for labels, value in metric.values:
            family.add_sample(f"{PREFIX}_{metric.name}", dict(labels), value)
        if family.samples:
            yield family


def _of_latencies(latencies: Latencies) -> Iterator[Family]:
    """Histograms. A bucket counts everything up to its bound."""
    for name, help, found in (
        ("api_first_byte_seconds", "From an API request to the first byte of its answer.", latencies.first_byte),
        ("api_request_seconds", "From an API request to the end of its answer.", latencies.whole),
    ):
        full = f"{PREFIX}_{name}"
        family = Family(full, help, "histogram")
        for asked, histogram in found.items():
            labels, below = asked._asdict(), list(accumulate(histogram.counts))
            for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), below, strict=True):
                family.add_sample(f"{full}_bucket", {**labels, "le": bound}, count)
            family.add_sample(f"{full}_sum", labels, histogram.sum_s)
            family.add_sample(f"{full}_count", labels, below[-1])
        if family.samples:
            yield family
