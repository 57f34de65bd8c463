"""What displays and reports see of a run."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.config.plan import Plan
from claude_orchestrator.config.settings import STREAM, MeterChoice
from claude_orchestrator.engine.attempt import cost_of
from claude_orchestrator.engine.latencies import Latencies
from claude_orchestrator.engine.run_events import (
    AlertRaised,
    ApprovalEnded,
    Crossed,
    Decided,
    HoldChanged,
    Paced,
    RateLimitsRead,
    RequestTimed,
    RetryPlanned,
    RunEvent,
    RunStopping,
    Steered,
    Stopping,
)
from claude_orchestrator.engine.sharing.cache_use import CacheUse
from claude_orchestrator.engine.state import InstanceStatus, State
from token_budget.budget_manager import TokenBudgetManager
from token_budget.models import Action, Budget, Usage
from token_budget.named_tuples import NamedTuple

if TYPE_CHECKING:
    from claude_orchestrator.engine.journal_history import EarlierInstance
    from claude_orchestrator.engine.results.answer_files import AnswerFiles

MAX_HOLD_CHANGES = 1_000
MAX_NOTABLE = 500
NOTABLE = frozenset({AlertRaised, ApprovalEnded, Crossed, Decided, RetryPlanned, RunStopping, Steered, Stopping})


class RunChanges:
    """An observer that collects what reports and pages show besides the instances.

    These are hold changes, the latest rate limits, the pace, and the latest decisions with their Unix times.
    `decisions` counts them by action. `latencies` has how long API requests took. `limits` has the budgets that stopped
    or blocked instances, each with a limit that has room for the next request, or 0.
    """

    def __init__(
        self,
        holds: Iterable[HoldChanged] = (),
        rate_limits: Mapping[str, Any] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.notable: deque[tuple[float, RunEvent]] = deque(maxlen=MAX_NOTABLE)
        self._wall = wall
        self.holds = list(holds)
        self.rate_limits: Mapping[str, Any] = rate_limits or {}
        self.limits: dict[Budget, int] = {}
        self.next_requests: dict[Budget, int] = {}
        self.decisions: Counter[str] = Counter()
        self.pace: str | None = None
        self.latencies = Latencies()

    def observe(self, event: RunEvent) -> None:
        """Collect what reports need."""
        if type(event) in NOTABLE:
            self.notable.append((self._wall(), event))
        if isinstance(event, Decided):
            self.decisions[event.action] += 1
        match event:
            case HoldChanged() if len(self.holds) < MAX_HOLD_CHANGES:
                self.holds.append(event)
            case Decided(_, Action.BLOCK, _, Budget() as budget):
                self.limits.setdefault(budget, 0)
            case Stopping(_, _, _, Budget() as budget, enough, next_request):
                self.limits[budget] = max(self.limits.get(budget, 0), enough)
                self.next_requests[budget] = max(self.next_requests.get(budget, 0), next_request)
            case RateLimitsRead(limits):
                self.rate_limits = limits
            case Paced(text):
                self.pace = text
            case RequestTimed():
                self.latencies.note(event)
            case _:
                pass


class RunView(NamedTuple):
    """A run as displays and reports read it at any time.

    `clock_at_start` is the monotonic clock at `started_at`. `removed` has the instances of earlier starts that are no
    longer in the plan. `answers` has what the instances answered. `fence` is that of the launcher's capabilities.
    """

    run_id: str
    plan: Plan
    instances: list[InstanceStatus]
    manager: TokenBudgetManager
    started_at: datetime
    clock_at_start: float
    removed: list[EarlierInstance]
    changes: RunChanges
    cache: CacheUse
    rehearsal: bool = False
    directory: str | None = None
    meter: MeterChoice = STREAM
    fence: str = "none"
    answers: AnswerFiles | None = None

    @property
    def parts(self) -> tuple[InstanceStatus | EarlierInstance, ...]:
        """The instances, and those that were removed."""
        return (*self.instances, *self.removed)

    def total_usage(self) -> tuple[Usage, bool]:
        """All that the run has used, and whether every part of it is exact."""
        usage, exact = Usage(), True
        for part in self.parts:
            usage, exact = usage + part.usage, exact and part.exact
        return usage, exact

    def total_cost_usd(self) -> float | None:
        """The sum of the costs that the CLI states, in USD; None if it states none."""
        return cost_of(self.parts)

    def charged_nano_usd(self) -> int:
        """What budgets in money are charged: the CLI's costs, and prices where the CLI has none or lacks a part."""
        return sum(part.nano_usd or 0 for part in self.parts)


def usage_fields(usage: Usage, *, exact: bool) -> dict[str, Any]:
    """Usage as reports and results show it."""
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_creation_input_tokens": usage.cache_creation_input_tokens,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "total_tokens": usage.total_tokens,
        "exact": exact,
    }


def place_fields(spec: LaunchSpec) -> dict[str, Any]:
    """An instance's group and item as reports and results show them; without a group, its place in the config."""
    index = spec.position if spec.item_index is None else spec.item_index
    return {"group": spec.group, "item": spec.item, "index": index}


def resume_hint(status: InstanceStatus) -> str | None:
    """The command that continues the session of an instance that began one and did not complete; else None."""
    ended_early = status.state in (State.STOPPED, State.TIMED_OUT, State.CANCELLED, State.FAILED)
    session = status.attempt.known_session
    if status.unneeded or not ended_early or session is None or not status.launched:
        return None
    import shlex

    return f"claude --resume {shlex.quote(session)}"


def exit_code(instances: Iterable[InstanceStatus]) -> int:
    """0 when every instance completed with its changes kept, or was not needed, else 1."""
    return int(any(is_left(status) for status in instances))


def is_left(status: InstanceStatus) -> bool:
    """Whether a later start of the run still has something to do for an instance."""
    return not status.unneeded and (status.state is not State.COMPLETED or status.changes_unkept)
