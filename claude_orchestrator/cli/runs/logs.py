"""`claude-runs logs`: what an instance said and did, readable or raw."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click

from claude_orchestrator.claude.conversation import EntryKind, Said, conversation
from claude_orchestrator.engine.control.runs import FoundRun, status_of
from claude_orchestrator.errors import UserError
from token_budget.fields import nearest_name
from token_budget.text import printable
from token_budget.usage.console import render_options
from token_budget.usage.tables import BOLD
from token_budget.visualization import GREEN, RED, RESET, YELLOW

POLL_S = 0.2
ASK_EVERY_S = 1.0
OUTPUT_LINES = 12  # of a tool's output
CHUNK_BYTES = 1 << 16
DIM = "\033[2m"
_ENDED = frozenset({"completed", "failed", "blocked", "skipped", "stopped", "timed_out", "cancelled", "interrupted"})


def instance_of(status: dict[str, Any], name: str) -> dict[str, Any]:
    """The row of an instance. Raises UserError."""
    rows: dict[str, dict[str, Any]] = {row["name"]: row for row in status["instances"]}
    if name not in rows:
        near = nearest_name(name, rows)
        hint = f"; nearest: {near}" if near else ""
        raise UserError(f"run {status['run']['id']} has no instance called {name!r}{hint}")
    return rows[name]


def log_files(run: FoundRun, log: str) -> list[Path]:
    """The logs of all attempts of an instance, the first attempt first; `log` is that of any."""
    stem = re.sub(r"(\.\d+)?\.jsonl$", "", log)
    pattern = re.compile(rf"{re.escape(stem)}(\.\d+)?\.jsonl")
    found = [path for path in run.path.glob("*.jsonl") if pattern.fullmatch(path.name) and path.is_file()]  # no pipe
    return sorted(found, key=lambda path: int((re.findall(r"\.(\d+)\.jsonl$", path.name) or ["1"])[0]))


def print_log(run: FoundRun, name: str, *, follow: bool, raw: bool) -> int:
    """Print the log of an instance; with `follow`, until it has ended."""
    row = instance_of(status_of(run), name)
    log = row["log"] or _log_name(run, name)
    if log is None and not (follow and row["state"] not in _ENDED):
        raise UserError(f"{name}: has no log: it is {row['state']}")

    def ended() -> bool:
        return not follow or instance_of(status_of(run), name)["state"] in _ENDED

    lines = _lines(run, name, ended)
    if raw:
        for line in lines:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        return 0
    color = render_options().color
    for said in conversation(lines):
        for text in described(said, color=color):
            click.echo(text, color=True)
    return 0


def _log_name(run: FoundRun, name: str) -> str | None:
    """The log of an instance whose row has none, because its orchestrator was killed."""
    from claude_orchestrator.engine.file_names import clean_name

    pattern = re.compile(rf"\d+-{re.escape(clean_name(name, 60))}(\.\d+)?\.jsonl")
    return next((path.name for path in sorted(run.path.glob("*.jsonl")) if pattern.fullmatch(path.name)), None)


def _lines(run: FoundRun, name: str, ended: Callable[[], bool]) -> Iterator[bytes]:
    """The whole lines of the logs, and those that are added until the instance has ended."""
    done: list[Path] = []
    while True:
        over = ended()  # before the last look
        log = _log_name(run, name)
        files = [path for path in log_files(run, log or "") if path not in done] if log else []
        for path in files[:-1]:
            yield from _whole_lines(path, lambda: True)
            done.append(path)
        if files:
            yield from _whole_lines(files[-1], partial(_no_more, run, files[-1], ended))
            done.append(files[-1])
        elif over:
            return
        else:
            time.sleep(POLL_S)


def _no_more(run: FoundRun, file: Path, ended: Callable[[], bool]) -> bool:
    """Whether nothing is added to a log: its instance has ended, or there is a later attempt."""
    return ended() or log_files(run, file.name)[-1] != file


def _whole_lines(path: Path, finished: Callable[[], bool]) -> Iterator[bytes]:
    """Lines of a file that grows until it is finished."""
    rest, asked_at, over = b"", float("-inf"), False
    with path.open("rb") as file:
        while True:
            data = file.read(CHUNK_BYTES)
            if data:
                *lines, rest = (rest + data).split(b"\n")
                yield from (line + b"\n" for line in lines)
                continue
            if over:
                break
            if time.monotonic() - asked_at >= ASK_EVERY_S:
                asked_at, over = time.monotonic(), finished()
            if not over:
                time.sleep(POLL_S)
    if rest:
        yield rest + b"\n"


def described(said: Said, *, color: bool) -> list[str]:
    """A part of a conversation in lines for a terminal. Control characters are escaped."""
    before = "  " if said.parent else ""
    lines = [printable(line.expandtabs(4)) for line in said.text.splitlines()] or [""]
    match said.piece:
        case EntryKind.TURN:
            shown = [_colored(f"── {lines[0]}", DIM, color)]
        case EntryKind.TEXT:
            shown = ["", *lines]
        case EntryKind.THOUGHT:
            shown = ["", *(_colored(f"~ {line}", DIM, color) for line in lines)]
        case EntryKind.TOOL:
            shown = ["", _colored(f"> {lines[0]}", BOLD, color)]
        case EntryKind.OUTPUT:
            cut = lines[:OUTPUT_LINES]
            more = [f"… {len(lines) - OUTPUT_LINES} more lines"] if len(lines) > OUTPUT_LINES else []
            shown = [_colored(f"  {line}", RED if said.failed else DIM, color) for line in (*cut, *more)]
        case EntryKind.NOTE | EntryKind.PROMPT:
            shown = [_colored(f"! {line}", YELLOW, color) for line in lines]
        case EntryKind.RESULT:
            head = "failed" if said.failed else "answer"
            shown = ["", _colored(f"── {head}", RED if said.failed else GREEN, color), *lines]
        case _:
            shown = []
    return [before + line for line in shown]


def _colored(text: str, code: str, color: bool) -> str:
    return f"{code}{text}{RESET}" if color else text
