"""What a person can change of a run, on rehearsals in processes of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.engine.control.client import AnsweredError, ControlClient
from tests.engine.control.rehearsals import Rehearsal, instances, rehearsal, until

pytestmark = pytest.mark.processes


def rows(client: ControlClient) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in client.call("status")["instances"]}


def states(client: ControlClient) -> dict[str, str]:
    return {name: row["state"] for name, row in rows(client).items()}


def become(client: ControlClient, **wanted: str) -> None:
    until(lambda: states(client).items() >= wanted.items())


def steered(run: Rehearsal) -> list[dict[str, Any]]:
    return [record for record in run.journal() if record["kind"] == "steer"]


def test_an_instance_is_stopped_with_a_reason_and_the_others_continue(tmp_path: Path) -> None:
    config = instances("one", "two", "three")
    config["instances"][2]["depends_on"] = ["one"]
    with rehearsal(tmp_path, config) as run, run.connect() as client:
        become(client, one="running", two="running", three="pending")
        assert client.call("stop", names=["one"], why="wrong branch") == {"stopping": ["one"]}
        become(client, one="stopped", two="running", three="skipped")
        assert (
            rows(client)["one"]["reason"] == "stopped by root: wrong branch"
            or "wrong branch" in (rows(client)["one"]["reason"])
        )
        (record,) = steered(run)
        assert (record["action"], record["target"], record["via"], record["why"]) == (
            "stop",
            "one",
            "socket",
            "wrong branch",
        )
        client.call("stop_run", at_once=True)
        code, output = run.wait()
    assert code == 1
    assert "stop of one" in output


def test_a_group_and_a_pending_instance_are_stopped(tmp_path: Path) -> None:
    config = instances("one", "later")
    config["instances"].append({"name": "g", "prompt": "{{item}}", "for_each": ["x", "y"]})
    config["instances"][1]["depends_on"] = ["one"]
    with rehearsal(tmp_path, config) as run, run.connect() as client:
        become(client, one="running", **{"g[x]": "running", "g[y]": "running"})
        assert sorted(client.call("stop", names=["g", "later"])["stopping"]) == ["g[x]", "g[y]", "later"]
        become(client, **{"g[x]": "stopped", "g[y]": "stopped"}, later="stopped", one="running")


def test_a_pause_keeps_instances_from_starting_until_it_ends(tmp_path: Path) -> None:
    config = instances("one", "two", seconds=600)
    with rehearsal(tmp_path, config, "--max-parallel", "1") as run, run.connect() as client:
        become(client, one="running", two="pending")
        client.call("pause")
        assert client.call("status", brief=True)["run"]["state"] == "paused"
        client.call("stop", names=["one"])
        become(client, one="stopped")
        assert states(client)["two"] == "pending"
        client.call("resume")
        become(client, two="running")
        with pytest.raises(AnsweredError, match="launches are not paused"):
            client.call("resume")


def test_more_slots_start_more_instances(tmp_path: Path) -> None:
    with (
        rehearsal(tmp_path, instances("one", "two", "three"), "--max-parallel", "1") as run,
        run.connect() as client,
    ):
        become(client, one="running", two="pending", three="pending")
        assert client.call("set_max_parallel", number="2") == {"max_parallel": 2}
        become(client, two="running", three="pending")


def test_a_higher_limit_lets_waiting_and_blocked_instances_start(tmp_path: Path) -> None:
    config = instances("one", "waits", "blocked", "after", budget={"enforcement_mode": "block"})
    config["instances"][2]["max_tokens_per_command"] = 5000
    config["instances"][3]["depends_on"] = ["blocked"]
    options = ("--overall-token-budget", "1500", "--hold-policy", "off")
    with rehearsal(tmp_path, config, *options) as run, run.connect() as client:
        become(client, one="running", waits="waiting", blocked="blocked", after="skipped")
        budget = client.call("set_limit", budget="overall", limit="20k", why="more work")
        assert (budget["limit"], budget["used"]) == (20_000, budget["used"])
        become(client, one="running", waits="running", blocked="running", after="pending")
        (record,) = steered(run)
        assert record["reason"] == "limit of the overall budget: 1,500 is now 20,000"


def test_a_limit_below_what_is_used_stops_as_a_crossing(tmp_path: Path) -> None:
    config = instances("one", tokens=100_000, budget={"enforcement_mode": "block"})
    with rehearsal(tmp_path, config, "--overall-token-budget", "200k") as run, run.connect() as client:
        until(lambda: client.call("status", brief=True)["budgets"][0]["used"] > 10)
        client.call("set_limit", budget="overall", limit=10)
        code, output = run.wait()
    assert code == 1
    assert any(record["kind"] == "crossing" and record["limit"] == 10 for record in run.journal())
    assert "stopped by budget: overall budget" in output


@pytest.mark.parametrize(
    ("method", "params", "text"),
    [
        ("stop", {"names": []}, "name an instance or a group"),
        ("stop", {"names": ["on"]}, "no instance or group is called 'on'; nearest: one"),
        ("stop", {"names": ["one", "no"]}, "no instance or group is called 'no'"),
        ("stop", {"names": 7}, "names: expected a list of names"),
        ("stop_run", {"at_once": "yes"}, "at_once: expected true or false"),
        ("set_limit", {"budget": "nope", "limit": 1}, "no budget is called 'nope'; the run has: overall, instance one"),
        ("set_limit", {"budget": "overall", "limit": "many"}, "overall: expected a positive whole number"),
        ("set_limit", {"budget": "overall", "limit": 0}, "overall: expected a positive whole number"),
        ("set_limit", {"budget": "overall"}, "overall: expected a positive whole number"),
        ("set_limit", {"budget": 7, "limit": 1}, "budget: expected a text"),
        ("set_max_parallel", {"number": 0}, "parallel: expected a positive whole number"),
        ("set_max_parallel", {"number": 1.5}, "parallel: expected a positive whole number"),
        ("approve", {"ids": ["1"]}, "approve: no tool waits for approval under 1"),
        ("approve", {"ids": ["all"]}, "approve: no tool waits for approval"),
        ("deny", {"ids": []}, "deny: no tool waits for approval"),
        ("pause", {"why": "x" * 2000}, "why: expected a text of at most 1,000 characters"),
        ("explode", {}, "there is no method 'explode'"),
    ],
)
def test_what_is_not_possible_changes_nothing(shared: Rehearsal, method: str, params: Any, text: str) -> None:
    with shared.connect() as client:
        before = client.call("status", brief=True)
        with pytest.raises(AnsweredError) as error:
            client.call(method, **params)
        after = client.call("status", brief=True)
    assert text in str(error.value)
    assert steered(shared) == []
    assert [one["limit"] for one in before["budgets"]] == [one["limit"] for one in after["budgets"]]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run that no test changes."""
    with rehearsal(tmp_path_factory.mktemp("shared"), instances("one"), "--overall-token-budget", "5k") as run:
        yield run


def test_a_run_that_waits_for_its_start_is_seen_and_stopped(tmp_path: Path) -> None:
    with rehearsal(tmp_path, instances("one"), "--start-at", "1h") as run, run.connect() as client:
        assert client.call("status", brief=True)["run"]["state"] == "waiting"
        client.call("stop_run", why="too late")
        code, output = run.wait()
    assert code == 1
    assert "one: cancelled: cancelled by" in output


def test_a_run_without_control_has_no_socket(tmp_path: Path) -> None:
    with rehearsal(tmp_path, instances("one", seconds=0.05), "--no-control") as run:
        assert run.wait()[0] == 0
        assert not (run.directory / "control.sock").exists()
        assert "finish" in [record["kind"] for record in run.journal()]


def test_a_tool_is_approved_or_denied_once_by_whoever_is_first(tmp_path: Path) -> None:
    with (
        rehearsal(tmp_path, instances("one", "two", "three", seconds=1.0), "--approvals", "ask") as run,
        run.connect() as client,
    ):
        until(lambda: len(client.call("approvals")) == 3)
        one, two, three = client.call("approvals")
        assert (one["tool"], one["text"], one["input"]) == ("Bash", "Bash: npm test", {"command": "npm test"})
        assert one["until"] - one["asked_at"] == 600
        assert rows(client)["one"]["now"]["text"] == "waits for approval"
        assert client.call("approve", ids=[one["id"]]) == {"approved": [one["id"]]}
        with pytest.raises(AnsweredError, match="no tool waits for approval under 1"):
            client.call("approve", ids=[one["id"]])
        assert client.call("deny", ids=[two["id"]], message="no") == {"denied": [two["id"]]}
        assert client.call("approve", ids=["all"], always=True) == {"approved": [three["id"]]}
        code, output = run.wait()
    assert code == 0
    answers = [record for record in run.journal() if record["kind"] == "answer"]
    assert [(one["outcome"], one["via"]) for one in answers] == [
        ("allowed", "socket"),
        ("denied", "socket"),
        ("allowed", "socket"),
    ]
    command = f"claude-runs --output-dir {run.runs} approve {run.directory.name} 1"
    assert f"asks for approval 1: Bash: npm test ({command})" in output


def test_approvals_without_a_socket_are_refused_before_anything_starts(tmp_path: Path) -> None:
    with rehearsal(tmp_path, instances("one"), "--approvals", "ask", "--no-control") as run:
        code, output = run.wait()
    assert code == 2
    assert output.startswith("ERROR: --no-control: one asks for approvals")
