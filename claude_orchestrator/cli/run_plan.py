"""Runs a plan with messages and a status report on the terminal, and writes its reports."""

from __future__ import annotations

from pathlib import Path

from claude_orchestrator.config.settings import Settings
from claude_orchestrator.results.answer_files import AnswerFiles
from claude_orchestrator.results.answers import report_fields
from claude_orchestrator.run import controller
from claude_orchestrator.run.bus import Bus
from claude_orchestrator.run.run_view import RunView
from claude_orchestrator.ui.display import Display, MessagePrinter
from claude_orchestrator.ui.report_files import Reports
from claude_orchestrator.ui.report_json import AnswerOf, no_answers


def run_plan(
    request: controller.RunRequest, place: controller.RunPlace, accounting: controller.Accounting, reports: Reports
) -> int:
    """Run it to its end; returns the exit code. Raises UserError before anything was launched."""
    bus = Bus()
    bus.attach(MessagePrinter(reports.terminal), optional=True)
    output = _Output(bus, reports, request.settings)
    with reports.terminal.in_background():
        return controller.run(request, place, accounting, bus, output.attach, output.report)


class _Output:
    """What is made of a run besides messages, once its directory is known."""

    def __init__(self, bus: Bus, reports: Reports, settings: Settings) -> None:
        self._bus = bus
        self._reports = reports
        self._settings = settings
        self._answer_of: AnswerOf = no_answers

    def attach(self, view: RunView) -> Display:
        """Attach what observes the run, and make the display."""
        if view.directory is not None:
            turns = {spec.name: len(spec.turns) for spec in view.plan.specs}
            files = AnswerFiles(Path(view.directory), turns, self._bus.warn)
            self._answer_of = lambda name: report_fields(files.answer(name))
            self._bus.attach(files)
        return Display(self._reports.terminal, self._settings, view)

    def report(self, result: controller.RunResult) -> int:
        """Write the reports; returns the exit code."""
        return self._reports.write(result, self._answer_of)
