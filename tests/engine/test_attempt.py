"""An attempt's turns, counts and judgement; and an instance's totals over its attempts."""

from __future__ import annotations

from typing import Any

import pytest

from claude_orchestrator.claude.events import RateLimit, Result, Retry
from claude_orchestrator.claude.stream import parse
from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.launch_spec import CONTINUE_PROMPT
from claude_orchestrator.config.plan import make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.attempt import AttemptTotals, cost_of, last_words
from claude_orchestrator.engine.state import InstanceStatus, PlannedRetry, State
from tests.claude.test_tally import INIT, final, line, result, start
from tests.engine.test_state import a_result, an_instance, feed
from token_budget import Usage

RETRY = PlannedRetry("server_error", "continues at 16:00:01", 1.0, not_before=51.0, counts=True)


def interrupted() -> InstanceStatus:
    """An instance of two turns that ended after the first one, 2.0 s after its launch."""
    status = an_instance("/a", "/b")
    feed(status, INIT, start("a", 5), final(1), result(5, 1))
    status.attempt.next_turn()
    status.finish(2.0, -9, "")
    return status


def test_the_next_attempt_continues_the_session_and_totals_are_of_both() -> None:
    status = interrupted()
    assert status.attempt.turns_completed == 1
    status.retry_later(RETRY)
    assert status.state is State.WAITING and status.not_before == 51.0 and status.retries_used == 1
    assert status.reason.startswith("continues at 16:00:01 after: ") and status.failed_before in status.reason
    assert status.spec.turns == (CONTINUE_PROMPT,) and status.session_id == "s"
    assert (status.attempts, status.launched, status.seconds(99.0)) == (1, True, 2.0)
    status.begin(60.0)
    assert (status.attempts, status.seconds(63.5), status.failed_before) == (2, 5.5, "")
    feed(status, INIT, start("b", 7), final(1))
    status.finish(64.0, 0, "")
    assert status.seconds(99.0) == 6.0 and status.usage == Usage(12, 2) and status.models == ("m",)


def test_an_attempt_that_did_no_work_is_repeated_from_the_start() -> None:
    status = an_instance("/a", "/b")
    feed(status, INIT)
    status.finish(2.0, -9, "")
    status.retry_later(RETRY)
    assert status.spec == status.planned and status.session_id is None


def test_a_session_begun_afresh_forgets_the_turns_that_were_done() -> None:
    status = interrupted()
    status.prepare_retry(afresh=True)
    assert status.spec.turns == ("/a", "/b") and status.session_id is None and status.attempts == 1


def test_what_an_instance_did_survives_a_restart() -> None:
    status = an_instance("/a")
    block: dict[str, Any] = {"type": "tool_use", "id": "t1", "name": "Bash", "input": {}}
    denial = {"tool_name": "Write", "tool_use_id": "t2", "tool_input": {}}
    message = {"type": "assistant", "message": {"id": "a", "usage": {}, "content": [block]}}
    feed(status, INIT, line(message), b"{broken", a_result(permission_denials=[denial]))
    status.log_to("logs/one.jsonl")
    again = InstanceStatus(status.planned)
    again.restore_done(status.done)
    assert again.done == status.done and again.tool_calls == 1
    assert (again.permission_denials, again.bad_lines, again.log) == (["Write"], 1, "logs/one.jsonl")


def test_the_same_tool_call_counts_once_over_all_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("claude_orchestrator.engine.state.MAX_TOOL_IDS", 1)
    status = an_instance("/a")
    for tool_id in ("t1", "t2", "t1"):
        block: dict[str, Any] = {"type": "tool_use", "id": tool_id, "name": "Bash", "input": {}}
        feed(status, line({"type": "assistant", "message": {"id": "a", "usage": {}, "content": [block]}}))
    assert status.tools == {"Bash": 2}


def test_an_attempt_is_retrying_until_the_next_event() -> None:
    status = an_instance("/a")
    status.apply(Retry(1, "overloaded"))
    assert status.attempt.retrying
    feed(status, INIT)
    assert not status.attempt.retrying


def test_a_rate_limit_that_refuses_is_remembered_until_it_is_lifted() -> None:
    status = an_instance("/a")
    status.apply(RateLimit(refuses=True, resets_at=500))
    assert status.attempt.limit_resets_at == 500
    status.apply(RateLimit(refuses=False, resets_at=500))
    assert status.attempt.limit_resets_at is None


@pytest.mark.parametrize(
    ("turns", "stderr", "reason"),
    [
        (("/a",), "", "exited with code 3 and without a result"),
        (("/a", "/b"), "", "exited with code 3 and without a result for turn 1 of 2"),
        (("/a",), "one\ntwo\n", "exited with code 3 and without a result: one | two"),
    ],
)
def test_an_exit_without_a_result_is_a_failure(turns: tuple[str, ...], stderr: str, reason: str) -> None:
    status = an_instance(*turns)
    feed(status, INIT)
    status.finish(1.0, 3, stderr)
    assert (status.state, status.reason) == (State.FAILED, reason)


def test_secrets_are_hidden_in_the_reason() -> None:
    status = an_instance("/a")
    status.finish(1.0, 3, "the key is hunter22", lambda text: text.replace("hunter22", "***"))
    assert status.reason.endswith("the key is ***")


def test_a_hook_may_stop_the_work() -> None:
    status = an_instance("/a")
    feed(status, INIT, start("a", 5), final(1), a_result(terminal_reason="hook_stopped"))
    status.finish(1.0, 0, "")
    assert (status.state, status.reason) == (State.COMPLETED, "a hook stopped it")


def test_only_the_last_lines_of_standard_error_are_kept() -> None:
    assert last_words("\n".join("abcdefgh")) == "c | d | e | f | g | h"
    assert len(last_words("x" * 10_000)) == 4_096 and last_words("") == ""


def test_states_without_a_launch() -> None:
    status = InstanceStatus(an_instance("/a").planned)
    status.wait("no room")
    assert (status.state, status.reason, status.ended, status.seconds(5.0)) == (State.WAITING, "no room", False, 0.0)
    status.skip(State.BLOCKED, "spent")
    assert status.ended and status.ending and not status.launched
    assert not status.decide_end(State.CANCELLED, "cancelled")


def test_silence_after_the_work_is_no_stall() -> None:
    done = an_instance("/a")
    feed(done, INIT, start("a", 5), final(1), result(5, 1))
    done.note_silence()
    assert not done.attempt.stalled
    at_work = an_instance("/a")
    at_work.note_silence()
    assert at_work.attempt.stalled


def test_the_cost_of_attempts_is_unknown_only_if_each_is() -> None:
    assert cost_of([AttemptTotals(), AttemptTotals()]) is None
    assert cost_of([AttemptTotals(cost_usd=0.5), AttemptTotals(), AttemptTotals(cost_usd=0.25)]) == 0.75


def test_an_answer_by_schema_must_have_its_form() -> None:
    entry = {"name": "one", "command": "/a", "json_schema": {"type": "object", "properties": {"a": {"type": "string"}}}}
    plan = make_plan(parse_config({"instances": [entry]}, "x"), Settings(), workspace="/", claude_bin="claude")
    for output, state in (({"a": "b"}, State.COMPLETED), (None, State.FAILED)):
        status = InstanceStatus(plan.specs[0])
        status.begin(0.0)
        status.attempt.next_turn()
        ending = a_result(structured_output=output)
        feed(status, INIT, start("a", 5), final(1), ending)
        (event,) = parse(ending + b"\n")
        assert isinstance(event, Result) and status.attempt.is_answer(event) is (output is not None)
        assert status.attempt.turn_number == 1
        status.finish(1.0, 0, "")
        assert status.state is state
        assert (status.reason == "") is (state is State.COMPLETED), status.reason


def test_what_the_orchestrator_ended_is_not_interrupted_from_outside() -> None:
    for stops, reason in ((False, "ended by SIGINT from outside"), (True, "without a result")):
        status = an_instance("/a")
        feed(status, INIT)
        if stops:
            status.attempt.note_stop()
        status.finish(1.0, -2, "")
        assert status.state is State.FAILED and reason in status.reason


def test_a_result_that_was_lost_is_noticed_by_the_number_of_the_next_one() -> None:
    status = an_instance("/a", "/b")
    feed(status, INIT, start("a", 5), final(1), a_result(result_index=0))
    assert status.attempt.lost_results == 0
    status.attempt.next_turn()
    follow_up = {"origin": {"kind": "task-notification"}}
    feed(status, start("b", 5), final(1), a_result(result_index=3, **follow_up))
    assert status.attempt.lost_results == 2
    assert status.attempt.idle  # the lost one had ended the turn
    feed(status, a_result(result_index=1), a_result(result_index=3), a_result(), a_result(result_index=4))
    assert status.attempt.lost_results == 2


@pytest.mark.parametrize("number", [None, -1, True, 1.5, "7", 10**9])
def test_an_odd_number_of_a_result_is_none(number: object) -> None:
    status = an_instance("/a")
    feed(status, INIT, start("a", 5), final(1), a_result(result_index=number))
    assert status.attempt.lost_results == 0


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-27T16:00:00.000Z", 1_795_795_200.0),
        ("2026-11-27T17:00:00+01:00", 1_795_795_200.0),
        ("2026-11-27T16:00:00", None),
        ("soon", None),
        (17, None),
        ("9" * 300, None),
        ("0001-01-01T00:00:00+23:00", -62_135_679_600.0),
    ],
)
def test_when_the_login_ends(text: object, at: float | None) -> None:
    (found,) = parse(a_result(credential_expires_at=text) + b"\n")
    assert isinstance(found, Result) and found.signed_in_until == at


def test_a_refused_start_is_the_reason_of_the_failure() -> None:
    status = an_instance("/a")
    refused = {"subtype": "error_during_execution", "is_error": True, "num_turns": 0, "modelUsage": {}}
    fault = {"startup_failure_reason": "proxy_invalid", "errors": ["HTTPS_PROXY is no URL.\nMend it."]}
    feed(status, a_result(**refused, **fault))
    status.finish(1.0, 1, "HTTPS_PROXY is no URL.")
    assert status.reason == "claude did not start (proxy_invalid): HTTPS_PROXY is no URL. Mend it."
