"""`claude-runs list` and `show`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from claude_orchestrator.engine.control.commands import runs_command
from claude_orchestrator.engine.control.runs import FoundRun, run_names, status_of
from claude_orchestrator.errors import UserError
from claude_orchestrator.ui.remote import snapshot_of
from claude_orchestrator.ui.screen import ScreenStyle, screen
from claude_orchestrator.ui.table import duration
from token_budget.text import RenderOptions, about_tokens, format_usd, printable
from token_budget.usage.console import print_lines, render_options
from token_budget.usage.tables import TableColumn, table
from token_budget.visualization import GREEN, RED, RESET, YELLOW

LATEST = 20
DECISIONS_SHOWN = 10
COLUMNS = ("state", "time", "tokens", "cost", "turn", "now")
COLORS = {"running": GREEN, "paused": YELLOW, "stopping": YELLOW, "interrupted": RED, "failed": RED}


def list_runs(output_dir: Path, *, every: bool, as_json: bool) -> int:
    """Print the runs, the latest first."""
    names = list(reversed(run_names(output_dir)))
    shown = names if every else names[:LATEST]
    found: list[dict[str, Any]] = []
    for name in shown:
        try:
            found.append(status_of(FoundRun(name, output_dir / name), brief=True))
        except UserError as error:
            click.echo(f"WARNING: {printable(error.lines[0])}", err=True)
    if as_json:
        for status in found:
            click.echo(json.dumps({"live": status["live"], **status["run"], "totals": status["totals"]}))
        return 0
    if not found:
        click.echo(f"There are no runs in {output_dir}.")
        return 0
    print_lines(_listed(found, render_options()))
    if len(shown) < len(names):
        click.echo(f"... and {len(names) - len(shown):,} older ones: {runs_command(output_dir)} list --all")
    live = next((status for status in found if status["live"]), None)
    which = "last" if live is None or live is found[0] else live["run"]["id"]
    verb = "watch" if live is not None else "show"
    click.echo(f"\nNext: {runs_command(output_dir)} {verb} {which}")
    return 0


def _listed(found: list[dict[str, Any]], options: RenderOptions) -> list[str]:
    states = [state_of(status) for status in found]
    columns = [
        TableColumn("RUN", [status["run"]["id"] for status in found], left=True),
        TableColumn("STATE", states, left=True),
        TableColumn("STARTED", [_started(status) for status in found], drop=3, left=True),
        TableColumn("TIME", [duration(status["run"]["seconds"]) for status in found], drop=2),
        TableColumn("DONE", [_done(status) for status in found], drop=1),
        TableColumn("TOKENS", [about_tokens(status["totals"]["total_tokens"]) for status in found]),
        TableColumn("COST", [_cost(status["totals"]) for status in found]),
    ]
    title, *lines = table(columns, options)
    if not options.color:
        return [title, *lines]
    return [title, *(_colored(line, state) for line, state in zip(lines, states, strict=True))]


def _colored(line: str, state: str) -> str:
    color = COLORS.get(state.partition(" ")[0], "")
    return line.replace(f" {state}", f" {color}{state}{RESET}", 1) if color else line


def state_of(status: Mapping[str, Any]) -> str:
    """The state of a run in words."""
    run = status["run"]
    rehearsed = " (rehearsal)" if run["rehearsal"] else ""
    if run["approvals"]:
        return f"{run['state']} ({run['approvals']} to approve)"
    if run["state"] == "ended" and run.get("exit_code") is not None:
        code = run["exit_code"]
        return ("completed" if code == 0 else "cancelled" if code > 128 else "failed") + rehearsed
    return f"rehearsing ({run['state']})" if run["rehearsal"] and status.get("live", True) else str(run["state"])


def show_run(run: FoundRun, *, as_json: bool) -> int:
    """Print a run."""
    status = status_of(run)
    if as_json:
        click.echo(json.dumps(status, indent=2))
        return 0
    click.echo(f"run {run.id}: {state_of(status)}, started {_started(status)}")
    print_lines(screen(snapshot_of(status), render_options(), ScreenStyle(COLUMNS)))
    print_lines([*status["prompt_cache"], *_approvals(status), *_decisions(run, status), *_hints(run, status)])
    return 0


def _approvals(status: Mapping[str, Any]) -> Iterator[str]:
    for ask in status["approvals"]:
        yield f"approval {ask['id']}: {printable(ask['instance'])} wants {printable(ask['text'])}"


def _decisions(run: FoundRun, status: Mapping[str, Any]) -> Iterator[str]:
    shown = [line for one in status["decisions"] if (line := decision_line(one))]
    if len(shown) > DECISIONS_SHOWN:
        yield f"... {len(shown) - DECISIONS_SHOWN} earlier decisions: {run.command('show', '--json')}"
    yield from shown[-DECISIONS_SHOWN:]


def decision_line(event: Mapping[str, Any]) -> str:
    """A decision with its time, in one line; empty for one without words."""
    at = datetime.fromtimestamp(event["at"]).strftime("%H:%M:%S")
    text = event.get("reason") or event.get("text") or ""
    if event["kind"] == "crossed" and isinstance(event["budget"], Mapping):
        text = f"the {event['budget']['label']} budget is exceeded"
    if event["kind"] == "approval_ended":
        text = f"approval {event['id']} {event['outcome']}: {text}"
    who = event.get("instance")
    by = event["by"] if isinstance(event.get("by"), Mapping) else event  # the journal has these keys in the record
    cause = ": ".join(str(by[key]) for key in ("user", "why") if by.get(key))
    line = f"{at} {f'{who}: ' if who else ''}{text}{f' ({cause})' if cause else ''}"
    return printable(line) if text else ""


def _hints(run: FoundRun, status: Mapping[str, Any]) -> list[str]:
    """The commands that one may want next."""
    if status["approvals"]:
        return ["", f"Next: {run.command('approve', str(status['approvals'][0]['id']))}"]
    if status["live"]:
        return ["", f"Next: {run.command('watch')}"]
    hints = ["", f"Next: {run.command('results')}"]
    if status["run"]["state"] == "interrupted" or status["run"].get("exit_code"):
        hints.append(f"Continue what did not complete: {run.resume_command(status)}")
    return hints


def _started(status: Mapping[str, Any]) -> str:
    return datetime.fromisoformat(status["run"]["started_at"]).strftime("%Y-%m-%d %H:%M")


def _done(status: Mapping[str, Any]) -> str:
    totals = status["totals"]
    return f"{totals['states'].get('completed', 0)}/{totals['instances']}"


def _cost(totals: Mapping[str, Any]) -> str:
    return "-" if totals["cost_nano_usd"] is None else format_usd(totals["cost_nano_usd"])
