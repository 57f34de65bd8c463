"""Which instance may be launched at a moment."""

from __future__ import annotations

import pytest

from claude_orchestrator.engine.eligibility import Eligible, NotYet, Queued, StartConditions, eligibility
from claude_orchestrator.engine.state import InstanceStatus, PlannedRetry, State
from tests.engine.test_state import an_instance
from token_budget.models import Budget

NOW = StartConditions(monotonic=100.0, wall=1_000_000.0, next_launch_at=0.0, free_slots=1)
BUDGET = Budget(1_000)


def pending() -> InstanceStatus:
    return InstanceStatus(an_instance("/a").spec)


def retrying(*, monotonic: float = float("-inf"), wall: float = float("-inf")) -> InstanceStatus:
    status = an_instance("/a")
    status.finish(1.0, 1, "")
    status.retry_later(PlannedRetry("no result", "continues", 1.0, monotonic, wall))
    return status


def test_an_instance_with_a_free_slot_is_eligible() -> None:
    assert eligibility(pending(), (BUDGET,), NOW) == Eligible()


@pytest.mark.parametrize("state", [State.RUNNING, State.COMPLETED, State.FAILED])
def test_an_instance_that_runs_or_has_ended_is_not_considered(state: State) -> None:
    status = pending()
    status.state = state
    assert eligibility(status, (), NOW) is None


def test_without_a_free_slot_none_may_be_launched() -> None:
    assert eligibility(pending(), (), NOW._replace(free_slots=0)) == NotYet(None, for_all=True)


def test_the_startup_delay_holds_for_all() -> None:
    assert eligibility(pending(), (), NOW._replace(next_launch_at=102.5)) == NotYet(2.5, for_all=True)


def test_a_retry_waits_for_its_own_time() -> None:
    assert eligibility(retrying(monotonic=107.0), (), NOW) == NotYet(7.0)
    assert eligibility(retrying(monotonic=100.0), (), NOW) == Eligible()


def test_the_wall_clock_is_checked_again_within_half_a_minute() -> None:
    assert eligibility(retrying(wall=1_003_600.0), (), NOW) == NotYet(30.0)
    assert eligibility(retrying(wall=1_000_012.0), (), NOW) == NotYet(12.0)


def test_an_instance_queues_behind_an_earlier_one_that_waits_for_the_same_budget() -> None:
    other = Budget(1_000)
    assert eligibility(pending(), (BUDGET, other), NOW._replace(reserved=frozenset({other}))) == Queued()
    assert eligibility(pending(), (BUDGET,), NOW._replace(reserved=frozenset({other}))) == Eligible()
