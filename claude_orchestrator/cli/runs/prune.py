"""`claude-runs prune`: removes the folders of old runs."""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path

import click

from claude_orchestrator.engine.control.runs import FoundRun, past_of, run_names
from claude_orchestrator.engine.worktrees.keeper import FOLDER as WORKTREES
from claude_orchestrator.errors import UserError
from token_budget.text import counted, printable
from token_budget.usage.moments import read_since


def prune(output_dir: Path, before: str, *, yes: bool) -> int:
    """Remove runs that ended before a moment, except those at work and those with worktrees."""
    try:
        moment_s = read_since(before, datetime.now(), "--before") / 1000
    except ValueError as error:
        raise UserError(str(error)) from None
    removed = kept = 0
    for name in run_names(output_dir):
        run = FoundRun(name, output_dir / name)
        if not _is_old(run, moment_s):
            continue
        if any((run.path / WORKTREES).glob("*/")):
            kept += 1
            click.echo(f"{name}: kept, because it has worktrees")
            continue
        removed += 1
        if yes:
            shutil.rmtree(run.path)
        else:
            click.echo(name)
    text = f"{'removed' if yes else 'would remove'} {counted(removed, 'run')}"
    click.echo(text + (": add --yes to remove them" if removed and not yes else ""))
    return 0


def _is_old(run: FoundRun, moment_s: float) -> bool:
    try:
        state = past_of(run)["run"]
    except UserError as error:
        click.echo(f"WARNING: {printable(error.lines[0])}", err=True)
        return False
    return state["state"] != "unreachable" and datetime.fromisoformat(state["ended_at"]).timestamp() < moment_s
