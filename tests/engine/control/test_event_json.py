"""What subscribers get of each event."""

from __future__ import annotations

import json
from typing import Any

import pytest

from claude_orchestrator.engine import run_events as happened
from claude_orchestrator.engine.activity import Activity, Doing
from claude_orchestrator.engine.control.event_json import event_json, kind_of
from claude_orchestrator.engine.in_flight import SentRequest
from claude_orchestrator.engine.results.answers import MAX_REPORTED_BYTES
from claude_orchestrator.engine.run_events import By, RunEvent
from claude_orchestrator.engine.state import State
from claude_orchestrator.engine.usage_delta import UsageDelta
from claude_orchestrator.engine.verification import CheckVerdict
from claude_orchestrator.engine.worktrees.changes import Changes
from tests.ui.test_report import a_run
from token_budget import Usage
from token_budget.models import Action, Amount, Budget, Hold, Scope

VIEW = a_run("one", "two")
ONE, TWO = VIEW.instances
BUDGET = VIEW.manager.budgets[0]
ROW = event_json(happened.AttemptEnded(ONE), VIEW, 165.0)["row"]
SENT = SentRequest(3, Hold((BUDGET,), Amount(10)), Usage(1, 2))
LABEL = BUDGET.label


def described(event: RunEvent, now: float = 165.0) -> dict[str, Any]:
    """The event as a subscriber reads it: it is JSON without any help of an encoder."""
    found: dict[str, Any] = json.loads(json.dumps(event_json(event, VIEW, now)))
    assert found.pop("kind") == kind_of(event)
    return found


def test_the_kind_of_an_event_is_its_name_in_words() -> None:
    assert kind_of(happened.RateLimitsRead({})) == "rate_limits_read"
    assert kind_of(happened.Crossed(BUDGET)) == "crossed"


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        (happened.Message(happened.Level.WARNING, "slow disk"), {"level": "WARNING", "text": "slow disk"}),
        (happened.StartsIn(5.0), {"seconds": 5.0}),
        (happened.RunEnded(1), {"exit_code": 1}),
        (happened.RunStopping("the time is over"), {"reason": "the time is over"}),
        (happened.Paced(None), {"text": None}),
        (happened.TurnEnded("one", 2), {"instance": "one", "done": 2}),
        (happened.SessionNamed("one", "s", "/w"), {"instance": "one", "session_id": "s", "folder": "/w"}),
        (happened.HoldChanged("one", "grew", 50), {"instance": "one", "text": "grew", "more_tokens": 50}),
        (happened.RateLimitsRead({"five_hour": {"utilization": 3}}), {"limits": {"five_hour": {"utilization": 3}}}),
        (happened.AlertRaised("80 %", {"budget": "overall"}, True), {"text": "80 %", "alert": {"budget": "overall"}}),
        (
            happened.Steered("pause", "run", "pause of launches", By("web", "kim", "lunch")),
            {
                "action": "pause",
                "target": "run",
                "text": "pause of launches",
                "by": {"via": "web", "user": "kim", "why": "lunch"},
            },
        ),
        (
            happened.Decided("two", Action.BLOCK, "no room", BUDGET),
            {"instance": "two", "action": "block", "reason": "no room", "budget": LABEL},
        ),
        (
            happened.Decided("two", Action.WAIT, "no slot"),
            {"instance": "two", "action": "wait", "reason": "no slot", "budget": None},
        ),
        (
            happened.Stopping("two", State.STOPPED, "over", BUDGET, 7),
            {"instance": "two", "state": "stopped", "reason": "over", "budget": LABEL},
        ),
        (happened.ModelChosen("two", "haiku", BUDGET), {"instance": "two", "model": "haiku", "budget": LABEL}),
        (happened.RequestSent(ONE, SENT), {"instance": "one", "attempt": 1, "request": 3}),
        (happened.RequestSettled(ONE, SENT), {"instance": "one", "attempt": 1, "request": 3}),
        (
            happened.RequestTimed("one", "opus", 200, 0.5, 2.5),
            {"instance": "one", "model": "opus", "status": 200, "first_byte_s": 0.5, "seconds": 2.5},
        ),
    ],
    ids=lambda value: None if isinstance(value, dict) else type(value).__name__,
)
def test_an_event_has_the_fields_of_its_kind(event: RunEvent, fields: dict[str, Any]) -> None:
    assert described(event) == fields


def test_an_activity_says_for_how_long() -> None:
    event = Activity("one", Doing.TOOL, "Bash: pytest", 2, since=160.0)
    row = {"doing": "tool", "text": "Bash: pytest", "seconds": 5.0}
    assert described(event) == {"instance": "one", "turn": 2, "now": row}
    assert described(event, now=150.0)["now"]["seconds"] == 0.0


def test_a_verdict_has_its_output() -> None:
    event = happened.Checked("one", 2, CheckVerdict(False, "exit code 1", "1 failed"), simulated=True)
    assert described(event) == {
        "instance": "one",
        "round": 2,
        "simulated": True,
        "passed": False,
        "fault": "exit code 1",
        "output": "1 failed",
    }


def test_a_long_answer_is_cut() -> None:
    short = {"instance": "one", "turn": 1, "turns": 2, "text": "done", "cut": False, "structured": False}
    assert described(happened.Answered("one", 1, 2, "done")) == short
    long = described(happened.Answered("one", 2, 2, "x" * (MAX_REPORTED_BYTES + 1), {"a": 1}))
    assert (len(long["text"]), long["cut"], long["structured"]) == (MAX_REPORTED_BYTES, True, True)


def test_changes_are_those_of_reports() -> None:
    changes = Changes("orchestrator/r/one", "a" * 40, "b" * 40, None, 1, 2, 3, "one.patch")
    assert described(happened.ChangesKept("one", changes)) == {"instance": "one", "changes": changes.fields}
    assert described(happened.ChangesKept("one", None)) == {"instance": "one", "changes": None}


@pytest.mark.parametrize(
    ("event", "more"),
    [
        (happened.Launched(ONE, Hold((), Amount())), {}),
        (happened.AttemptEnded(ONE), {}),
        (happened.Reopened(ONE), {}),
        (happened.InstanceEnded(ONE, launched=True), {"launched": True}),
        (happened.RetryPlanned(ONE, 2, "overloaded", 3.5), {"attempt": 2, "cause": "overloaded", "wait_s": 3.5}),
    ],
    ids=kind_of,
)
def test_an_event_of_a_state_has_the_row(event: RunEvent, more: dict[str, Any]) -> None:
    assert described(event) == {"instance": "one", **more, "row": ROW}


def test_usage_comes_with_its_budgets() -> None:
    found = described(happened.UsageRecorded(ONE, UsageDelta(Amount(5), {})))
    assert found["instance"] == "one" and found["models"] == ["m"] and found["cost_usd"] == ONE.cost_usd
    assert found["usage"]["total_tokens"] == 3_012 and found["usage"]["exact"]
    assert [(one["label"], one["used"]) for one in found["budgets"]] == [("overall", 3_012), ("/test command", 3_012)]


def test_a_group_that_has_grown_brings_the_rows_of_its_members() -> None:
    found = described(happened.Expanded("g", (happened.Member("two", "/test", "digest", "g"),)))
    assert found["group"] == "g" and [row["name"] for row in found["rows"]] == ["two"]


def test_budgets_are_rows() -> None:
    budget = Budget(100, scope=Scope.INSTANCE, key="one", used=120)
    row = described(happened.Crossed(budget))["budget"]
    assert (row["label"], row["used"], row["limit"], row["exceeded"]) == ("instance one", 120, 100, True)
    assert described(happened.Foreseen(budget, 40)) == {"budget": row, "tokens": 40}
    assert [one["label"] for one in described(happened.RoomChanged())["budgets"]] == ["overall", "/test command"]
