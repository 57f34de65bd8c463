"""Graphs through the program: rehearsed, resumed, and with results that are gone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.harness import ROOT, Workplace
from token_budget.ledger.sqlite import SqliteLedger


def states(place: Workplace) -> dict[str, str]:
    return {one["name"]: one["status"] for one in place.report()["instances"]}


def rehearse(place: Workplace, *args: str) -> Any:
    return place.run("--rehearse", "--disable-budget-visuals", "--report", "report.json", *args)


def graph(**budget: object) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"files": {"type": "array", "items": {"type": "string"}}}}
    steps = [
        {"name": "plan", "prompt": "x", "json_schema": schema},
        {"name": "fix", "prompt": "Fix {{item}}", "for_each": {"result_of": "plan", "path": "files"}},
        {"name": "end", "prompt": "End {{results.fix}}", "depends_on": ["fix"]},
    ]
    return {"instances": steps, "rehearsal": {"seconds": 0.01}, "budget": budget}


def test_the_example_is_rehearsed(place: Workplace) -> None:
    done = rehearse(place, "--config", str(ROOT / "configs" / "map-reduce.json"), "--results", "lines.jsonl")
    assert done.returncode == 0, done.stderr
    members = {"review[rehearsed-1]": "completed", "review[rehearsed-2]": "completed"}
    assert states(place) == {"plan": "completed", **members, "sum-up": "completed", "explain": "skipped"}
    sum_up = next(one for one in place.report()["instances"] if one["name"] == "sum-up")
    assert sum_up["result"].startswith('Rehearsed: These are reviews of single files as JSON: [{"item":"rehearsed-1"')
    rows = [json.loads(line) for line in (place.root / "lines.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows if row["name"] == "explain"] == ["skipped"]


def test_a_resume_repeats_nothing_and_expands_the_same(place: Workplace) -> None:
    config = place.config(graph(command_budgets={"end": 10}, enforcement_mode="block"))
    assert rehearse(place, "--config", config).returncode == 1
    first = states(place)
    assert first == {
        "plan": "completed",
        "fix[rehearsed-1]": "completed",
        "fix[rehearsed-2]": "completed",
        "end": "blocked",
    }
    before = {one["name"]: one["usage"] for one in place.report()["instances"]}
    done = rehearse(place, "--resume", "last", "--command-budget", "end=5000")
    assert done.returncode == 0 and states(place) == {**first, "end": "completed"}
    assert "3 of 4 instances had completed" in done.stderr
    after = {one["name"]: one for one in place.report()["instances"]}
    assert all(after[name]["usage"] == before[name] and after[name]["attempts"] == 1 for name in first if name != "end")
    assert after["end"]["result"].startswith('Rehearsed: End [{"item":"rehearsed-1","status":"completed"')
    assert place.report()["removed_instances"] == []


@pytest.mark.parametrize("name", ["plan.json", "*"])
def test_a_result_that_is_gone_is_one_clear_line(place: Workplace, name: str) -> None:
    config = place.config(graph(command_budgets={"end": 10}, enforcement_mode="block"))
    assert rehearse(place, "--config", config).returncode == 1
    used = place.report()["totals"]["total_tokens"]
    (run,) = (place.root / "out").iterdir()
    for path in (run / "results").glob(name):
        path.unlink()
    done = rehearse(place, "--resume", "last")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    said = "fix: failed: cannot be expanded: plan has no structured output: it is missing: run it again in a new run"
    assert said in done.stdout and states(place) == {"plan": "completed", "fix": "failed", "end": "skipped"}
    assert place.report()["totals"]["total_tokens"] == used
    assert {one["name"] for one in place.report()["removed_instances"]} == {"fix[rehearsed-1]", "fix[rehearsed-2]"}


def test_what_was_skipped_gets_another_chance(place: Workplace) -> None:
    steps = [{"name": "a", "prompt": "x"}, {"name": "b", "prompt": "y {{results.a}}", "depends_on": ["a"]}]
    budget = {"command_budgets": {"a": 10}, "enforcement_mode": "block"}
    config = place.config({"instances": steps, "rehearsal": {"seconds": 0.01}, "budget": budget})
    done = rehearse(place, "--config", config, "--junit", "junit.xml", "--ledger", str(place.root / "ledger.db"))
    assert done.returncode == 1 and states(place) == {"a": "blocked", "b": "skipped"}
    assert "b: skipped: a was blocked" in done.stdout
    assert '<skipped message="skipped: a was blocked">' in (place.root / "junit.xml").read_text()
    assert [(note.kind, note.instance, note.text) for note in SqliteLedger(place.root / "ledger.db").notes()] == [
        ("skipped", "b", "a was blocked")
    ]
    assert rehearse(place, "--resume", "last", "--command-budget", "a=9000").returncode == 0


def test_faults_of_a_graph_are_config_errors(place: Workplace) -> None:
    steps = [{"name": "a", "prompt": "x", "depends_on": ["b"]}, {"name": "b", "prompt": "x", "depends_on": ["a"]}]
    done = place.run("--config", place.config({"instances": steps}), "--dry-run")
    assert done.returncode == 2 and "a cycle: a -> b -> a" in done.stderr
