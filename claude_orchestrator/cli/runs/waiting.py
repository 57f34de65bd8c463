"""`claude-runs wait`: until a run has ended."""

from __future__ import annotations

import time

import click

from claude_orchestrator.config.kinds import DURATION
from claude_orchestrator.engine.control.runs import FoundRun, answering, connect, past_of
from claude_orchestrator.errors import UserError
from token_budget.fields import BadValue

POLL_S = 0.5


def wait(run: FoundRun, *, success: bool, timeout: str | None) -> int:
    """Wait; returns 0, or 1 if the time is over, or if `success` is wanted and the run failed."""
    try:
        limit_s: float | None = None if timeout is None else DURATION.read(timeout)
    except BadValue as error:
        raise UserError(f"--timeout: {error}") from None
    deadline = None if limit_s is None else time.monotonic() + limit_s
    code = _exit_code(run, deadline)
    if code is None:
        click.echo(f"run {run.id} has not ended within {timeout}", err=True)
        return 1
    click.echo(f"run {run.id} {'completed' if code == 0 else 'was interrupted' if code < 0 else 'failed'}")
    return int(success and code != 0)


def _exit_code(run: FoundRun, deadline: float | None) -> int | None:
    """The run's exit code, -1 if its orchestrator was killed, or None if the time is over."""
    client = connect(run)
    if client is not None:
        with client, answering(run):
            told = client.follow()
            client.quiet_after(None if deadline is None else POLL_S)
            for one in told:
                if deadline is not None and time.monotonic() >= deadline:
                    return None
                if one is not None and one.kind == "event" and one.data["kind"] == "run_ended":
                    return int(one.data["exit_code"])
                if one is not None and one.kind == "snapshot" and one.data["run"]["state"] == "ended":
                    break
    while (state := past_of(run)["run"])["state"] == "unreachable":  # it does not listen, or is about to end
        if deadline is not None and time.monotonic() >= deadline:
            return None
        time.sleep(POLL_S)
    code = state["exit_code"]
    return -1 if code is None else int(code)
