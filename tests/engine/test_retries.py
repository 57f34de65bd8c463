"""Which failures are retried, and when."""

from __future__ import annotations

import errno
from datetime import datetime
from typing import Any

import pytest

from claude_orchestrator.claude.events import RateLimit
from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.launch_spec import InterruptedSession, continued
from claude_orchestrator.config.plan import make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.retries import backoff_s, passing_cause, plan_retry, reset_wait_s
from claude_orchestrator.engine.run_context import Clock
from claude_orchestrator.engine.state import InstanceStatus, State
from tests.claude.test_tally import INIT, line, start
from tests.engine.test_state import a_result, feed

NOW = datetime(2026, 11, 23, 16, 0).timestamp()
CLOCK = Clock(monotonic=lambda: 50.0, wall=lambda: NOW, jitter=lambda: 0.5)
WAITS, DOES_NOT_WAIT = Settings(wait_for_reset=True), Settings(wait_for_reset=False)


def an_instance(retries: int = 2) -> InstanceStatus:
    config = parse_config({"instances": [{"name": "one", "command": "/a", "retries": retries}]}, "x")
    status = InstanceStatus(make_plan(config, Settings(), workspace="/", claude_bin="claude").specs[0])
    status.begin(0.0)
    status.attempt.next_turn()
    return status


def failed(*lines: bytes, exit_code: int = 1, retries: int = 2) -> InstanceStatus:
    """An instance that has printed these lines and left."""
    status = an_instance(retries)
    feed(status, *lines)
    status.finish(1.0, exit_code, "")
    return status


def api_error(status: int, **fields: Any) -> bytes:
    return a_result(is_error=True, api_error_status=status, result="API Error", **fields)


def synthetic(error: str) -> bytes:
    message = {"id": "x", "model": "<synthetic>", "usage": {}, "content": []}
    return line({"type": "assistant", "message": message, "error": error})


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (failed(INIT, start("a", 5)), "no result"),
        (failed(exit_code=-9), "no result"),
        (failed(exit_code=1), None),  # it left without a word: it was called wrongly
        (failed(INIT, api_error(429)), "rate_limit"),
        (failed(INIT, api_error(529)), "server_error"),
        (failed(INIT, api_error(400)), None),
        (failed(INIT, synthetic("overloaded"), api_error(200)), "overloaded"),
        (failed(INIT, a_result()), None),
    ],
)
def test_a_cause_that_may_pass(status: InstanceStatus, cause: str | None) -> None:
    assert passing_cause(status) == cause


def test_an_instance_that_stalled_is_retried() -> None:
    status = an_instance()
    status.note_silence()
    status.decide_end(State.TIMED_OUT, "stalled: nothing printed for 5 s")
    status.finish(9.0, -15, "")
    assert passing_cause(status) == "stalled"


def test_an_instance_that_was_stopped_is_not_retried() -> None:
    status = an_instance()
    status.decide_end(State.STOPPED, "stopped by budget")
    status.finish(9.0, -15, "")
    assert passing_cause(status) is None


@pytest.mark.parametrize(
    ("number", "cause"),
    [(errno.EAGAIN, "not launched"), (errno.ENOMEM, "not launched"), (errno.ENOENT, None)],
)
def test_a_launch_that_the_system_refused(number: int, cause: str | None) -> None:
    status = an_instance()
    status.cannot_launch(number, "refused")
    status.finish(0.0, None, "")
    assert passing_cause(status) == cause and status.reason == "cannot be launched: refused"


def test_waits_double_up_to_two_minutes_and_jitter_halves_them_at_most() -> None:
    assert [backoff_s(number, 1.0) for number in (1, 2, 3, 7, 40)] == [2.0, 4.0, 8.0, 120.0, 120.0]
    assert backoff_s(3, 0.0) == 4.0


def test_a_reset_is_waited_for_unless_it_is_past_or_too_far() -> None:
    assert reset_wait_s(NOW + 60, NOW, 0.5) == 63.0
    for unusable in (None, NOW, NOW - 5, NOW + 9 * 86_400):
        assert reset_wait_s(unusable, NOW, 0.5) is None


def test_a_reset_that_passed_during_the_attempt_is_not_missed() -> None:
    assert reset_wait_s(NOW - 5, NOW, 0.5, lasted_s=6.0) == 3.0
    assert reset_wait_s(NOW - 6, NOW, 0.5, lasted_s=6.0) is None
    retry = plan_retry(rate_limited(0, lasted_s=2.0), WAITS, CLOCK)
    assert retry is not None and not retry.counts and retry.not_before_wall == NOW + 3.0


def test_a_counted_retry_waits_by_the_monotonic_clock() -> None:
    retry = plan_retry(failed(INIT, api_error(529)), WAITS, CLOCK)
    assert retry is not None and retry.counts and not retry.afresh
    assert (retry.cause, retry.wait_s, retry.not_before) == ("server_error", 1.5, 51.5)
    assert retry.not_before_wall == float("-inf")
    assert retry.reason == "continues at 16:00:01 (retry 1 of 2)"


def test_no_more_retries_than_the_settings_allow() -> None:
    status = failed(INIT, api_error(529), retries=1)
    status.retries_used = 1
    assert plan_retry(status, WAITS, CLOCK) is None


def test_a_failure_that_would_repeat_is_not_retried() -> None:
    assert plan_retry(failed(INIT, api_error(400)), WAITS, CLOCK) is None


def rate_limited(resets_in_s: float, lasted_s: float = 1.0) -> InstanceStatus:
    status = an_instance()
    feed(status, INIT)
    status.apply(RateLimit(refuses=True, resets_at=int(NOW + resets_in_s)))
    feed(status, api_error(429))
    status.finish(lasted_s, 1, "")
    return status


def test_a_rate_limit_is_waited_for_by_the_wall_clock_and_counts_as_no_retry() -> None:
    retry = plan_retry(rate_limited(3600), WAITS, CLOCK)
    assert retry is not None and not retry.counts
    assert (retry.not_before, retry.not_before_wall) == (float("-inf"), NOW + 3603.0)
    assert retry.reason == "continues at 17:00:03 (when its rate limit resets)"
    tomorrow = plan_retry(rate_limited(24 * 3600), WAITS, CLOCK)
    assert tomorrow is not None and tomorrow.reason.startswith("continues at 2026-11-24 16:00 ")


def test_a_rate_limit_is_an_ordinary_failure_where_waiting_is_off() -> None:
    retry = plan_retry(rate_limited(3600), DOES_NOT_WAIT, CLOCK)
    assert retry is not None and retry.counts and retry.wait_s == 1.5


def test_a_lost_session_starts_afresh() -> None:
    lost = "No conversation found with session ID: 5"
    status = an_instance()
    status.restore((), InterruptedSession("5", 0))
    assert status.spec == continued(status.planned, InterruptedSession("5", 0))
    status.begin(0.0)
    status.attempt.next_turn()
    feed(status, INIT, a_result(is_error=True, subtype="error_during_execution", num_turns=0, errors=[lost]))
    status.finish(1.0, 1, "")
    retry = plan_retry(status, WAITS, CLOCK)
    assert retry is not None and retry.afresh and not retry.counts and retry.wait_s == 0.0
    status.retry_later(retry)
    assert status.spec == status.planned and status.session_id is None
