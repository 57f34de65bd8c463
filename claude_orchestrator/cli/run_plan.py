"""Runs a plan with messages and a status report on the terminal, and writes its reports."""

from __future__ import annotations

from functools import partial

from claude_orchestrator.run import controller
from claude_orchestrator.run.bus import Bus
from claude_orchestrator.ui.display import Display, MessagePrinter
from claude_orchestrator.ui.report_files import Reports


def run_plan(
    request: controller.RunRequest, place: controller.RunPlace, accounting: controller.Accounting, reports: Reports
) -> int:
    """Run it to its end; returns the exit code. Raises UserError before anything was launched."""
    bus = Bus()
    bus.attach(MessagePrinter(reports.terminal), optional=True)
    display = partial(Display, reports.terminal, request.settings)
    with reports.terminal.in_background():
        return controller.run(request, place, accounting, bus, display, reports.write)
