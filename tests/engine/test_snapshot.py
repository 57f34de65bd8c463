"""A run at one moment: its pace, the time that is left, and what each instance does."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from claude_orchestrator.claude.events import ApiUsage, Retry
from claude_orchestrator.engine.activity import Activity, Doing
from claude_orchestrator.engine.attempt import AttemptTotals
from claude_orchestrator.engine.journal_history import EarlierInstance
from claude_orchestrator.engine.snapshot import Snapshots, TokenRate
from claude_orchestrator.engine.state import InstanceStatus, PlannedRetry, State
from claude_orchestrator.engine.time_left import time_left_s
from tests.ui.test_report import a_run
from token_budget import Usage
from token_budget.forecast import Forecast
from token_budget.models import Unit
from token_budget.portions import CACHE_KEEPING


def test_the_pace_is_that_of_the_last_minute() -> None:
    pace = TokenRate()
    assert pace.note(0.0, 1_000) is None
    assert pace.note(4.0, 2_000) is None
    assert pace.note(10.0, 2_000) == 6_000
    for second in range(11, 200):
        latest = pace.note(float(second), 2_000 + 100 * (second - 10))
    assert latest == pytest.approx(6_000)
    assert pace.note(300.0, 20_900) == pytest.approx(0.0)


FORECAST = Forecast(9, points=(900, 1_000, 2_000), below=(0.1, 0.5, 0.9), spread=0.3)


def used(*tokens: int, forecast: Forecast | None = FORECAST) -> list[tuple[InstanceStatus, int]]:
    """Instances that have used so many tokens: those with a negative number have completed with it."""
    forecasts: Mapping[Unit, Forecast] = {} if forecast is None else {Unit.TOKENS: forecast}
    found = []
    for count in tokens:
        status = InstanceStatus(a_run("one").plan.specs[0]._replace(forecasts=forecasts))
        if count:
            status.begin(0.0)
        if count < 0:
            status.finish(1.0, 0, "")
            status.take_over(State.COMPLETED, "")
        found.append((status, abs(count)))
    return found


@pytest.mark.parametrize(
    ("instances", "weight", "left_s"),
    [
        (used(0, 0, 0), 1.0, 60.0),  # three times the median
        (used(400, 0), 1.0, 32.0),
        (used(0), 2.0, 10.0),  # weighted tokens count double
        (used(-500, -900), 1.0, None),  # nothing is left
        (used(0, forecast=None), 1.0, None),
        (used(0, 100, -500, -500, -800, forecast=None), 1.0, (600 + 500) / 50),  # their mean
        (used(-500, -700, 0, forecast=Forecast(2)), 1.0, None),
        (used(0), 0.0, None),
    ],
)
def test_the_time_that_is_left(instances: list[tuple[InstanceStatus, int]], weight: float, left_s: float) -> None:
    assert time_left_s(instances, 3_000.0, weight) == (None if left_s is None else pytest.approx(left_s))
    assert time_left_s(instances, None, weight) is None


def test_a_group_of_unknown_size_leaves_the_time_unknown() -> None:
    (found,) = used(0)
    found[0].planned = found[0].planned._replace(grows=object())  # type: ignore[arg-type]
    assert time_left_s([found], 3_000.0, 1.0) is None


def test_what_instances_do() -> None:
    view = a_run("one", "two", "three", "four")
    _, two, three, four = view.instances
    two.begin(110.0)
    three.wait("overall budget: used 3,012 + estimate 1,000 > limit 3,500 tokens")
    four.begin(110.0)
    four.finish(111.0, 1, "no network")
    four.retry_later(PlannedRetry("no result", "continues at 16:00:01 (retry 1 of 2)", 1.0))
    rows = Snapshots(view).take(165.0).rows
    assert [row.doing for row in rows[:3]] == ["", "", "waits: overall budget"]
    assert rows[3].doing.startswith("continues at 16:00:01 (retry 1 of 2) after: exited with code 1")
    two.do(Activity("two", Doing.TOOL, "Bash: pytest -q", since=153.0))
    row = Snapshots(view).take(165.0).rows[1]
    assert (row.doing, row.doing_s, row.label, row.seconds) == ("Bash: pytest -q", 12.0, "running", 55.0)
    two.do(Activity("two", Doing.ANSWERING, since=153.0))
    assert Snapshots(view).take(165.0).rows[1].doing_s is None
    two.apply(Retry(1, "overloaded"))
    row = Snapshots(view).take(165.0).rows[1]
    assert row.label == "retrying" and row.doing == "the API refused a request, and claude tries again"


def test_the_sums_have_what_was_removed_from_the_config() -> None:
    view = a_run("one", "two")
    view.removed.append(EarlierInstance("gone", attempts=[AttemptTotals(Usage(10), exact=False, cost_nano_usd=7)]))
    run = Snapshots(view).take(165.0)
    assert run.usage.total_tokens == 3_022 and not run.exact and run.nano_usd == 7 + (run.rows[0].nano_usd or 0)
    assert run.rows[0].budget_percentage == pytest.approx(75.3) and run.states == {State.COMPLETED: 1, State.PENDING: 1}
    assert not run.over


def test_what_has_ended_is_not_computed_again() -> None:
    view = a_run("one", "two")
    snapshots = Snapshots(view)
    first, second = snapshots.take(165.0), snapshots.take(166.0)
    assert first.rows[0] is second.rows[0] and first.rows[1] is second.rows[1]
    view.instances[1].begin(166.0)
    assert snapshots.take(167.0).rows[1].seconds == 1.0
    view.instances[0].apply(ApiUsage("keeping", Usage(7, 1, 0, 9_000), whole=True, source=CACHE_KEEPING))
    view.instances[0].tally.metered = True
    view.instances[0].apply(ApiUsage("keeping", Usage(7, 2, 0, 9_000), whole=True, source=CACHE_KEEPING))
    assert snapshots.take(167.5).rows[0].usage != first.rows[0].usage
    view.instances[0].lose_race()
    assert snapshots.take(168.0).rows[0].unneeded


def test_a_run_without_instances() -> None:
    view = a_run("one")
    view.instances.clear()
    run = Snapshots(view).take(165.0)
    assert run.rows == () and run.usage == Usage() and run.over and run.left_s is None
