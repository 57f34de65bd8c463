"""Writes a run's reports at its end: the final report on the terminal, and the files that the user asked for."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from claude_orchestrator.engine.results.answers import AnswerOf, no_answers
from claude_orchestrator.engine.run_events import Level
from claude_orchestrator.engine.run_request import RunResult
from claude_orchestrator.engine.run_view import RunView, exit_code
from claude_orchestrator.ui import status
from claude_orchestrator.ui.terminal import Terminal
from token_budget.files import write_atomically
from token_budget.named_tuples import NamedTuple
from token_budget.text import printable

Content = Callable[[RunResult, AnswerOf], bytes]


class Reports(NamedTuple):
    """Where the reports of a run go; `continue_with` gives the command that continues a run, and
    `apply_with` the line about its changes, if there are any."""

    terminal: Terminal
    columns: tuple[str, ...]
    visuals: bool = True
    report: Path | None = None
    junit: Path | None = None
    summary: Path | None = None
    html: Path | None = None
    continue_with: Callable[[RunView], str] | None = None
    apply_with: Callable[[RunView], str | None] = lambda view: None

    def write(self, result: RunResult, answer_of: AnswerOf = no_answers) -> int:
        """Write the reports; returns the run's exit code, or 1 if the run succeeded and a file cannot be written."""
        options = self.terminal.render_options(visuals=self.visuals)
        lines = status.final_report(result.view, time.monotonic(), options, self.columns)
        apply = self.apply_with(result.view)
        if apply is not None:
            lines.append(printable(apply))
        if self.continue_with is not None and exit_code(result.view.instances):
            lines.append(f"Continue what did not complete: {printable(self.continue_with(result.view))}")
        self.terminal.print(lines)
        code = result.exit_code
        files: list[tuple[Path | None, Content]] = [
            (self.report, json_bytes),
            (self.junit, junit_bytes),
            (self.summary, summary_bytes),
            (self.html, html_bytes),
        ]
        for path, content in files:
            if path is None:
                continue
            try:
                write_atomically(path, [content(result, answer_of)])
            except OSError as error:
                self.terminal.message(Level.ERROR, f"{path}: cannot be written: {error.strerror or error}")
                code = code or 1
        self._add_to_step_summary(result, answer_of)
        return code

    def _add_to_step_summary(self, result: RunResult, answer_of: AnswerOf) -> None:
        """Add the summary to that of a step in GitHub Actions. What is there already counts for its limit."""
        name = os.environ.get("GITHUB_STEP_SUMMARY") if self.terminal.is_workflow else None
        if not name:
            return
        from claude_orchestrator.ui.ci.markdown import MAX_BYTES, markdown_summary

        try:
            with Path(name).open("ab") as file:
                text = markdown_summary(result.view, time.monotonic(), answer_of, MAX_BYTES - file.tell())
                if not text:
                    raise OSError("there is no room left in it")
                file.write(text.encode("utf-8", "replace"))
        except OSError as error:
            self.terminal.warn(f"GITHUB_STEP_SUMMARY: {name}: cannot be written: {error.strerror or error}")


def json_bytes(result: RunResult, answer_of: AnswerOf) -> bytes:
    """The JSON report as a file's content."""
    from claude_orchestrator.engine.results.report_json import json_report

    data = json_report(result.view, result.ended_at, result.exit_code, answer_of)
    return json.dumps(data, indent=2).encode() + b"\n"


def html_bytes(result: RunResult, answer_of: AnswerOf) -> bytes:
    """The page of the run as a file's content."""
    from claude_orchestrator.ui.web import finished  # only for who wants it

    return finished.html_bytes(result)


def junit_bytes(result: RunResult, answer_of: AnswerOf) -> bytes:
    """The JUnit report as a file's content."""
    from claude_orchestrator.ui.junit import junit_report  # with an XML library

    return junit_report(result.view, result.seconds, answer_of)


def summary_bytes(result: RunResult, answer_of: AnswerOf) -> bytes:
    """The summary in Markdown as a file's content."""
    from claude_orchestrator.ui.ci.markdown import markdown_summary

    return markdown_summary(result.view, time.monotonic(), answer_of).encode("utf-8", "replace")
