"""The program: load, plan, check, then show or run; and errors as exit codes."""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from claude_orchestrator.cli.console import run_script
from claude_orchestrator.cli.options import make_command
from claude_orchestrator.config.fields import PROGRAM
from claude_orchestrator.config.given import Options
from claude_orchestrator.errors import UserError

if TYPE_CHECKING:
    from claude_orchestrator.engine.loading import Loaded
    from claude_orchestrator.engine.preparation import Planned, Preparation
    from claude_orchestrator.engine.run_request import Door
    from claude_orchestrator.engine.run_view import RunView
    from claude_orchestrator.ui.terminal import Terminal

SCRIPTS = (PROGRAM, "claude-instance-orchestrator")


def run(options: Options) -> int:
    """Load, plan, check, then show or run; returns the exit code. Raises UserError before anything has started."""
    from claude_orchestrator.engine import loading, preparation
    from claude_orchestrator.ui.terminal import Terminal

    terminal = Terminal(quiet=options["quiet"], level=_level(options))
    if options["init"]:
        from claude_orchestrator.cli.without_run import write_first_config

        return write_first_config(options, terminal)
    if options.prompt == "-" and options["for_each"] in ("-", "@-"):
        raise UserError("PROMPT and --for-each cannot both read standard input: give one of them another way")
    if options["apply"] is not None:
        from claude_orchestrator.cli.apply import apply

        return apply(options, terminal)
    if options["only"] is not None:
        raise UserError("--only: chooses the instances of --apply, which is not given")
    prompt = _standard_input() if options.prompt == "-" else options.prompt
    loaded = loading.load(Options(prompt, options.values, options.given), terminal.warn)
    planned = preparation.plan(loaded, terminal.warn)
    if loaded.only_shows:
        from claude_orchestrator.cli.without_run import show_commands

        return show_commands(loaded, planned, terminal)
    prints = _printed(options, loaded.config.source)
    checked = preparation.check(loaded, planned, partial(terminal.message, "INFO"))
    with contextlib.closing(checked):
        if options["graph"] is not None:
            from claude_orchestrator.cli.without_run import write_graph

            write_graph(options["graph"], planned)
        if options["dry_run"]:
            from claude_orchestrator.cli.without_run import show_plan

            return show_plan(loaded, planned, checked, terminal)
        return start(loaded, planned, checked, terminal, prints)


def _level(options: Options) -> str:
    return "debug" if options["verbose"] else str(options["log_level"])


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise UserError(f"PROMPT: standard input is not UTF-8 text (byte {error.start})") from None


def start(loaded: Loaded, planned: Planned, checked: Preparation, terminal: Terminal, prints: str) -> int:
    """Run the plan to its end, report it, and return the exit code. `prints` is for Handover."""
    from claude_orchestrator.cli.run_plan import Handover, run_plan
    from claude_orchestrator.engine.preparation import run_parts
    from claude_orchestrator.ui.report_files import Reports
    from claude_orchestrator.ui.terminal import Terminal

    options = loaded.options
    handover = Handover(options["results"], append=loaded.earlier is not None, prints=prints)
    if prints or _is_stdout(options["results"]):  # then messages and tables go to standard error
        terminal = Terminal(out=sys.stderr, quiet=options["quiet"], level=_level(options))
    for warning in checked.warnings:
        terminal.warn(warning)
    reports = Reports(
        terminal,
        visuals=not loaded.settings.disable_budget_visuals,
        columns=options["columns"],
        report=None if _is_stdout(options["report"]) else options["report"],
        junit=None if _is_stdout(options["junit"]) else options["junit"],
        summary=None if _is_stdout(options["summary"]) else options["summary"],
        html=options["html"],
        continue_with=partial(_continue_command, options),
        apply_with=partial(_apply_line, options),
    )
    request, place, accounting = run_parts(loaded, planned, checked)
    port = options["dashboard"] if "dashboard" in options.given else loaded.config.dashboard
    doors = [page_door(options, port, terminal)] if port is not None else []
    if options["otlp"] is not None:
        doors.append(otlp_door(options["otlp"]))
    request = request._replace(doors=tuple(doors))
    return run_plan(request, place, accounting, reports, handover)


def _continue_command(options: Options, view: RunView) -> str:
    from claude_orchestrator.engine.continuing import continue_command

    return continue_command(options, view)


def _apply_line(options: Options, view: RunView) -> str | None:
    if all(status.changes is None for status in view.instances):
        return None
    from claude_orchestrator.engine.continuing import apply_line

    return apply_line(options, view)


def page_door(options: Options, port: int, terminal: Terminal) -> Door:
    """The page of the run, whose address is taken now. Raises UserError."""
    from claude_orchestrator.engine.run_events import Level
    from claude_orchestrator.ui.web.dashboard import DASHBOARD, page_of
    from token_budget.serving.listening import PageOptions, bind

    where = PageOptions(
        port, options["dashboard_host"], options["dashboard_token_file"], options["dashboard_read_only"]
    )
    try:
        return page_of(bind(where, DASHBOARD), partial(terminal.message, Level.INFO))
    except ValueError as error:
        raise UserError(str(error)) from None


def otlp_door(endpoint: str) -> Door:
    """What reports the run to a collector. Raises UserError."""
    from claude_orchestrator.ui.otlp.pipeline import otlp_to

    try:
        return otlp_to(endpoint)
    except ValueError as error:
        raise UserError(str(error)) from None


def _is_stdout(path: Path | None) -> bool:
    return path == Path("-")


def _printed(options: Options, source: str) -> str:
    """What a run prints on standard output at its end, besides result lines. Raises UserError."""
    from claude_orchestrator.engine.loading import FROM_NOWHERE, FROM_PROMPT

    asked = [
        option
        for option, there in (
            ("--results -", _is_stdout(options["results"])),
            ("--report -", _is_stdout(options["report"])),
            ("--junit -", _is_stdout(options["junit"])),
            ("--summary -", _is_stdout(options["summary"])),
            ("--print-results", options["print_results"]),
        )
        if there
    ]
    if len(asked) > 1:
        raise UserError(f"{' and '.join(asked)}: only one of them can have standard output")
    if not asked:
        return "answer" if source in (FROM_PROMPT, FROM_NOWHERE) else ""
    printed = {"--report -": "report", "--junit -": "junit", "--summary -": "summary", "--print-results": "answers"}
    return printed.get(asked[0], "")


# -- the console script --

command = make_command(run)


def main() -> None:
    """The console script: runs the command and turns errors into exit codes."""
    run_script(command, SCRIPTS)
