"""What the program does without a run: it writes a first config or a graph, and shows commands or the plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from claude_orchestrator.config.fields import CONFIG_NAME, PROGRAM
from claude_orchestrator.config.given import Options
from claude_orchestrator.errors import UserError
from token_budget import places
from token_budget.text import counted

if TYPE_CHECKING:
    from claude_orchestrator.config.launch_spec import LaunchSpec
    from claude_orchestrator.engine.loading import Loaded
    from claude_orchestrator.engine.preparation import Planned, Preparation
    from claude_orchestrator.ui.terminal import Terminal
    from token_budget.text import RenderOptions


def write_first_config(options: Options, terminal: Terminal) -> int:
    """Write a config for the workspace, unless it has one. Raises UserError."""
    from claude_orchestrator.claude.commands import discover_here
    from claude_orchestrator.cli.first_config import first_config, is_of_project
    from claude_orchestrator.engine import run_inputs, start_checks
    from token_budget.ledger.address import is_address
    from token_budget.models import Unit, Weights

    workspace = options["workspace"].absolute()
    start_checks.check_workspace(workspace)
    place = options["ledger"] or str(places.ledger_file(terminal.warn, move=False))
    there = is_address(place) or Path(place).is_file()
    ledger = run_inputs.open_ledger(place, terminal.warn, create=not is_address(place)) if there else None
    forecasts = run_inputs.Forecasts(ledger, Weights())

    def usual_tokens(command: str) -> int | None:
        found = forecasts.of(command, "", None, Unit.TOKENS)
        return found.p90 if found is not None else None

    commands = [info for info in discover_here(workspace) if is_of_project(info)]
    text, tokens = first_config(commands, usual_tokens)
    target = workspace / CONFIG_NAME
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"--init: {target} already exists and was not changed") from None
    except OSError as error:
        raise UserError(f"--init: {target}: cannot be written: {error.strerror or error}") from None
    terminal.print([f"Wrote {target}, with a limit of {counted(tokens, 'token')}. Check it: {PROGRAM} --dry-run"])
    return 0


def show_commands(loaded: Loaded, planned: Planned, terminal: Terminal) -> int:
    """Print the commands of the workspace."""
    from claude_orchestrator.cli.commands_view import render_commands
    from claude_orchestrator.config.plan import make_manager

    manager = make_manager(planned.plan, planned.settings)
    name = loaded.options["inspect_command"]
    terminal.print(render_commands(loaded.workspace, name, manager, _shown(loaded, terminal)))
    return 0


def show_plan(loaded: Loaded, planned: Planned, checked: Preparation, terminal: Terminal) -> int:
    """Print what a run would do."""
    from claude_orchestrator.cli.commands_view import warn_of_unknown
    from claude_orchestrator.cli.dry_run import DryRun, describe
    from claude_orchestrator.config.plan import make_manager
    from claude_orchestrator.engine import preparation, run_inputs, start_checks

    settings, specs = planned.settings, planned.plan.specs
    warnings = [*checked.warnings, *start_checks.without_permissions(loaded.config), *warn_of_unknown(specs)]
    manager = make_manager(planned.plan, settings)
    instances: list[tuple[LaunchSpec, str | None]] = [(spec, None) for spec in specs]
    if loaded.earlier:
        from claude_orchestrator.engine.interrupted import interrupted_attempts
        from claude_orchestrator.engine.resume import carry_over, charge_in_flight, restore, resume_messages

        history, run_id = loaded.earlier.history, loaded.earlier.directory.path.name
        said: list[tuple[str, str]] = []
        if history.was_interrupted and not loaded.options["rehearse"]:
            _, said = interrupted_attempts(loaded.earlier.directory.folder, history, planned.plan, settings, None)
        said += charge_in_flight(history, settings.charge_unanswered)
        said = [*resume_messages(planned.plan, history, run_id), *said]
        warnings = [*(text for _, text in said), *warnings]
        carry_over(manager, history, settings.token_weights)
        known = restore(planned.plan, history, run_id)
        instances = [(status.spec, str(status.state) if status.ended else None) for status in known]
    if planned.ledger is not None and run_inputs.windows_of(settings):
        from claude_orchestrator.engine.ledger_sync import read_shared

        read_shared(planned.ledger, manager, settings.token_weights, planned.charged)
    groups = loaded.config.groups
    dry_run = DryRun(
        instances,
        manager,
        settings,
        checked.meter,
        loaded.config.source,
        warnings,
        groups,
        run_inputs.trials_of(planned.ledger, groups, settings.token_weights),
        in_full=loaded.options["log_level"] == "debug",
        fence=start_checks.fence(),
        cluster=checked.cluster.describe(specs) if checked.cluster is not None else (),
        head="HEAD and all that is not committed" if None in planned.complete else "HEAD",
        keeping=preparation.keeping_lines(planned),
    )
    terminal.print(describe(dry_run, _shown(loaded, terminal)))
    return 0


def write_graph(path: Path, planned: Planned) -> None:
    """Write the graph of the plan in the format that the file's name asks for. Raises UserError."""
    from claude_orchestrator.cli.graph_view import as_mermaid, as_svg, graph_of
    from token_budget.files import write_atomically

    formats = {".mmd": as_mermaid, ".svg": as_svg}
    if path.suffix not in formats:
        raise UserError(f"--graph: {path}: expected a file that ends in .mmd or .svg")
    try:
        write_atomically(path, [formats[path.suffix](graph_of(planned.plan.specs)).encode("utf-8", "replace")])
    except OSError as error:
        raise UserError(f"--graph: {path}: cannot be written: {error.strerror or error}") from None


def _shown(loaded: Loaded, terminal: Terminal) -> RenderOptions:
    return terminal.render_options(visuals=not loaded.settings.disable_budget_visuals)
