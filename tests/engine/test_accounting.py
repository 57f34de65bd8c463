"""The real claude against the stand-in API: what is counted is what was billed."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.engine.state import State
from claude_orchestrator.engine.supervisor import Supervisor
from tests.harness import Outcome, run_real
from tests.stand_in import Call, Entry, Fail, Reply, Script, StandIn, Text, Tools
from token_budget import Usage

pytestmark = pytest.mark.real_cli

TOOL_THEN_TEXT: list[Reply] = [Tools((Call.bash("echo hi"),)), Text()]
SUBAGENT: Script = {
    "delegate": [Tools((Call.agent("SUBWORK please", run_in_background=False),)), Text("parent done")],
    "SUBWORK": [Tools((Call.bash("echo sub"),), output=500), Text("sub done", output=600)],
}


def config(*prompts: str, **extra: Any) -> dict[str, Any]:
    """A config with an instance for each prompt, with every permission."""
    return {
        "instances": [
            {"name": f"i{n}", "command": prompt, "permission_mode": "bypassPermissions", **extra}
            for n, prompt in enumerate(prompts)
        ]
    }


def total(outcome: Outcome) -> Usage:
    usage = Usage()
    for status in outcome.instances:
        usage += status.usage
    return usage


EXACT: dict[str, tuple[Script, dict[str, Any]]] = {
    "main thread": ({"greet": TOOL_THEN_TEXT}, config("greet me")),
    "several tools in a response": (
        {"greet": [Tools((Call.bash("echo 1"), Call.bash("echo 2"), Call.bash("echo 3")), text="three:"), Text()]},
        config("greet me"),
    ),
    "subagent": (SUBAGENT, config("please delegate")),
    "background subagent": (
        {
            **SUBAGENT,
            "delegate": [
                Tools((Call.agent("SUBWORK please", run_in_background=True),)),
                Text("started"),
                Text("all done"),
            ],
        },
        config("please delegate"),
    ),
    "subagent of another model": (
        {**SUBAGENT, "delegate": [Tools((Call.agent("SUBWORK", model="haiku", run_in_background=False),)), Text()]},
        config("please delegate"),
    ),
    "two turns": (
        {"alpha work": TOOL_THEN_TEXT, "omega work": [Text()]},
        config("omega work", pre_commands=["alpha work"]),
    ),
    "compaction": (
        {"alpha work": TOOL_THEN_TEXT, "summary of": [Text("a summary", output=900)], "omega work": [Text()]},
        config("omega work", pre_commands=["alpha work", "/compact"]),
    ),
    "clear between": (
        {"alpha work": TOOL_THEN_TEXT, "omega work": [Text()]},
        config("omega work", pre_commands=["alpha work", "/clear"]),
    ),
    "retries": ({"greet": [Text(fail_first=(529, 500))]}, config("greet me")),
    "rate limit with retry-after": ({"greet": [Text(fail_first=(429,), retry_after_s=1)]}, config("greet me")),
    "stopped by max_tokens": ({"greet": [Text(stop_reason="max_tokens"), Text()]}, config("greet me")),
    "four at once": ({"greet": TOOL_THEN_TEXT, **SUBAGENT}, config("greet 1", "greet 2", "please delegate", "greet 3")),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_total_is_what_was_billed(name: str, claude: str, tmp_path: Path) -> None:
    script, setup = EXACT[name]
    with StandIn(script) as api:
        outcome = run_real(setup, api, claude, tmp_path)
        assert [status.state for status in outcome.instances] == [State.COMPLETED] * len(outcome.instances)
        assert total(outcome) == api.billed()
        assert all(status.tally.exact for status in outcome.instances)
        assert outcome.manager.total_usage == api.billed().total_tokens


def assert_about(counted: Usage, billed: Usage, *, output_slack: int) -> None:
    """Input and cache counts to the token, output at least what was streamed and not much more."""
    assert counted - Usage(output_tokens=counted.output_tokens) == billed - Usage(output_tokens=billed.output_tokens)
    assert billed.output_tokens <= counted.output_tokens <= billed.output_tokens + output_slack


@pytest.mark.parametrize("drop", ["start", "text", "block"])
def test_dropped_connection(drop: str, claude: str, tmp_path: Path) -> None:
    with StandIn({"greet": [Text("partial words here", drop=drop)]}) as api:
        outcome = run_real(config("greet me"), api, claude, tmp_path)
        assert_about(outcome.only.usage, api.billed(), output_slack=10)
    assert not outcome.only.tally.exact


def test_dropped_after_a_whole_tool_call(claude: str, tmp_path: Path) -> None:
    with StandIn({"greet": [Tools((Call.bash("echo ran"),), drop="block"), Text()]}) as api:
        outcome = run_real(config("greet me"), api, claude, tmp_path)
        assert_about(outcome.only.usage, api.billed(), output_slack=30)
    assert not outcome.only.tally.exact


WORDS = "some words of a long answer that is streamed slowly and will not be read to its end by anyone"


def test_budget_stop_in_mid_stream(claude: str, tmp_path: Path) -> None:
    """The second response's start passes the budget; its text waits for a gate that never opens."""
    gate = threading.Event()
    with StandIn({"greet": [Tools((Call.bash("echo hi"),)), Text(WORDS, gate=gate, output=500)]}) as api:
        outcome = run_real(
            config("greet me"), api, claude, tmp_path, overall_token_budget=4000, budget_enforcement_mode="block"
        )
        # words that were on their way when the connection was cut are billed and never seen
        seen = outcome.only.usage | Usage(output_tokens=api.billed().output_tokens)
        assert_about(seen, api.billed(), output_slack=25)
        assert len(api.entries) == 2 and not api.entries[1].finished
    status = outcome.only
    assert status.state is State.STOPPED and "overall budget" in status.reason
    assert not status.tally.exact and status.session_id
    assert outcome.manager.overall is not None and outcome.manager.overall.held == 0


@pytest.mark.slow
def test_stop_in_mid_text_counts_what_was_streamed(claude: str, tmp_path: Path) -> None:
    with StandIn({"greet": [Text(WORDS, gate=threading.Event(), output=500)]}) as api:
        outcome = run_real(config("greet me", timeout_s=20), api, claude, tmp_path)
        assert_about(outcome.only.usage, api.billed(), output_slack=25)
    assert outcome.only.state is State.TIMED_OUT and not outcome.only.tally.exact


def test_budget_stop_in_mid_tool_ends_the_tool(claude: str, tmp_path: Path) -> None:
    marker = tmp_path / "started"
    script: Script = {"greet": [Tools((Call.bash(f"touch {marker}; exec sleep 3600"),), output=5000), Text()]}
    with StandIn(script) as api:
        outcome = run_real(
            config("greet me"), api, claude, tmp_path, overall_token_budget=4000, budget_enforcement_mode="block"
        )
        assert outcome.only.usage == api.billed()
    assert outcome.only.state is State.STOPPED


def test_resumed_session_is_not_charged_twice(claude: str, tmp_path: Path) -> None:
    with StandIn({"alpha work": TOOL_THEN_TEXT, "omega work": TOOL_THEN_TEXT}) as api:
        first = run_real(config("alpha work"), api, claude, tmp_path).only
        before = api.billed()
        assert first.usage == before
        second = run_real(config("omega work", session_id=first.session_id), api, claude, tmp_path).only
        assert second.usage == api.billed() - before
    assert second.tally.exact and second.session_id == first.session_id


def test_unknown_command_fails(claude: str, tmp_path: Path) -> None:
    with StandIn() as api:
        outcome = run_real(config("/nope now"), api, claude, tmp_path)
        assert len(api.entries) <= 1
    assert outcome.only.state is State.FAILED and outcome.only.reason.startswith("Unknown command: /nope")


def test_api_error_fails(claude: str, tmp_path: Path) -> None:
    with StandIn({"greet": [Fail(400)]}) as api:
        outcome = run_real(config("greet me"), api, claude, tmp_path)
    assert outcome.only.state is State.FAILED and "400" in outcome.only.reason


def test_denied_permission_is_listed(claude: str, tmp_path: Path) -> None:
    setup = config("greet me")
    del setup["instances"][0]["permission_mode"]
    with StandIn({"greet": [Tools((Call.bash("touch here; rm -rf there"),)), Text()]}) as api:
        outcome = run_real(setup, api, claude, tmp_path)
    assert outcome.only.state is State.COMPLETED
    assert outcome.only.permission_denials == ["Bash"]


def test_slash_command_of_the_workspace(claude: str, tmp_path: Path) -> None:
    commands = tmp_path / "workspace" / ".claude" / "commands"
    commands.mkdir(parents=True)
    (commands / "check.md").write_text("Do the MAGENTA check with $ARGUMENTS")
    with StandIn({"MAGENTA check with --all": TOOL_THEN_TEXT}) as api:
        outcome = run_real(config("/check --all"), api, claude, tmp_path)
        assert [entry.marker for entry in api.entries] == ["MAGENTA check with --all"] * 2
    assert outcome.only.state is State.COMPLETED and outcome.only.usage.total_tokens > 0


@pytest.mark.parametrize("name", ["main thread", "subagent", "background subagent", "two turns"])
def test_live_total_is_within_one_unfinished_response(name: str, claude: str, tmp_path: Path) -> None:
    """At every response, before it goes on: what has been finished and billed until then is counted."""
    script, setup = EXACT[name]
    counted: list[tuple[int, int]] = []
    with StandIn(script) as api:

        def watch(supervisor: Supervisor) -> None:
            live["total"] = sum(status.total_tokens for status in supervisor.instances)

        def at_response(entry: Entry) -> None:
            """Wait until the tally has caught up with all that is finished, or note that it does not."""
            finished = sum(e.billed.total_tokens for e in api.entries if e.finished)
            deadline = time.monotonic() + 20.0
            while live["total"] < finished and time.monotonic() < deadline:
                time.sleep(0.005)
            counted.append((live["total"], finished))

        live = {"total": 0}
        api.before_text = at_response
        outcome = run_real(setup, api, claude, tmp_path, on_change=watch)
        assert total(outcome) == api.billed()
    assert len(counted) == len(api.entries)
    assert [n for n, (seen, finished) in enumerate(counted) if seen < finished] == []
