"""Which failures may pass, and how long to wait before another attempt. Pure."""

from __future__ import annotations

import errno
from datetime import datetime

from claude_orchestrator.claude.failures import PASSING_ERRORS, PASSING_STATUS, RATE_LIMIT, session_not_found
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.run_context import Clock
from claude_orchestrator.engine.state import InstanceStatus, PlannedRetry, State

FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 120.0
LONGEST_RESET_S = 8 * 86_400.0  # the longest window of a subscription is a week
PASSING_ERRNO = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})


def passing_cause(status: InstanceStatus) -> str | None:
    """Why another attempt may succeed; None if it would fail again, or if the instance was stopped on purpose."""
    attempt = status.attempt
    if attempt.stalled:
        return "stalled"
    if status.state is not State.FAILED or attempt.unknown_command is not None:
        return None
    if attempt.launch_errno is not None:
        return "not launched" if attempt.launch_errno in PASSING_ERRNO else None
    if attempt.last_result is None or attempt.turn_running or attempt.left_its_check:
        killed = attempt.exit_code is not None and attempt.exit_code < 0
        # a process that exits without a word was called wrongly
        return "no result" if attempt.began or killed else None
    if attempt.api_error in PASSING_ERRORS:
        return attempt.api_error
    if attempt.last_result.api_error_status in PASSING_STATUS:
        return RATE_LIMIT if attempt.last_result.api_error_status == 429 else "server_error"
    return None


def session_is_lost(status: InstanceStatus) -> bool:
    """Whether the attempt was to resume a session that claude does not have, or whose folder is gone."""
    attempt = status.attempt
    if not status.spec.resumed:
        return False
    if attempt.last_result is None:
        return attempt.launch_errno in (errno.ENOENT, errno.ENOTDIR)
    return session_not_found(attempt.last_result)


def backoff_s(retry: int, jitter: float) -> float:
    """Seconds before the first (1), second … retry: they double up to two minutes.

    `jitter` (0 to 1) takes off up to half, so that instances that failed together do not return together.
    """
    return float(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(retry - 1, 16)) * (0.5 + jitter / 2))


def reset_wait_s(resets_at: float | None, now: float, jitter: float, lasted_s: float = 0.0) -> float | None:
    """Seconds until shortly after a reset (Unix time); None if there is no reset to wait for.

    An attempt that lasted `lasted_s` seconds may have been refused before a reset that has passed meanwhile.
    """
    if resets_at is None or not now - lasted_s < resets_at < now + LONGEST_RESET_S:
        return None
    return max(0.0, resets_at - now) + 1.0 + 4.0 * jitter


def plan_retry(status: InstanceStatus, settings: Settings, clock: Clock) -> PlannedRetry | None:
    """The attempt that follows the one that has ended; None if none follows."""
    cause = passing_cause(status)
    if cause is None:
        if not session_is_lost(status):
            return None
        return _retry(None, 0.0, "its session is lost: a new one starts", clock, afresh=True)
    reset_s = None
    if cause == RATE_LIMIT and settings.wait_for_reset:
        lasted_s = status.attempt.seconds(clock.monotonic())
        reset_s = reset_wait_s(status.attempt.limit_resets_at, clock.wall(), clock.jitter(), lasted_s)
    if reset_s is not None:
        return _retry(cause, reset_s, "when its rate limit resets", clock, by_wall_clock=True)
    if status.retries_used >= status.spec.retries:
        return None
    number = status.retries_used + 1
    why = f"retry {number} of {status.spec.retries}"
    return _retry(cause, backoff_s(number, clock.jitter()), why, clock, counts=True)


def _retry(
    cause: str | None,
    wait_s: float,
    why: str,
    clock: Clock,
    *,
    by_wall_clock: bool = False,
    **how: bool,
) -> PlannedRetry:
    at = datetime.fromtimestamp(clock.wall() + wait_s)
    when = f"{at:%H:%M:%S}" if wait_s < 43_200 else f"{at:%Y-%m-%d %H:%M}"
    reason = f"continues at {when} ({why})"
    if by_wall_clock:
        return PlannedRetry(cause, reason, wait_s, not_before_wall=clock.wall() + wait_s, **how)
    return PlannedRetry(cause, reason, wait_s, not_before=clock.monotonic() + wait_s, **how)
