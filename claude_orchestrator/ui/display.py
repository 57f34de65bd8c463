"""Shows a run on the terminal while it runs: messages as they come, and a status report."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from claude_orchestrator.engine.run_events import (
    ApprovalAsked,
    Launched,
    Level,
    RunEnded,
    RunEvent,
    RunStarted,
    StartsIn,
)
from claude_orchestrator.engine.run_view import RunView
from claude_orchestrator.engine.snapshot import Snapshots
from claude_orchestrator.ui.messages import message_of
from claude_orchestrator.ui.screen import ScreenStyle, screen
from claude_orchestrator.ui.terminal import Terminal
from token_budget.named_tuples import NamedTuple
from token_budget.text import countdown

REDRAW_EVERY_S = 0.25
LEAST_PAUSE = 20  # times what the last drawing took: a run of thousands has better work
LIVE_REPORT_EVERY_S = 1.0  # without any event: times still change
COUNTDOWN_MESSAGE_S = 60


def local_now() -> datetime:
    """The present time with the offset of this machine's zone."""
    return datetime.now(UTC).astimezone()


class MessagePrinter:
    """An observer that prints the message about each event of a run in `output_dir`."""

    def __init__(self, terminal: Terminal, output_dir: Path, now: Callable[[], datetime] = local_now) -> None:
        self._terminal = terminal
        self._output_dir = output_dir
        self._now = now
        self._run = "last"  # until it has begun

    def observe(self, event: RunEvent) -> None:
        """Print the event's message, if it has one."""
        approve = ""
        if isinstance(event, RunStarted):
            self._run = event.header["run"]
        elif isinstance(event, ApprovalAsked):
            from claude_orchestrator.engine.control.commands import runs_command

            approve = f"{runs_command(self._output_dir)} approve {self._run}"
        message = message_of(event, approve)
        if message is not None:
            self._terminal.message(*message, at=self._now())


class DisplayStyle(NamedTuple):
    """What the status report contains, and how often it comes where it cannot be redrawn."""

    columns: tuple[str, ...]
    interval_s: float
    visuals: bool = True


class Display:
    """An observer that keeps a status report on a live terminal, or prints one at intervals elsewhere."""

    def __init__(self, terminal: Terminal, view: RunView, style: DisplayStyle) -> None:
        self._terminal = terminal
        self._snapshots = Snapshots(view)
        self._style = style
        self._interval_s = 0.0 if terminal.quiet else style.interval_s
        self._reports: asyncio.Task[None] | None = None
        self._redraw_due: asyncio.TimerHandle | None = None
        self._drawn_at = self._took_s = 0.0
        self._announced_s = float("inf")
        self._shows = False

    def observe(self, event: RunEvent) -> None:
        """Show what has changed, soon."""
        match event:
            case RunStarted():
                self._reports = asyncio.ensure_future(self._report_at_intervals())
            case StartsIn(seconds):
                self._count_down(seconds)
            case RunEnded():
                self._end()
            case Launched():
                self._show()
            case _:
                self._redraw_soon()

    def _count_down(self, seconds: float) -> None:
        line = f"Starting in {countdown(seconds)} (Ctrl-C cancels)"
        self._terminal.show(partial(list, [line]), self._terminal.redraw)
        if not self._terminal.live and self._announced_s - seconds >= COUNTDOWN_MESSAGE_S:
            self._announced_s = seconds
            self._terminal.message(Level.INFO, f"Starting in {countdown(seconds)}")

    def _end(self) -> None:
        if self._reports is not None:
            self._reports.cancel()
        if self._redraw_due is not None:
            self._redraw_due.cancel()
        self._terminal.show(None)

    def _show(self) -> None:
        if self._interval_s > 0 and not self._shows:
            self._shows = True
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError, AttributeError):  # not everywhere
                asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, self._redraw_soon)
            self._terminal.show(self._lines, self._redraw_soon)
        self._redraw_soon()

    def _lines(self) -> list[str]:
        style = self._style
        options = self._terminal.render_options(visuals=style.visuals)
        height = max(1, self._terminal.height() - 1)
        return screen(self._snapshots.take(time.monotonic()), options, ScreenStyle(style.columns, height))

    def _redraw_soon(self) -> None:
        """Redraw soon, at most a few times a second."""
        if self._terminal.live and self._redraw_due is None and self._reports is not None:
            pause_s = max(REDRAW_EVERY_S, self._took_s * LEAST_PAUSE)
            due = max(0.0, self._drawn_at + pause_s - time.monotonic())
            self._redraw_due = asyncio.get_running_loop().call_later(due, self._redraw)

    def _redraw(self) -> None:
        self._redraw_due = None
        begun_at = time.monotonic()
        self._terminal.redraw()
        self._drawn_at = time.monotonic()
        self._took_s = self._drawn_at - begun_at

    async def _report_at_intervals(self) -> None:
        while self._interval_s > 0:
            await asyncio.sleep(LIVE_REPORT_EVERY_S if self._terminal.live else self._interval_s)
            if self._terminal.live:
                self._redraw_soon()
            else:
                self._terminal.print(self._report(), folded=True)

    def _report(self) -> list[str]:
        """The status report of a terminal that cannot be redrawn, or of a file: it begins with its time."""
        options = self._terminal.render_options(visuals=self._style.visuals)
        style = ScreenStyle(self._style.columns, at=local_now())
        return screen(self._snapshots.take(time.monotonic()), options, style)
