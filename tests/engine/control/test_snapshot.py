"""A run as JSON data, as control programs and pages read it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.plan import make_manager, make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.activity import Activity, Doing
from claude_orchestrator.engine.approvals import ToolQuestion
from claude_orchestrator.engine.attempt import AttemptTotals
from claude_orchestrator.engine.control.snapshot import (
    PROTOCOL,
    Rows,
    RunMoment,
    Steering,
    brief,
    budget_row,
    instance_row,
    snapshot,
)
from claude_orchestrator.engine.journal_history import EarlierInstance
from claude_orchestrator.engine.run_view import RunView
from claude_orchestrator.engine.snapshot import Snapshots
from claude_orchestrator.engine.state import InstanceStatus, State
from claude_orchestrator.engine.worktrees.changes import Changes, Worktree
from tests.ui.test_report import NOW, a_run
from tests.views import a_view
from token_budget import Usage
from token_budget.models import Budget, Scope, Unit
from token_budget.text import NANO

STEERING = Steering("running", paused=False, max_parallel=4, directory="/runs/run-1")
ASK = ToolQuestion("7", "two", "Bash", "Bash: rm x", {"command": "rm x"}, "deletes x", 10.0, 40.0)


def whole(view: RunView, now: float = 165.0, steering: Steering = STEERING) -> dict[str, Any]:
    moment = RunMoment(now, Snapshots(view).take(now))
    found: dict[str, Any] = json.loads(json.dumps(snapshot(view, Rows(view), steering, moment, list)))
    return found


def linked(*entries: dict[str, Any]) -> RunView:
    """A run of these entries, in which nothing has begun."""
    plan = make_plan(parse_config({"instances": list(entries)}, "x"), Settings(), workspace="/", claude_bin="claude")
    instances = [InstanceStatus(spec) for spec in plan.specs]
    return a_view(plan, instances, make_manager(plan, Settings()), NOW, 100.0, "run-1")


def test_a_run_says_what_it_is_and_what_it_has_used() -> None:
    found = whole(a_run("one", "two"), steering=STEERING._replace(paused=True, state="paused", approvals=(ASK,)))
    assert found["protocol"] == PROTOCOL
    assert found["run"] == {
        "id": "run-1",
        "state": "paused",
        "rehearsal": False,
        "directory": "/runs/run-1",
        "started_at": "2026-11-23T16:00:00.000+00:00",
        "seconds": 65.0,
        "mode": "warn",
        "meter": "stream",
        "paused": True,
        "max_parallel": 4,
        "approvals": 1,
    }
    totals = found["totals"]
    assert (totals["total_tokens"], totals["exact"], totals["instances"]) == (3_012, True, 2)
    assert totals["states"] == {"completed": 1, "pending": 1} and totals["cost_usd"] == 3.0
    assert found["approvals"] == [
        {
            "id": "7",
            "instance": "two",
            "tool": "Bash",
            "text": "Bash: rm x",
            "input": {"command": "rm x"},
            "description": "deletes x",
            "asked_at": 10.0,
            "until": 40.0,
        }
    ]


def test_a_brief_is_the_run_without_its_instances() -> None:
    view = a_run("one", "two")
    view.changes.rate_limits = {"five_hour": {"utilization": 12, "resets_at": "later"}, "week": {"utilization": 3}}
    found, short = whole(view), brief(view, STEERING, RunMoment(165.0, Snapshots(view).take(165.0)))
    assert short.items() <= found.items() and "instances" not in short
    assert short["rate_limits"] == [
        {"name": "five_hour", "used_percent": 12.0, "resets_at": "later"},
        {"name": "week", "used_percent": 3.0, "resets_at": None},
    ]


def test_what_waits_for_what_are_edges() -> None:
    view = linked(
        {"name": "a", "command": "/a"},
        {"name": "g", "prompt": "{{item}}", "for_each": ["x"]},
        {"name": "b", "command": "/b", "depends_on": ["a", "g"]},
    )
    assert whole(view)["edges"] == [["a", "b"], ["g", "b"]]
    assert whole(view)["totals"]["cost_usd"] is None


def test_what_was_removed_from_the_config_keeps_its_use() -> None:
    view = a_run("one")
    attempts = [AttemptTotals(Usage(10), exact=False)]
    view.removed.append(EarlierInstance("gone", state=State.FAILED, attempts=attempts))
    (gone,) = whole(view)["removed"]
    assert (gone["name"], gone["state"], gone["total_tokens"], gone["exact"]) == ("gone", "failed", 10, False)


def test_the_decisions_are_those_that_are_given() -> None:
    view = a_run("one")
    moment = RunMoment(165.0, Snapshots(view).take(165.0))
    found = snapshot(view, Rows(view), STEERING, moment, lambda: iter([{"kind": "crossed"}]))
    assert found["decisions"] == [{"kind": "crossed"}]


@pytest.mark.parametrize(
    ("budget", "row"),
    [
        (Budget(200, scope=Scope.OVERALL, used=50), {"label": "overall", "key": None, "unit": "tokens", "limit": 200}),
        (Budget(200, scope=Scope.OVERALL, used=50), {"used": 50, "percentage": 25.0, "exceeded": False}),
        (Budget(3, key="/test", used=4), {"label": "/test command", "scope": "command", "key": "/test"}),
        (Budget(3, key="/test", used=4), {"percentage": 133.33, "exceeded": True}),
        (
            Budget(2 * NANO, scope=Scope.INSTANCE, key="a", unit=Unit.USD, used=NANO // 2),
            {"label": "instance a cost", "unit": "USD", "limit": 2.0, "used": 0.5, "held": 0.0, "percentage": 25.0},
        ),
    ],
)
def test_a_budget_is_in_tokens_or_dollars(budget: Budget, row: dict[str, Any]) -> None:
    assert row.items() <= budget_row(budget).items()


def test_an_instance_that_has_ended() -> None:
    view = a_run("one", "two")
    one = view.instances[0]
    one.log_to("/runs/run-1/logs/one.jsonl")
    one.work_in(Worktree("orchestrator/run-1/one", "a" * 40, "/w/one", "/w/one"))
    changes = Changes("orchestrator/run-1/one", "a" * 40, "b" * 40, "/w/one", 1, 2, 3, "one.patch")
    one.keep_changes(changes)
    row = instance_row(one, view, 300.0)
    assert (row["state"], row["seconds"], row["attempts"], row["exit_code"]) == ("completed", 65.0, 1, 0)
    assert row["started_at"] == "2026-11-23T16:00:00.000+00:00" and row["ended_at"] == "2026-11-23T16:01:05.000+00:00"
    assert (row["cost_usd"], row["cost_nano_usd"]) == (3.0, 3 * NANO)
    assert row["budgets"] == ["overall", "/test command"] and row["models"] == ["m"]
    assert row["log"] == "one.jsonl" and row["branch"] == "orchestrator/run-1/one" and row["changes"] == changes.fields
    assert row["verified"] is None and row["result_file"] is None


def test_an_instance_that_has_not_begun() -> None:
    view = a_run("one", "two")
    row = instance_row(view.instances[1], view, 165.0)
    assert {key for key, value in row.items() if value is None} >= {
        "seconds",
        "started_at",
        "ended_at",
        "cost_nano_usd",
    }
    assert row["now"] == {"doing": None, "text": "", "seconds": None}
    assert (row["state"], row["turn"], row["turns"], row["attempts"]) == ("pending", 1, 1, 0)


def test_an_instance_at_work_says_what_it_does() -> None:
    view = a_run("one", "two")
    two = view.instances[1]
    two.begin(110.0)
    two.do(Activity("two", Doing.TOOL, "Bash: pytest", since=150.0))
    rows = Rows(view)
    row = rows.of(two, 165.0)
    assert row["now"] == {"doing": "tool", "text": "Bash: pytest", "seconds": 15.0}
    assert row["seconds"] == 55.0 and row["ended_at"] is None
    assert rows.of(two, 166.0)["seconds"] == 56.0


def test_a_row_that_rests_is_made_again_only_if_something_changes() -> None:
    view = a_run("one", "two")
    one, rows = view.instances[0], Rows(view)
    first = rows.of(one, 165.0)
    assert rows.of(one, 166.0) is first
    one.lose_race()
    again = rows.of(one, 167.0)
    assert again["unneeded"] and not first["unneeded"]
    one.keep_changes(None)
    assert rows.of(one, 168.0) is not again
