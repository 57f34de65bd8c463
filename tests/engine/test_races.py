"""Races: several attempts at once, of which the first that is verified wins."""

from __future__ import annotations

import json
from typing import Any

import pytest

from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.racing import expand_races
from claude_orchestrator.errors import UserError
from tests.faults.graph_kills import FILES
from tests.faults.test_graph_kills import STEP_CLAUDE
from tests.harness import Workplace
from tests.repositories import sh

CHECK = {"command": "true"}


def race(**fields: Any) -> dict[str, Any]:
    return {"name": "fix", "prompt": "x", "race": 3, "check": CHECK, **fields}


@pytest.fixture
def repo(place: Workplace) -> Workplace:
    sh(place.workspace, "git init -q; echo one > a.txt; git add .; git commit -qm first")
    return place


def test_attempts_have_names_and_worktrees_of_their_own() -> None:
    config = expand_races(parse_config({"instances": [race(), race(name="b", race=2, worktree="t")]}, "x"))
    assert [(one.name, one.worktree, one.group, one.race_of) for one in config.instances] == [
        *((f"fix#{number}", True, "fix", "fix") for number in (1, 2, 3)),
        *((f"b#{number}", f"t#{number}", "b", "b") for number in (1, 2)),
    ]


def test_a_group_whose_items_are_not_known_stays_one_entry_with_a_worktree() -> None:
    plan = {"name": "plan", "prompt": "x", "json_schema": {"type": "object"}}
    config = parse_config({"instances": [plan, race(for_each={"result_of": "plan", "path": "files"})]}, "x")
    entries = expand_races(config).instances
    assert [(one.name, one.race, one.worktree) for one in entries] == [("plan", 1, False), ("fix", 3, True)]
    (alone,) = expand_races(config._replace(instances=config.instances[:1])).instances
    assert alone.name == "plan"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"check": None}, "fix.race: it needs a check, which decides who wins"),
        ({"session_id": "0f0e0d0c-0000-4000-8000-000000000001"}, "several attempts cannot continue one session"),
    ],
)
def test_faults(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError) as error:
        expand_races(parse_config({"instances": [race(**fields)]}, "x"))
    assert why in error.value.lines[0]
    with pytest.raises(UserError, match="two instances have the name"):
        expand_races(parse_config({"instances": [race(), {"name": "fix#1", "prompt": "x"}]}, "x"))


def test_the_first_that_is_verified_wins(repo: Workplace) -> None:
    """One fails before, one is stopped in its check, and the tokens of all count."""
    fails = '[ -e "$FAKE_DIR/second" ] || { touch "$FAKE_DIR/second"; exit 1; }'
    wins = f'{fails}; mkdir "$FAKE_DIR/won" 2>/dev/null && echo won > won || exec sleep 600'
    config = repo.config({"instances": [race(check={"command": wins, "rounds": 1})]})
    args = ("--report", "report.json", "--junit", "junit.xml", "--grace", "0.2")
    done = repo.run("--config", config, *args)
    assert done.returncode == 0, done.stdout
    entries = repo.report()["instances"]
    states = sorted(entry["status"] for entry in entries)
    assert states in (["completed", "failed", "stopped"], ["completed", "stopped", "stopped"])
    (winner,) = [entry for entry in entries if entry["status"] == "completed"]
    assert winner["verified"] and winner["changes"]["files"] == 1
    assert all(f"{winner['name']} was verified first" == one["reason"] for one in entries if one["status"] == "stopped")
    assert repo.report()["totals"]["total_tokens"] == sum(one["usage"]["total_tokens"] for one in entries)
    junit = (repo.root / "junit.xml").read_text()
    assert 'failures="0"' in junit and 'errors="0"' in junit and 'skipped="2"' in junit
    again = repo.run("--resume", "last", "--report", "report.json")
    assert again.returncode == 0 and repo.report()["totals"]["total_tokens"] == sum(
        one["usage"]["total_tokens"] for one in entries
    )
    applied = repo.run("--apply", "last")
    assert applied.returncode == 0 and (repo.workspace / "won").exists()


def test_a_race_that_nobody_wins_fails(repo: Workplace) -> None:
    config = repo.config({"instances": [race(check={"command": "false", "rounds": 1}), {"name": "b", "prompt": "x"}]})
    done = repo.run("--config", config, "--report", "report.json")
    assert done.returncode == 1
    assert [entry["status"] for entry in repo.report()["instances"]] == ["failed"] * 3 + ["completed"]


def test_attempts_that_have_not_begun_are_not_needed(repo: Workplace) -> None:
    after = {"name": "after", "prompt": "y", "depends_on": ["fix"]}
    config = repo.config({"instances": [race(), after]})
    done = repo.run("--config", config, "--max-parallel", "1", "--results", "results.jsonl")
    assert done.returncode == 0, done.stdout
    lines = [json.loads(line) for line in (repo.root / "results.jsonl").read_text().splitlines()]
    assert {line["name"]: line["status"] for line in lines} == {
        "fix#1": "completed", "fix#2": "stopped", "fix#3": "stopped", "after": "completed",
    }  # fmt: skip


def test_items_of_a_result_race(repo: Workplace) -> None:
    """Each item of a list that another instance has found; a resumed run has nothing left to do."""
    schema = {"type": "object"}
    plan = {"name": "plan", "prompt": "STEP-plan", "json_schema": schema}
    wins = "mkdir $FAKE_DIR/{{item}} 2>/dev/null && echo {{item}} > new-{{item}} || exec sleep 600"
    fix = race(
        prompt="STEP-fix-{{item}}",
        race=2,
        for_each={"result_of": "plan", "path": "files"},
        check={"command": wins, "rounds": 1},
    )
    end = {"name": "end", "prompt": "STEP-end {{results.fix}}", "depends_on": ["fix"]}
    config = repo.config({"instances": [plan, fix, end]})
    args = ("--report", "report.json", "--grace", "0.2", "--max-parallel", "4", "--command-budget", "fix=1M")
    repo.env["WORK_LOG"] = str(repo.root / "work.log")
    done = repo.run("--config", config, *args, claude=str(STEP_CLAUDE))
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in repo.report()["instances"]}
    assert list(rows) == ["plan", *(f"fix[{item}]#{number}" for item in FILES for number in (1, 2)), "end"]
    for item in FILES:
        won = [row for number in (1, 2) if (row := rows[f"fix[{item}]#{number}"])["status"] == "completed"]
        assert len(won) == 1 and won[0]["changes"]["files"] == 1 and won[0]["group"] == "fix"
    again = repo.run("--resume", "last", "--report", "report.json", claude=str(STEP_CLAUDE))
    assert again.returncode == 0
    assert {name: row["status"] for name, row in rows.items()} == {
        row["name"]: row["status"] for row in repo.report()["instances"]
    }
    assert repo.run("--apply", "last").returncode == 0
    assert sorted(path.name for path in repo.workspace.glob("new-*")) == [f"new-{item}" for item in FILES]


def test_a_race_over_a_result_is_checked_before_the_start(place: Workplace) -> None:
    plan = {"name": "plan", "prompt": "x", "json_schema": {"type": "object"}}
    fix = race(prompt="{{item}}", for_each={"result_of": "plan", "path": "files"})
    done = place.run("--config", place.config({"instances": [plan, fix]}), "--dry-run")
    assert done.returncode == 2 and "not a git repository" in done.stderr
