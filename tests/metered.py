"""An attempt at an instance, for tests of the gateway: what it would be told is kept, or passed on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from claude_orchestrator.claude.events import ApiUsage, Price
from claude_orchestrator.gateway.attempt import RequestTiming
from claude_orchestrator.gateway.refusals import BudgetRefusal
from claude_orchestrator.gateway.sender import Sender
from claude_orchestrator.gateway.unanswered import Most
from token_budget.models import Budget, Hold


@dataclass
class Metered:
    """A MeteredAttempt; every request finds room on the shared limits unless `shared` says otherwise."""

    budgets: tuple[Budget, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    price: Price | None = None
    on_usage: Callable[[ApiUsage, Hold | None], None] = lambda usage, hold: None
    refusals: list[BudgetRefusal] = field(default_factory=list)
    timings: deque[tuple[str, RequestTiming]] = field(default_factory=lambda: deque(maxlen=1_000))

    async def budgets_of(self, sender: Sender) -> tuple[Budget, ...]:
        return self.budgets

    def requested(self) -> None:
        pass

    def used(self, usage: ApiUsage, hold: Hold | None) -> None:
        self.on_usage(usage, hold)

    def refused(self, refusal: BudgetRefusal, sender: Sender) -> None:
        self.refusals.append(refusal)

    def admitted(self, sender: Sender) -> None:
        pass

    async def reserve(self, hold: Hold, most: Most) -> bool:
        return True

    def settled(self, hold: Hold) -> None:
        pass

    def timed(self, model: str, timing: RequestTiming) -> None:
        self.timings.append((model, timing))
