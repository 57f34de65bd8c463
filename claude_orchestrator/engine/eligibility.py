"""Which instance may be launched now, by free slots, times and the order of waiting. Pure."""

from __future__ import annotations

from claude_orchestrator.engine.state import InstanceStatus, State
from token_budget.models import Budget
from token_budget.named_tuples import NamedTuple

RECHECK_CLOCK_S = 30.0


class StartConditions(NamedTuple):
    """What eligibility depends on: times in seconds, free slots, and the budgets that earlier instances wait for."""

    monotonic: float
    wall: float
    next_launch_at: float
    free_slots: int
    reserved: frozenset[Budget] = frozenset()


class Eligible(NamedTuple):
    """The instance may be launched if its budgets allow it."""


class NotYet(NamedTuple):
    """Its time has not come: check again after `pause_s`. `for_all`: the same holds for every other instance."""

    pause_s: float | None
    for_all: bool = False


class Queued(NamedTuple):
    """An earlier instance waits for one of the same budgets."""

    reason: str = "others wait for the same budget"


def eligibility(
    status: InstanceStatus, budgets: tuple[Budget, ...], moment: StartConditions
) -> Eligible | NotYet | Queued | None:
    """Whether a pending or waiting instance may be launched; None if it is neither."""
    if status.state not in (State.PENDING, State.WAITING):
        return None
    if moment.free_slots <= 0:
        return NotYet(None, for_all=True)
    delay_s = moment.next_launch_at - moment.monotonic
    if delay_s > 0:
        return NotYet(delay_s, for_all=True)
    delay_s = max(status.not_before - moment.monotonic, status.not_before_wall - moment.wall)
    if delay_s > 0:
        # the machine may sleep meanwhile, so the wall clock is checked at intervals
        return NotYet(min(delay_s, RECHECK_CLOCK_S))
    if not moment.reserved.isdisjoint(budgets):
        return Queued()
    return Eligible()
