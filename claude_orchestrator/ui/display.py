"""Shows a run on the terminal while it runs: messages as they come, and a status report."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from claude_orchestrator.engine.run_events import Launched, Level, RunEnded, RunEvent, RunStarted, StartsIn
from claude_orchestrator.engine.run_view import RunView
from claude_orchestrator.ui import status
from claude_orchestrator.ui.messages import message_of
from claude_orchestrator.ui.terminal import Terminal
from token_budget.text import countdown
from token_budget.visualization import render_budget_panel

REDRAW_EVERY_S = 0.25
LEAST_PAUSE = 20  # times what the last drawing took: a run of thousands has better work
LIVE_REPORT_EVERY_S = 1.0  # without any event: times still change
COUNTDOWN_MESSAGE_S = 60


class MessagePrinter:
    """An observer that prints the message about each event."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def observe(self, event: RunEvent) -> None:
        """Print the event's message, if it has one."""
        message = message_of(event)
        if message is not None:
            self._terminal.message(*message)


class Display:
    """An observer that keeps a status report on a live terminal, or prints one at intervals elsewhere."""

    def __init__(self, terminal: Terminal, view: RunView, *, interval_s: float, visuals: bool) -> None:
        self._terminal = terminal
        self._view = view
        self._visuals = visuals
        self._interval_s = 0.0 if terminal.quiet else interval_s
        self._reports: asyncio.Task[None] | None = None
        self._redraw_due: asyncio.TimerHandle | None = None
        self._drawn_at = self._took_s = 0.0
        self._announced_s = float("inf")

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
                self._terminal.show(self._lines if self._interval_s > 0 else None)
                self._redraw_soon()
            case _:
                self._redraw_soon()

    def _count_down(self, seconds: float) -> None:
        line = f"Starting in {countdown(seconds)} (Ctrl-C cancels)"
        self._terminal.show(partial(list, [line]))
        if not self._terminal.live and self._announced_s - seconds >= COUNTDOWN_MESSAGE_S:
            self._announced_s = seconds
            self._terminal.message(Level.INFO, f"Starting in {countdown(seconds)}")

    def _end(self) -> None:
        if self._reports is not None:
            self._reports.cancel()
        if self._redraw_due is not None:
            self._redraw_due.cancel()
        self._terminal.show(None)

    def _lines(self) -> list[str]:
        options = self._terminal.render_options(visuals=self._visuals)
        panel_rows = len(render_budget_panel(self._view.manager)) if options.visuals else 0
        rows = max(3, self._terminal.height() - panel_rows - 4)
        return status.status_report(self._view, time.monotonic(), options, max_rows=rows)

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
                self._redraw()
            else:
                options = self._terminal.render_options(visuals=self._visuals)
                self._terminal.print(status.status_report(self._view, time.monotonic(), options))
