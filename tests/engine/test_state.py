"""How events change an instance's state."""

from __future__ import annotations

import json
from typing import Any

import pytest

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.claude.failures import failure
from claude_orchestrator.claude.stream import parse
from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.plan import make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.state import InstanceStatus, State
from tests.claude.test_tally import INIT, final, line, result, start
from token_budget.models import Usage


def an_instance(*turns: str) -> InstanceStatus:
    entry = {"name": "one", "command": turns[-1], "pre_commands": list(turns[:-1])}
    plan = make_plan(parse_config({"instances": [entry]}, "x"), Settings(), workspace="/", claude_bin="claude")
    status = InstanceStatus(plan.specs[0])
    status.begin(0.0)
    status.attempt.next_turn()
    return status


def feed(status: InstanceStatus, *lines: bytes) -> None:
    for event in parse(b"".join(one + b"\n" for one in lines)):
        status.apply(event)


def a_result(**fields: Any) -> bytes:
    return line({**json.loads(result(5, 1)), **fields})


FOLLOW_UP = a_result(origin={"kind": "task-notification"})


def test_a_follow_up_result_does_not_end_our_turn() -> None:
    status = an_instance("/a", "/b")
    feed(status, INIT, start("a", 5), final(1), result(5, 1))
    assert not status.attempt.turn_running
    status.attempt.next_turn()
    feed(status, start("b", 5), final(1), FOLLOW_UP)
    assert status.attempt.turn_running
    feed(status, start("c", 5), final(1), result(15, 3))
    assert status.attempt.idle and status.attempt.all_sent


def test_every_session_that_was_counted_is_known() -> None:
    """A `/clear` begins another session; the gateway sees that of a claude that a tool has started."""
    status = an_instance("/a", "/b")
    for session in ("s1", "s2"):
        feed(status, line({**json.loads(INIT), "session_id": session}))
    status.apply(ApiUsage("x", Usage(1), whole=True, session_id="s3"))
    status.apply(ApiUsage("y", Usage(1), whole=True))
    assert list(status.attempt.sessions) == ["s1", "s2", "s3"] and status.session_id == "s2"


def test_one_result_for_our_turn_and_its_follow_up() -> None:
    status = an_instance("/a")
    feed(status, INIT, start("a", 5), final(1), start("b", 5), final(1), FOLLOW_UP)
    assert status.attempt.idle


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, None),
        ({"is_error": True, "result": "API Error: 400"}, "API Error: 400"),
        (
            {"subtype": "error_max_turns", "is_error": True, "terminal_reason": "max_turns"},
            "error_max_turns, max_turns",
        ),
        ({"num_turns": 0, "result": "Unknown command: /x"}, "Unknown command: /x"),
        ({"num_turns": 1, "result": "Unknown command: /x is what the log says"}, None),
        (
            {"num_turns": 0, "result": "/help isn't available in this environment."},
            "/help isn't available in this environment.",
        ),
        ({"is_error": True}, "the result is an error"),
    ],
)
def test_judged_by_the_result(fields: dict[str, Any], reason: str | None) -> None:
    status = an_instance("/a")
    feed(status, INIT, start("a", 5), final(1), a_result(**fields))
    assert status.attempt.last_result is not None and failure(status.attempt.last_result) == reason
    status.finish(1.0, 0, "")
    assert (status.state, status.reason) == ((State.FAILED, reason) if reason else (State.COMPLETED, ""))


def test_the_first_cause_of_an_ending_wins() -> None:
    status = an_instance("/a")
    assert status.decide_end(State.STOPPED, "stopped by budget")
    assert not status.decide_end(State.CANCELLED, "cancelled")
    feed(status, INIT, start("a", 5), final(1), result(5, 1))
    status.finish(1.0, 0, "")
    assert (status.state, status.reason) == (State.STOPPED, "stopped by budget")


def test_tools_are_counted_once_by_id() -> None:
    status = an_instance("/a")
    block = {"type": "tool_use", "id": "t1", "name": "Bash", "input": {}}
    message = line({"type": "assistant", "message": {"id": "a", "usage": {}, "content": [block]}})
    feed(status, INIT, message, message)
    assert (status.tool_calls, dict(status.tools)) == (1, {"Bash": 1})


def test_a_command_that_the_session_does_not_list() -> None:
    init = line({"type": "system", "subtype": "init", "session_id": "s", "slash_commands": ["test", "git:sync"]})
    for command, unknown in (
        ("/test x", None),
        ("/git:sync", None),
        ("/tset", "/tset"),
        ("/tmp/x y", None),
        ("hi", None),
    ):
        status = an_instance(command)
        feed(status, init)
        assert status.attempt.unknown_command == unknown


def test_costs_are_divided_by_model_where_claude_does_so() -> None:
    status = an_instance("/a")
    counts = {"inputTokens": 5, "outputTokens": 1}
    model_usage = {"opus": {**counts, "costUSD": 0.25}, "haiku": {**counts, "costUSD": 0.5}}
    feed(status, INIT, a_result(modelUsage=model_usage, total_cost_usd=0.75))
    assert status.attempt.costs.by_model == {"opus": 250_000_000, "haiku": 500_000_000}
    assert status.attempt.costs.nano_usd == 750_000_000
    feed(status, a_result(modelUsage={"opus": counts, "haiku": counts}, total_cost_usd=1.0))
    assert status.attempt.costs.by_model == {"opus": 1_000_000_000}


def init(*commands: str) -> bytes:
    return line({**json.loads(INIT), "slash_commands": commands})


def task(subtype: str, **fields: Any) -> bytes:
    return line({"type": "system", "subtype": subtype, "task_id": "b1", **fields})


def test_a_command_that_called_no_model_has_failed() -> None:
    """Its inline shell was denied, say: claude reports success and has done nothing."""
    nothing = a_result(num_turns=0, result="", modelUsage={})
    status = an_instance("/state")
    feed(status, init("state", "clear"), nothing)
    status.finish(1.0, 0, "")
    assert status.state is State.FAILED and status.reason.startswith("/state did nothing: the model was not called")
    denied = an_instance("/state")
    feed(denied, init("state"), a_result(num_turns=0, result="Shell command permission check failed"))
    assert denied.attempt.turn_failed is not None and denied.attempt.turn_failed.endswith(
        "(Shell command permission check failed)"
    )
    for prompt in ("/clear", "/gone", "plain text", "/etc/hosts"):  # what claude does itself, does not list, or reads
        other = an_instance(prompt)
        feed(other, init("state", "clear"), nothing)
        assert other.attempt.turn_failed is None


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("/gone a", "/gone"),
        ("/state", None),
        ("/state; more", None),
        ("/état", None),
        ("/etc/hosts", None),
        ("a", None),
    ],
)
def test_a_word_that_is_no_command_name_is_text_and_not_an_unknown_command(prompt: str, unknown: str | None) -> None:
    status = an_instance(prompt)
    feed(status, init("state"))
    assert status.attempt.unknown_command == unknown


def test_a_turn_waits_for_what_works_in_the_background() -> None:
    status = an_instance("/a")
    feed(status, init("a"), task("task_started", task_type="local_bash"), start("a", 5), final(1), result(5, 1))
    assert not status.attempt.turn_running and not status.attempt.idle
    feed(status, task("task_notification", status="completed"))
    assert status.attempt.idle
    late = a_result(result="about the background command", origin={"kind": "task-notification"})
    feed(status, start("b", 5), final(1), late)
    assert status.attempt.idle and status.attempt.last_result is not None and status.attempt.last_result.text == ""
    again = an_instance("/a")
    feed(again, task("task_started", task_type="local_bash"), result(5, 1))
    feed(again, line({"type": "system", "subtype": "background_tasks_changed", "tasks": []}))
    assert again.attempt.idle


@pytest.mark.parametrize("reason", ["aborted_streaming", "aborted_tools"])
def test_an_interruption_from_outside_is_named(reason: str) -> None:
    ended = an_instance("/a")
    fields = {"subtype": "error_during_execution", "is_error": True, "errors": ["[ede_diagnostic] result_type=user"]}
    feed(ended, INIT, start("a", 5), a_result(terminal_reason=reason, **fields))
    ended.finish(1.0, 0, "")
    assert (ended.state, ended.reason) == (State.FAILED, "ended by SIGINT from outside")
    stopped = an_instance("/a")
    feed(stopped, INIT)
    assert stopped.decide_end(State.STOPPED, "stopped by budget")
    feed(stopped, a_result(terminal_reason=reason, **fields))
    stopped.finish(1.0, 0, "")
    assert (stopped.state, stopped.reason) == (State.STOPPED, "stopped by budget")
    silent = an_instance("/a")
    silent.finish(1.0, -2, "")
    assert silent.reason == "ended by SIGINT from outside"
