"""`claude-runs results`: the answers of a run."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import click

from claude_orchestrator.cli.runs.logs import instance_of
from claude_orchestrator.engine.control.runs import FoundRun, status_of
from claude_orchestrator.engine.results.answer_files import MAX_ANSWER_BYTES
from claude_orchestrator.errors import UserError
from token_budget.text import printable


def print_results(run: FoundRun, name: str | None, *, as_json: bool) -> int:
    """Print the answers; returns 1 if the instance that was named has none."""
    status = status_of(run)
    rows = status["instances"] if name is None else [instance_of(status, name)]
    if as_json:
        for row in rows:
            click.echo(json.dumps({"run": run.id, "instance": row["name"], **_result(run, row)}))
        return 0
    found = [(row["name"], text) for row in rows if (text := _text(run, row)) is not None]
    if name is not None and not found:
        raise UserError(f"{name}: has no answer: it is {rows[0]['state']}")
    for instance, text in found:
        if name is None:
            click.echo(f"── {printable(instance)}")
        click.echo("\n".join(map(printable, text.split("\n"))))
    if not found:
        click.echo("no instance has answered yet" if status["live"] else "no instance has answered")
    return 0


def _result(run: FoundRun, row: dict[str, Any]) -> dict[str, Any]:
    structured = None
    if row["result_file"] is not None:
        with contextlib.suppress(OSError, ValueError):
            structured = json.loads(_read((run.path / row["result_file"]).with_suffix(".json")))
    return {
        "state": row["state"],
        "reason": row["reason"],
        "text": _text(run, row),
        "structured_output": structured,
        "file": None if row["result_file"] is None else str((run.path / row["result_file"]).absolute()),
        "usage": row["usage"],
        "cost_usd": row["cost_usd"],
    }


def _text(run: FoundRun, row: dict[str, Any]) -> str | None:
    if row["result_file"] is None:
        return None
    try:
        return _read(Path(run.path, row["result_file"])).decode("utf-8", "replace")
    except (OSError, ValueError):
        return None


def _read(path: Path) -> bytes:
    """A file of the run; an instance can have put a pipe in its place. Raises OSError or ValueError."""
    from token_budget.usage.json_file import read_bytes

    return read_bytes(path, MAX_ANSWER_BYTES)
