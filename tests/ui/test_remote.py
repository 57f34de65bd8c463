"""A run of another process on the screen: what its status says is what the run itself would draw."""

from __future__ import annotations

import json
from typing import Any

import pytest

from claude_orchestrator.config.fields import DEFAULT_COLUMNS
from claude_orchestrator.config.plan import make_manager
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.activity import Activity, Doing
from claude_orchestrator.engine.control.past import past_status
from claude_orchestrator.engine.control.snapshot import Rows, RunMoment, Steering, budget_row, snapshot
from claude_orchestrator.engine.run_view import RunView
from claude_orchestrator.engine.snapshot import Snapshot, Snapshots
from claude_orchestrator.engine.state import InstanceStatus, State
from claude_orchestrator.ui.remote import budget_of, snapshot_of
from claude_orchestrator.ui.screen import ScreenStyle, screen
from tests.engine.test_resume import Journal, a_plan
from tests.ui.test_report import NOW, a_run
from tests.views import a_view
from token_budget import Usage
from token_budget.models import Budget, Scope, Unit
from token_budget.text import NANO, RenderOptions

STEERING = Steering("running", paused=False, max_parallel=4)


def there_and_back(view: RunView, now: float = 165.0) -> tuple[Snapshot, Snapshot]:
    """The run as its own process draws it, and as another one does."""
    ours = Snapshots(view).take(now)
    status = snapshot(view, Rows(view), STEERING, RunMoment(now, ours), list)
    return ours, snapshot_of(json.loads(json.dumps(status)))


def drawn(run: Snapshot) -> list[str]:
    return screen(run, RenderOptions(120), ScreenStyle(DEFAULT_COLUMNS, 40))


def test_a_run_looks_the_same_from_another_process() -> None:
    view = a_run("one", "two", "three")
    _, two, three = view.instances
    two.begin(110.0)
    two.attempt.next_turn()
    two.do(Activity("two", Doing.TOOL, "Bash: pytest -q", since=153.0))
    three.wait("overall budget: used 3,012 + estimate 1,000 > limit 3,500 tokens")
    ours, theirs = there_and_back(view)
    assert drawn(theirs) == drawn(ours) and any("Bash: pytest -q" in line for line in drawn(theirs))
    assert (theirs.run_id, theirs.rehearsal, theirs.seconds) == ("run-1", False, 65.0)
    assert theirs.usage == ours.usage and theirs.exact and theirs.nano_usd == 3 * NANO
    one = theirs.rows[0]
    assert (one.model, one.usage, one.attempts, one.turn, one.turns) == ("m", Usage(3_000, 12), 1, 1, 1)
    assert one.budgets == theirs.budgets  # the same budgets, not copies
    assert theirs.rows[1].model == "" and theirs.rows[1].doing_s == 12.0
    assert [row.state for row in theirs.rows] == [State.COMPLETED, State.RUNNING, State.WAITING]


def test_a_group_is_one_line() -> None:
    plan = a_plan(one="/a", two="/a", three="/a")
    plan = plan._replace(specs=tuple(spec._replace(group="g") for spec in plan.specs))
    instances = [InstanceStatus(spec) for spec in plan.specs]
    instances[0].take_over(State.COMPLETED, "")
    view = a_view(plan, instances, make_manager(plan, Settings()), NOW, 100.0)
    ours, theirs = there_and_back(view)
    assert theirs.groups == ours.groups and theirs.groups[0].figures() == "1/3 done"


@pytest.mark.parametrize(
    "budget",
    [
        Budget(200, scope=Scope.OVERALL, used=250),
        Budget(200, scope=Scope.INSTANCE, key="one", used=3),
        Budget(NANO // 3, key="/test", unit=Unit.USD, used=NANO // 7),
    ],
)
def test_a_budget_survives_to_the_last_unit(budget: Budget) -> None:
    budget.held = 11
    found = budget_of(json.loads(json.dumps(budget_row(budget))))
    assert (found.label, found.limit, found.used, found.held) == (budget.label, budget.limit, budget.used, 11)
    assert found.figures() == budget.figures()


def test_a_run_that_was_killed_has_a_screen() -> None:
    """An instance that was interrupted will not go on, so it counts as ended; its label says what happened."""
    journal, plan = Journal(), a_plan(one="/a", two="/a")
    journal.start(plan)
    assert journal.records[0] is not None
    journal.records[0]["run"] = "run-1"
    journal.attempt(InstanceStatus(plan.specs[0]), 500, ends=False)
    status = past_status(journal.records, "/runs/run-1")
    assert status is not None
    run = snapshot_of(status)
    one, two = run.rows
    assert (one.state, one.label, one.ended, one.exact) == (State.CANCELLED, "interrupted", True, False)
    assert two.state is State.PENDING and run.budgets == () and run.groups == ()
    assert any("interrupted" in line for line in drawn(run))


def test_states_and_budgets_that_a_later_version_adds_are_left_out() -> None:
    view = a_run("one")
    ours = Snapshots(view).take(165.0)
    status: dict[str, Any] = snapshot(view, Rows(view), STEERING, RunMoment(165.0, ours), list)
    status["instances"] = [{**status["instances"][0], "state": "dreaming", "budgets": ["overall", "of dreams"]}]
    status["groups"] = [{"name": "g", "states": {"dreaming": 2, "failed": 1}, "total_tokens": 5, "left_s": None}]
    run = snapshot_of(status)
    assert [budget.label for budget in run.rows[0].budgets] == ["overall"] and run.rows[0].ended
    assert run.groups[0].states == {State.FAILED: 1} and run.groups[0].total == 1
