"""Runs a plan with messages and a status report on the terminal, and hands over its answers and reports."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable
from pathlib import Path

from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine import controller
from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.results.answers import AnswerOf, no_answers, printed, report_fields
from claude_orchestrator.engine.run_events import Level, Message
from claude_orchestrator.engine.run_request import Accounting, RunPlace, RunRequest, RunResult
from claude_orchestrator.engine.run_view import RunView
from claude_orchestrator.ui.display import Display, DisplayStyle, MessagePrinter
from claude_orchestrator.ui.report_files import Reports, json_bytes, junit_bytes, summary_bytes
from token_budget.files import append_whole
from token_budget.named_tuples import NamedTuple
from token_budget.text import printable


class Handover(NamedTuple):
    """What programs and people get of a run while it runs, and on standard output.

    `results` is the file of result lines, and `-` is standard output. `append`: an earlier start of the run has
    written lines already. `prints` is what else is printed at the end: `report`, `junit`, `summary`, `answer`,
    `answers` or nothing.
    """

    results: Path | None = None
    append: bool = False
    prints: str = ""


def run_plan(
    request: RunRequest,
    place: RunPlace,
    accounting: Accounting,
    reports: Reports,
    handover: Handover,
) -> int:
    """Run it to its end; returns the exit code. Raises UserError before anything was launched."""
    bus = Bus()
    bus.attach(MessagePrinter(reports.terminal, place.output_dir), optional=True)
    output = _Output(bus, reports, handover, request.settings)
    gc.freeze()  # what the start has made
    gc.enable()
    with reports.terminal.in_background():
        code = controller.run(request, place, accounting, bus, output.attach, output.report)
    return output.finish(code)


class _Output:
    """What a run produces besides messages: its display, its answers in files and lines, its reports."""

    def __init__(self, bus: Bus, reports: Reports, handover: Handover, settings: Settings) -> None:
        self._bus = bus
        self._reports = reports
        self._handover = handover
        self._settings = settings
        self._answer_of: AnswerOf = no_answers
        self._text_of: Callable[[str], str | None] = lambda name: None
        self._close_lines: Callable[[], OSError | None] = lambda: None
        self._printed = b""

    def attach(self, view: RunView) -> Display:
        """Attach what observes the run, and make the display."""
        assert view.directory is not None and view.answers is not None
        files = view.answers
        self._text_of = lambda name: files.answer(name).text
        self._answer_of = lambda name: report_fields(files.answer(name))
        if self._handover.results is not None:
            from claude_orchestrator.engine.results.line_writer import LineWriter, ResultLines

            writer = LineWriter(self._handover.results, append=self._handover.append)
            self._close_lines = writer.close
            self._bus.attach(ResultLines(view.run_id, files.answer, writer))
        text = f"run {view.run_id}: logs in {view.directory}, answers in {files.folder}"
        self._bus.publish(Message(Level.INFO, text))
        settings = self._settings
        visuals = not settings.disable_budget_visuals
        style = DisplayStyle(self._reports.columns, settings.status_report_interval_s, visuals)
        return Display(self._reports.terminal, view, style)

    def report(self, result: RunResult) -> int:
        """Write the reports; returns the exit code."""
        code = self._reports.write(result, self._answer_of)
        match self._handover.prints:
            case "report":
                self._printed = json_bytes(result, self._answer_of)
            case "junit":
                self._printed = junit_bytes(result, self._answer_of)
            case "summary":
                self._printed = summary_bytes(result, self._answer_of)
            case "answer" | "answers" as what:
                instances = result.view.instances
                answers = [(status.name, self._text_of(status.name)) for status in instances]
                named = what == "answers" or any(status.spec.group for status in instances)
                self._printed = self._as_shown(printed(answers, with_names=named))
            case _:
                pass
        return code

    @staticmethod
    def _as_shown(text: str) -> bytes:
        """Text for standard output: on a terminal nothing in it may drive the terminal."""
        if sys.stdout.isatty():
            text = "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))
        return text.encode("utf-8", "replace")

    def finish(self, code: int) -> int:
        """Write what standard output gets at the end; returns the exit code."""
        error = self._close_lines()
        if isinstance(error, BrokenPipeError):
            self._reports.terminal.warn(
                "--results: the reader has closed the pipe: later results are in the run's directory only"
            )
        elif error is not None:
            text = f"--results: {self._handover.results}: cannot be written: {error.strerror or error}"
            self._reports.terminal.message(Level.ERROR, f"{text}: later results are in the run's directory only")
            code = code or 1
        if self._printed:
            with contextlib.suppress(OSError):  # a reader that has left is no error
                append_whole(sys.stdout.fileno(), self._printed)
        return code
