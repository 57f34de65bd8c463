"""The commands that change a run."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import click

from claude_orchestrator.engine.control.runs import FoundRun, answering, connect, past_of
from claude_orchestrator.errors import UserError
from token_budget.text import counted, printable


def ask(run: FoundRun, method: str, **params: Any) -> Any:
    """What the orchestrator of a run answers. Raises UserError if it refuses, or if there is none."""
    client = connect(run)
    if client is None:
        raise UserError(_not_there(run))
    with client, answering(run):
        return client.call(method, **params)


def _not_there(run: FoundRun) -> str:
    status = past_of(run)
    state = status["run"]["state"]
    if state == "interrupted":
        return f"run {run.id} was interrupted; continue it: {run.resume_command(status)}"
    if state == "unreachable":
        return f"run {run.id} has no control socket: it was started with --no-control, or could not open one"
    return f"run {run.id} has ended"


def stop(run: FoundRun, names: list[str], *, at_once: bool, why: str) -> int:
    """Stop instances, or the run."""
    if names:
        if at_once:
            raise UserError("--at-once: only for a whole run: leave the instances out")
        stopping = ask(run, "stop", names=names, why=why)["stopping"]
        what = stopping[0] if len(stopping) == 1 else counted(len(stopping), "instance")
        click.echo(f"stopping {printable(what)}")
    else:
        ask(run, "stop_run", at_once=at_once, why=why)
        click.echo(f"stopping run {run.id}")
    return 0


def pause(run: FoundRun, why: str) -> int:
    """Launch nothing more."""
    ask(run, "pause", why=why)
    click.echo(f"launches are paused; launch again: {run.command('resume')}")
    return 0


def resume(run: FoundRun, why: str) -> int:
    """Launch again."""
    ask(run, "resume", why=why)
    click.echo("launches continue")
    return 0


def limit(run: FoundRun, limits: list[str], why: str) -> int:
    """Change limits: all of them, if each one is written properly."""
    pairs = [_pair(text) for text in limits]
    for changed in ask(run, "set_limits", limits=dict(pairs), why=why):
        figures = [
            f"${changed[name]:,.2f}" if changed["unit"] == "USD" else f"{changed[name]:,}" for name in ("limit", "used")
        ]
        click.echo(f"the limit of the {printable(changed['label'])} budget is {figures[0]} now; used: {figures[1]}")
    return 0


def _pair(text: str) -> tuple[str, str]:
    name, sep, value = text.rpartition("=")
    if not (sep and name.strip() and value.strip()):
        raise UserError(f"{text}: expected BUDGET=LIMIT, such as overall=200k")
    return name, value


def parallel(run: FoundRun, number: str, why: str) -> int:
    """Set how many instances run at once."""
    most = ask(run, "set_max_parallel", number=number, why=why)["max_parallel"]
    click.echo(f"{counted(most, 'instance')} at once")
    return 0


def approvals(run: FoundRun, *, as_json: bool) -> int:
    """Print what waits for an approval."""
    waiting = ask(run, "approvals")
    if as_json:
        click.echo(json.dumps(waiting, indent=2))
        return 0
    if not waiting:
        click.echo("no tool waits for approval")
        return 0
    for one in waiting:
        until = datetime.fromtimestamp(one["until"]).strftime("%H:%M:%S")
        click.echo(f"{one['id']}  {printable(one['instance'])}  {printable(one['text'])}  (denied at {until})")
        shown = json.dumps(one["input"], ensure_ascii=False)
        click.echo(f"   {one['tool']} {printable(shown)}")
    click.echo(
        f"\nNext: {run.command('approve', str(waiting[0]['id']))}, or {run.command('deny', str(waiting[0]['id']))}"
    )
    return 0


def approve(run: FoundRun, ids: list[str], *, always: bool, why: str) -> int:
    """Let tools run."""
    approved = ask(run, "approve", ids=ids, always=always, why=why)["approved"]
    click.echo(f"approved {', '.join(approved)}")
    return 0


def deny(run: FoundRun, ids: list[str], *, message: str, why: str) -> int:
    """Deny tools."""
    denied = ask(run, "deny", ids=ids, message=message, why=why)["denied"]
    click.echo(f"denied {', '.join(denied)}")
    return 0
