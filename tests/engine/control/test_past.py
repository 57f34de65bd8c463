"""A run that nobody runs any more, from its journal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from claude_orchestrator.engine import run_events as happened
from claude_orchestrator.engine.control.past import past_status
from claude_orchestrator.engine.control.snapshot import PROTOCOL
from claude_orchestrator.engine.run_events import By
from claude_orchestrator.engine.state import InstanceStatus, State
from claude_orchestrator.engine.verification import CheckVerdict
from claude_orchestrator.engine.worktrees.changes import Changes
from tests.engine.test_resume import Journal, a_plan
from token_budget.ledger.run_budgets import budgets_data
from token_budget.models import Budget, Scope, Unit, Weights
from token_budget.text import NANO


def status_of(journal: Journal, **more: Any) -> dict[str, Any]:
    found = past_status(journal.records, "/runs/run-1", **more)
    assert found is not None
    shown: dict[str, Any] = json.loads(json.dumps(found))
    return shown


def begun(**commands: str) -> tuple[Journal, list[InstanceStatus]]:
    """The journal of a run of these instances, and the instances."""
    journal, plan = Journal(), a_plan(**commands)
    journal.start(plan)
    assert journal.records[0] is not None
    journal.records[0]["run"] = "run-1"
    return journal, [InstanceStatus(spec) for spec in plan.specs]


def test_a_journal_without_a_beginning_is_no_run() -> None:
    assert past_status([], "/") is None
    assert past_status([None], "/") is None


def test_a_run_that_has_ended() -> None:
    journal, (one,) = begun(one="/a")
    journal.attempt(one, 500)
    journal.write(happened.CacheReported(("Prompt cache: 9% was read.",)), at=12.0)
    assert journal.records[0] is not None
    journal.records[0]["not_stored"] = ["--cluster", "auto"]
    assert status_of(journal)["run"]["resume_with"] == "--cluster auto"
    journal.write(happened.RunEnded(1, raised=("--overall-token-budget", "5k")), at=12.5)
    assert status_of(journal)["run"]["resume_with"] == "--cluster auto --overall-token-budget 5k"
    journal.write(happened.RunEnded(0), at=13.0)
    found = status_of(journal, result_of=lambda name: f"results/{name}.md")
    run, totals, (row,) = found["run"], found["totals"], found["instances"]
    assert found["protocol"] == PROTOCOL and found["damaged_lines"] == 0
    assert (run["id"], run["state"], run["exit_code"], run["seconds"]) == ("run-1", "ended", 0, 13.0)
    assert found["prompt_cache"] == ["Prompt cache: 9% was read."]
    assert run["directory"] == "/runs/run-1" and not run["rehearsal"]
    assert (totals["total_tokens"], totals["exact"], totals["states"]) == (500, True, {"completed": 1})
    assert (totals["cost_usd"], totals["cost_nano_usd"]) == (0.499, 0.499 * NANO)
    assert (row["name"], row["state"], row["label"], row["attempts"]) == ("one", "completed", "completed", 1)
    assert (row["seconds"], row["turn"], row["turns"], row["models"]) == (2.0, 1, 1, ["m"])
    assert row["session_id"] == "s" and row["result_file"] == "results/one.md" and row["log"] is None


def test_a_run_that_was_killed_is_interrupted() -> None:
    journal, (one, _) = begun(one="/a;/b", two="/a")
    journal.attempt(one, 500, ends=False)
    found = status_of(journal)
    assert (found["run"]["state"], found["run"]["exit_code"], found["run"]["seconds"]) == ("interrupted", None, 11.5)
    assert found["totals"]["states"] == {"interrupted": 1, "pending": 1} and not found["totals"]["exact"]
    one_row, two_row = found["instances"]
    assert (one_row["usage"]["total_tokens"], one_row["attempts"], one_row["result_file"]) == (500, 1, None)
    assert (two_row["seconds"], two_row["turns"], two_row["cost_nano_usd"]) == (None, 1, None)


def test_a_group_that_has_grown_is_its_instances() -> None:
    journal, _ = begun(plan="/a", fix="/b")
    assert [row["name"] for row in status_of(journal)["instances"]] == ["plan", "fix"]
    journal.write(happened.Expanded("fix", (happened.Member("fix[a]", "/b", "", "fix"),)))
    found = status_of(journal)
    assert [row["name"] for row in found["instances"]] == ["plan", "fix[a]"] and found["totals"]["instances"] == 2


def test_a_run_that_is_resumed_and_killed_has_not_ended() -> None:
    journal, _ = begun(one="/a")
    journal.add("finish", exit_code=1)
    assert status_of(journal)["run"]["exit_code"] == 1
    journal.start(a_plan(one="/a"), number=2)
    assert journal.records[-1] is not None
    journal.records[-1]["run"] = "run-1"
    assert status_of(journal)["run"]["state"] == "interrupted"


def test_the_time_between_two_starts_does_not_count() -> None:
    journal = Journal()
    for at, kind in ((100.0, "run"), (130.0, "finish"), (5_000.0, "run"), (5_010.0, "finish")):
        journal.add(kind, at=at, run="run-1", number=1, instances=[], exit_code=0)
    assert status_of(journal)["run"]["seconds"] == 40.0


def test_a_clock_that_is_set_back_takes_no_time_away() -> None:
    journal = Journal()
    for at, kind in ((100.0, "run"), (130.0, "turn"), (20.0, "finish")):
        journal.add(kind, at=at, run="run-1", number=1, instances=[], exit_code=0)
    assert status_of(journal)["run"]["seconds"] == 30.0


def test_what_was_decided_has_its_kind_and_its_time() -> None:
    journal, (one,) = begun(one="/a")
    journal.write(happened.Stopping("one", State.STOPPED, "over"), at=5.0)
    journal.write(happened.Steered("pause", "run", "pause of launches", By("web", "kim")), at=6.0)
    journal.write(happened.RetryPlanned(one, 2, None, 1.5), at=7.0)
    journal.write(happened.TurnEnded("one", 1), at=8.0)
    stop, steer, retry = status_of(journal)["decisions"]
    assert stop == {"at": 5.0, "kind": "stopping", "instance": "one", "state": "stopped", "reason": "over"}
    assert (steer["kind"], steer["action"], steer["user"]) == ("steered", "pause", "kim")
    assert (retry["kind"], retry["wait_s"]) == ("retry_planned", 1.5)


def test_a_copy_of_a_line_is_one_decision() -> None:
    journal, _ = begun(one="/a")
    journal.write(happened.Stopping("one", State.STOPPED, "over"), at=5.0)
    journal.records.append(journal.records[-1])
    assert len(status_of(journal)["decisions"]) == 1


def test_a_record_without_a_number_is_damaged() -> None:
    journal, _ = begun(one="/a")
    journal.write(happened.Stopping("one", State.STOPPED, "over"), at=5.0)
    assert journal.records[-1] is not None
    del journal.records[-1]["n"]
    found = status_of(journal)
    assert found["decisions"] == [] and found["damaged_lines"] == 1


def test_damaged_lines_are_counted() -> None:
    journal, (one,) = begun(one="/a")
    journal.attempt(one, 500)
    journal.records[1] = None
    assert status_of(journal)["damaged_lines"] == 1


def test_a_row_has_what_was_checked_changed_and_used() -> None:
    journal, (one,) = begun(one="/a")
    one.log_to("C:\\runs\\logs\\one.jsonl")
    one.tools.update({"Bash": 2, "Edit": 1})
    one.permission_denials.append("Write")
    journal.attempt(one, 500)
    changes = Changes("orchestrator/run-1/one", "a" * 40, "b" * 40, None, 1, 2, 3, "one.patch")
    journal.write(happened.ChangesKept("one", changes))
    journal.write(happened.Checked("one", 2, CheckVerdict(False, "exit code 1", "1 failed")))
    (row,) = status_of(journal)["instances"]
    assert (row["verified"], row["check_rounds"], row["changes"]) == (False, 2, changes.fields)
    assert (row["log"], row["tools"], row["tool_calls"]) == ("one.jsonl", {"Bash": 2, "Edit": 1}, 3)
    assert row["permission_denials"] == ["Write"]


BUDGETS = [
    Budget(1_000, scope=Scope.OVERALL),
    Budget(9_000, scope=Scope.DAILY, used=7_000),
    Budget(400, scope=Scope.COMMAND, key="/a"),
    Budget(2 * NANO, scope=Scope.OVERALL, unit=Unit.USD),
]


def figures(journal: Journal) -> dict[str, tuple[float, float]]:
    """What the page shows of each budget: used and limit."""
    rows = status_of(journal)["budgets"]
    return {f"{row['label']} {row['unit']}": (row["used"], row["limit"]) for row in rows}


def limited() -> tuple[Journal, list[InstanceStatus]]:
    """A run with these budgets."""
    journal, statuses = begun(one="/a", two="/b")
    assert journal.records[0] is not None
    journal.records[0] |= budgets_data(BUDGETS, Weights())
    return journal, statuses


def test_budgets_of_a_run_that_has_ended_are_those_at_its_end() -> None:
    journal, (one, _) = limited()
    journal.attempt(one, 500)
    ended = [Budget(2_000, scope=Scope.OVERALL, used=500), Budget(9_000, scope=Scope.DAILY, used=7_500)]
    journal.write(happened.RunEnded(0, tuple(ended)), at=13.0)
    assert figures(journal) == {"overall tokens": (500, 2_000), "daily tokens": (7_500, 9_000)}
    assert status_of(journal)["instances"][0]["budgets"] == ["overall", "daily"]


def test_budgets_of_a_run_that_was_killed_have_what_it_has_used() -> None:
    journal, (one, two) = limited()
    journal.attempt(one, 500, ends=False)
    journal.attempt(two, 100)
    assert figures(journal) == {
        "overall tokens": (600, 1_000),
        "/a command tokens": (500, 400),
        "overall cost USD": (pytest.approx(0.099), 2.0),
    }  # what all runs had used of the daily budget is not known


def test_a_journal_of_an_earlier_version_has_no_budgets() -> None:
    journal, (one,) = begun(one="/a")
    journal.attempt(one, 500)
    assert figures(journal) == {}
    assert journal.records[0] is not None
    journal.records[0]["budgets"] = [{"scope": "future", "limit": 5}, {"scope": "overall", "limit": "x"}, 7]
    assert figures(journal) == {}


def test_the_graph_has_what_waited_for_what() -> None:
    journal, _ = begun(one="/a", two="/b", each="/c")
    assert journal.records[0] is not None
    journal.records[0]["instances"][1]["depends_on"] = ["one"]
    journal.records[0]["instances"][2]["depends_on"] = ["two"]
    journal.write(happened.Expanded("each", (happened.Member("each[x]", "/c", "d", "each"),)))
    found = status_of(journal)
    assert found["edges"] == [["one", "two"], ["two", "each"], ["two", "each[x]"]]
    assert found["instances"][1]["depends_on"] == ["one"]
