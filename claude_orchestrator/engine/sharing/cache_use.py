"""What instances read of each other's prompt cache, what they wrote again, and why. Pure.

The first response of a new session can only read what others have written. So its counts show what was shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from claude_orchestrator.claude.events import Price
from claude_orchestrator.claude.prompt_cache import CachePrefix
from claude_orchestrator.engine.activity import Activity, Doing
from claude_orchestrator.engine.run_events import Launched, RunEvent, UsageRecorded
from claude_orchestrator.engine.sharing.start_order import prefix_of
from claude_orchestrator.engine.state import InstanceStatus
from claude_orchestrator.engine.usage_delta import UsageDelta
from token_budget.models import NO_USAGE, Usage
from token_budget.named_tuples import NamedTuple
from token_budget.portions import CACHE_KEEPING

MAX_INSTANCES = 100_000


class First(NamedTuple):
    """The first response of an instance: its beginning, and when it was launched and began, in seconds."""

    name: str
    prefix: CachePrefix
    model: str
    usage: Usage
    launched_at: float
    began_at: float


class Kept(NamedTuple):
    """What calls have used that kept the prompt cache warm. `nano_usd` is 0 without prices."""

    calls: int = 0
    usage: Usage = NO_USAGE
    nano_usd: int = 0

    def plus(self, other: Kept) -> Kept:
        """Both together."""
        return Kept(self.calls + other.calls, self.usage + other.usage, self.nano_usd + other.nano_usd)


class CacheUse:
    """An observer that keeps the first response of each new session. `price` computes what reading saved."""

    def __init__(self, clock: Callable[[], float], price: Price | None = None) -> None:
        self.firsts: list[First] = []
        self.price = price
        self.kept: dict[str, Kept] = {}  # by the instance that is charged
        self._clock = clock
        self._awaited: dict[str, tuple[CachePrefix, float]] = {}

    def observe(self, event: RunEvent) -> None:
        """Note launches, and the first response of each."""
        match event:
            case Launched(status, _) if status.attempts == 1 and status.spec.session_id is None:
                if len(self.firsts) + len(self._awaited) < MAX_INSTANCES:
                    self._awaited[status.name] = prefix_of(status.spec), self._clock()
            case Activity(name, Doing.STARTING, "") if name in self._awaited:  # its first turn had waited
                self._awaited[name] = self._awaited[name][0], self._clock()
            case UsageRecorded(status, delta):
                self._note_keeping(status.name, delta)
                if self._awaited and delta.reads_input:
                    self._take(status, delta)
            case _:
                pass

    def _note_keeping(self, name: str, delta: UsageDelta) -> None:
        for portion, part in delta.portions.items():
            usage = part.spent.usage
            if portion.source == CACHE_KEEPING and (any(usage) or part.nano_usd):
                call = Kept(usage.total_tokens > usage.output_tokens, usage, part.nano_usd)
                self.kept[name] = self.kept.get(name, Kept()).plus(call)

    def _take(self, status: InstanceStatus, delta: UsageDelta) -> None:
        found = self._awaited.pop(status.name, None)
        if found is not None:
            prefix, launched_at = found
            portion, part = next(iter(delta.portions.items()))
            usage = part.spent.usage
            self.firsts.append(First(status.name, prefix, portion.model, usage, launched_at, self._clock()))


def cache_lines(use: CacheUse, instances: Iterable[InstanceStatus]) -> list[str]:
    """The text report's lines so far; none where fewer than two instances began a session."""
    if len(use.firsts) < 2:
        return []
    from claude_orchestrator.engine.sharing.cache_report import cache_report

    report = cache_report(use, instances)
    return [] if report is None else report.lines()
