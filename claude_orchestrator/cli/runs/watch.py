"""`claude-runs watch`: the live screen of a run, from another terminal."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any

import click

from claude_orchestrator.claude.conversation import conversation
from claude_orchestrator.cli.runs.logs import described, instance_of, log_files
from claude_orchestrator.cli.runs.show import COLUMNS, decision_line, show_run, state_of
from claude_orchestrator.engine.control.client import ControlClient, Notification
from claude_orchestrator.engine.control.runs import FoundRun, answering, connect, status_of
from claude_orchestrator.ui.remote import snapshot_of
from claude_orchestrator.ui.screen import ScreenStyle, screen
from claude_orchestrator.ui.table import duration
from claude_orchestrator.ui.terminal import Terminal
from token_budget.text import fit, format_tokens, printable

REDRAW_EVERY_S = 0.5
LEAST_PAUSE = 20  # times what the last status took
TAIL_BYTES = 256 * 1024
LINES = frozenset({"instance_ended", "steered", "crossed", "approval_asked", "approval_ended", "run_ended"})


def watch(run: FoundRun, instance: str | None) -> int:
    """Show the run until it ends or the user leaves; returns 0."""
    client = connect(run)
    if client is None:
        return show_run(run, as_json=False)
    with client, answering(run):
        if instance is not None:
            instance_of(status_of(run), instance)
        terminal = Terminal()
        if not terminal.live:
            return _print_events(client)
        with _keys() as typed:
            left = _draw_until(run, client, instance, terminal, typed)
    terminal.show(None)
    if left:
        click.echo(f"The run continues. Watch it again: {run.command('watch')}")
        return 0
    return show_run(run, as_json=False)


def _print_events(client: ControlClient) -> int:
    """Where there is no terminal: a line for each event that matters."""
    for notification in client.follow():
        if notification is not None and notification.kind == "event" and notification.data["kind"] in LINES:
            click.echo(_event_line(notification))
            if notification.data["kind"] == "run_ended":
                return 0
    return 0


def _event_line(notification: Notification) -> str:
    event = notification.data
    match event["kind"]:
        case "instance_ended":
            row = event["row"]
            tokens = format_tokens(row["usage"]["total_tokens"])
            text = f"{row['name']}: {row['state']}, {tokens} tokens" + (f": {row['reason']}" if row["reason"] else "")
            return decision_line({**event, "instance": None, "text": text})
        case "run_ended":
            return decision_line({**event, "text": f"the run has ended with exit code {event['exit_code']}"})
        case _:
            return decision_line(event)


def _draw_until(run: FoundRun, client: ControlClient, instance: str | None, terminal: Terminal, typed: int) -> bool:
    """Redraw at intervals; returns whether the user has left, and not the run ended."""
    try:
        status = client.call("status")
    except ConnectionError:
        return False

    def lines() -> list[str]:
        return _lines(run, status, instance, terminal)

    terminal.show(lines)
    while True:
        begun_at = time.monotonic()
        try:
            status = client.call("status")
        except OSError:
            return False
        terminal.redraw()
        if status["run"]["state"] == "ended":
            return False
        pause_s = max(REDRAW_EVERY_S, (time.monotonic() - begun_at) * LEAST_PAUSE)
        ready, _, _ = select.select([typed], [], [], pause_s)
        if ready and _leaves(typed):
            return True


def _lines(run: FoundRun, status: dict[str, Any], instance: str | None, terminal: Terminal) -> list[str]:
    options, height = terminal.render_options(), max(3, terminal.height() - 2)
    hint = fit(f"run {run.id}: {state_of(status)} · q leaves", options.width).rstrip()
    if instance is None:
        return [hint, *screen(snapshot_of(status), options, ScreenStyle(COLUMNS, height))]
    row = instance_of(status, instance)
    now = row["now"]
    seconds = f" ({duration(now['seconds'])})" if now["seconds"] else ""
    tokens = format_tokens(row["usage"]["total_tokens"])
    parts = [f"{row['name']}: {row['label']}", f"turn {row['turn']}/{row['turns']}", f"{tokens} tokens"]
    head = " · ".join([*parts, *([f"{now['text']}{seconds}"] if now["text"] else [])])
    cut = partial(fit, width=options.width)
    tail = _tail(run, row["log"], height - 2, color=options.color)
    return [hint, cut(head).rstrip(), *tail]


def _tail(run: FoundRun, log: str | None, rows: int, *, color: bool) -> list[str]:
    """The last lines of the conversation of an instance."""
    width = max(20, os.get_terminal_size().columns - 1 if sys.stdout.isatty() else 100)
    shown: deque[str] = deque(maxlen=max(1, rows))
    files = log_files(run, log) if log else []
    if files:
        with contextlib.suppress(OSError), files[-1].open("rb") as file:
            file.seek(max(0, files[-1].stat().st_size - TAIL_BYTES))
            for said in conversation(file.read().split(b"\n")):
                shown.extend(fit(printable(line), width).rstrip() for line in described(said, color=False))
    return list(shown)


@contextlib.contextmanager
def _keys() -> Iterator[int]:
    """Keys as they are typed, without Enter; yields the descriptor to read them from."""
    import termios  # not on Windows, where there is no control socket either
    import tty

    fd = sys.stdin.fileno()
    if not os.isatty(fd):
        yield fd
        return
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    try:
        yield fd
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _leaves(typed: int) -> bool:
    """Whether the user asks to leave: by q, Escape or the end of the input."""
    data = os.read(typed, 64)
    return not data or data[:1] in (b"q", b"Q", b"\x1b", b"\x04")
