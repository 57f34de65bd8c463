"""The command line: options, their merge with the config, wiring, and errors as exit codes."""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from claude_orchestrator import __version__
from claude_orchestrator.config.config import (
    ADJUST,
    MAX_RETRIES,
    PERMISSION_MODES,
    WINDOWS,
    Config,
    InstanceConfig,
    load_config,
    unnamed,
)
from claude_orchestrator.config.plan import LaunchSpec, Plan, make_manager, make_plan
from claude_orchestrator.config.settings import DEFAULT_MAX_PARALLEL, Given, Settings, merge
from claude_orchestrator.errors import UserError
from claude_orchestrator.gateway.choice import METERS, Meter, choose_meter
from claude_orchestrator.run import run_inputs
from token_budget import places
from token_budget.budget_manager import MODES, TokenBudgetManager
from token_budget.models import MAX_LIMIT
from token_budget.pricing import EXTRA as PRICES_EXTRA
from token_budget.text import printable

if TYPE_CHECKING:
    from claude_orchestrator.run.resume import History
    from claude_orchestrator.run.run_dir import EarlierRun
    from claude_orchestrator.ui.terminal import Terminal
    from token_budget.ledger.sqlite import Ledger

PROGRAM = "claude-orchestrator"
ENV_PREFIX = "CLAUDE_ORCHESTRATOR"
CONFIG_NAME = "claude-orchestrator.json"
DEFAULT_PROMPT = "Summarise this repository: what it is for, how it is built, where to start reading."
FROM_PROMPT, FROM_NOWHERE = "PROMPT", "built-in default"  # a config's source where it is no file

GROUPS: dict[str, tuple[str, ...]] = {
    "What to run": ("config", "workspace", "resume", "rehearse", "dry_run", "start_at"),
    "Budgets": (
        "overall_token_budget",
        "command_budget",
        "budget_enforcement_mode",
        "disable_budget_visuals",
        "token_weights",
        "meter",
        "adjust",
        "budget_profile",
    ),
    "Budgets in money (estimates: subscriptions do not pay per token)": (
        "overall_cost_budget",
        "command_cost_budget",
        "daily_cost_budget",
        "weekly_cost_budget",
        "monthly_cost_budget",
        "stop_at_rate_limit",
    ),
    "Across runs": (
        "ledger",
        "daily_token_budget",
        "weekly_token_budget",
        "monthly_token_budget",
        "alert_at",
        "alert_command",
        "alert_webhook",
    ),
    "How to run it": (
        "max_parallel",
        "startup_delay",
        "timeout",
        "idle_timeout",
        "grace",
        "fail_fast",
        "retries",
        "wait_for_reset",
        "claude_bin",
    ),
    "A single instance (with PROMPT)": (
        "instance_name",
        "session_id",
        "clear_history",
        "compact_history",
        "permission_mode",
        "model",
    ),
    "Output": ("status_report_interval", "quiet", "log_level", "report", "junit", "output_dir"),
    "Commands of the workspace": ("list_commands", "inspect_command"),
}
# names of options where those of Settings differ
SETTINGS = {
    "overall_token_budget": "overall_token_budget",
    "command_budget": "command_budgets",
    "budget_enforcement_mode": "budget_enforcement_mode",
    "disable_budget_visuals": "disable_budget_visuals",
    "token_weights": "token_weights",
    "meter": "meter",
    "adjust": "adjust",
    "overall_cost_budget": "overall_cost_budget",
    "command_cost_budget": "command_cost_budgets",
    **{f"{window}_{unit}_budget": f"{window}_{unit}_budget" for window in WINDOWS for unit in ("token", "cost")},
    "stop_at_rate_limit": "stop_at_rate_limit",
    "alert_at": "alert_at",
    "max_parallel": "max_parallel",
    "startup_delay": "startup_delay_s",
    "timeout": "timeout_s",
    "idle_timeout": "idle_timeout_s",
    "grace": "grace_s",
    "fail_fast": "fail_fast",
    "retries": "retries",
    "wait_for_reset": "wait_for_reset",
    "status_report_interval": "status_report_interval_s",
}
SINGLE = GROUPS["A single instance (with PROMPT)"]


class _Command(click.Command):
    """A command whose help shows its options in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        by_name = {param.name: param for param in self.get_params(ctx)}
        grouped = {name for names in GROUPS.values() for name in names}
        rest = tuple(name for name in by_name if name not in grouped)
        for title, names in (*GROUPS.items(), ("Other", rest)):
            records = [record for name in names if (record := by_name[name].get_help_record(ctx)) is not None]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class _Number(click.FloatRange):
    """A number in a range; `nan` is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


POSITIVE = click.IntRange(min=1)
TOKENS = click.IntRange(min=1, max=MAX_LIMIT)
SOME_SECONDS = _Number(min=0, min_open=True, max=2_592_000)
SECONDS_OR_NONE = _Number(min=0, max=2_592_000)
FILE = click.Path(path_type=Path)


@click.command(
    cls=_Command,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": ENV_PREFIX},
    epilog=f"Every option can be set by environment, e.g. {ENV_PREFIX}_MAX_PARALLEL=4. "
    "Exit codes: 0 all completed; 1 some failed, were blocked or stopped; 2 bad usage or config; "
    "130/143 interrupted/terminated.",
)
@click.argument("prompt", required=False)
@click.option("--config", type=FILE, metavar="FILE", help=f"JSON config; else {CONFIG_NAME} of the workspace.")
@click.option("--workspace", type=FILE, metavar="DIR", default=Path(), help="Where instances run.  [default: here]")
@click.option("--resume", metavar="RUN_ID|last", help="Go on with an earlier run: what had completed is not run again.")
@click.option("--rehearse", is_flag=True, help="Run it with simulated instances: costs nothing, needs no claude.")
@click.option("--dry-run", is_flag=True, help="Check everything, show what would be done, launch nothing.")
@click.option("--start-at", metavar="WHEN", help="Wait until then: 30m, 2h, 14:30, 1am.")
@click.option("--overall-token-budget", type=TOKENS, metavar="N", help="Token limit for the whole run.")
@click.option(
    "--command-budget",
    multiple=True,
    metavar="/CMD=N",
    help="Token limit for a base command, or for an instance by its name. Repeatable; the last of a key counts.",
)
@click.option("--budget-enforcement-mode", type=click.Choice(MODES), help="When a budget is exceeded.  [default: warn]")
@click.option("--disable-budget-visuals", is_flag=True, default=None, help="No bars and no panel in reports.")
@click.option(
    "--token-weights",
    metavar="flat|billing|KEY=W,…",
    help="What a token of each kind draws; keys input, output, cache_write, cache_read.  [default: flat]",
)
@click.option(
    "--meter",
    type=click.Choice(METERS),
    help="Count at the API's connection, which makes a budget a hard cap, or from streams.  [default: auto]",
)
@click.option(
    "--adjust",
    type=click.Choice(ADJUST),
    help="Holds that change while instances run: grow into room that others leave, or fair shares.  [default: pool]",
)
@click.option("--budget-profile", metavar="NAME", help="A named set of limits; see token-budget profile.")
@click.option("--overall-cost-budget", metavar="USD", help="Limit in USD for the whole run.")
@click.option("--command-cost-budget", multiple=True, metavar="/CMD=USD", help="For a base command or an instance.")
@click.option("--daily-cost-budget", metavar="USD", help="For all runs of a day together.")
@click.option("--weekly-cost-budget", metavar="USD", help="For all runs of a week, from Monday on.")
@click.option("--monthly-cost-budget", metavar="USD", help="For all runs of a month.")
@click.option(
    "--stop-at-rate-limit",
    type=_Number(0, 100, min_open=True),
    metavar="PERCENT",
    help="Stop when so much of a limit of the subscription is used.",
)
@click.option(
    "--ledger", metavar="FILE|off", help="Where use is kept across runs.  [default: in the user's state directory]"
)
@click.option("--daily-token-budget", type=TOKENS, metavar="N", help="For all runs of a day together.")
@click.option("--weekly-token-budget", type=TOKENS, metavar="N", help="For all runs of a week, from Monday on.")
@click.option("--monthly-token-budget", type=TOKENS, metavar="N", help="For all runs of a month.")
@click.option("--alert-at", metavar="P,…|off", help="Percentages of any budget to tell of, once each.  [default: 80]")
@click.option("--alert-command", metavar="CMD", help="A command that gets each alert as JSON; run without a shell.")
@click.option("--alert-webhook", metavar="URL", help="An address that each alert is POSTed to as JSON.")
@click.option(
    "--max-parallel", type=POSITIVE, metavar="N", help=f"Instances at once.  [default: {DEFAULT_MAX_PARALLEL}]"
)
@click.option("--startup-delay", type=SECONDS_OR_NONE, metavar="S", help="Seconds between launches.  [default: 0]")
@click.option("--timeout", type=SOME_SECONDS, metavar="S", help="Seconds that an instance may take.")
@click.option("--idle-timeout", type=SOME_SECONDS, metavar="S", help="Seconds that an instance may print nothing.")
@click.option("--grace", type=SECONDS_OR_NONE, metavar="S", help="Seconds for a stop to be gentle.  [default: 5]")
@click.option("--fail-fast", is_flag=True, default=None, help="When an instance fails, stop all others.")
@click.option(
    "--retries",
    type=click.IntRange(0, MAX_RETRIES),
    metavar="N",
    help="More attempts after a failure that may pass: API overloaded, connection lost, …  [default: 0]",
)
@click.option("--wait-for-reset", is_flag=True, default=None, help="At a rate limit, wait until it resets and go on.")
@click.option("--claude-bin", metavar="PATH", help="The claude to run.  [default: claude on PATH]")
@click.option("--instance-name", metavar="NAME", help="Its name in reports.")
@click.option("--session-id", metavar="ID", help="Resume this session.")
@click.option("--clear-history", is_flag=True, help="Send /clear first.")
@click.option("--compact-history", is_flag=True, help="Send /compact first.")
@click.option("--permission-mode", type=click.Choice(PERMISSION_MODES), help="Claude's permission mode.")
@click.option("--model", metavar="MODEL", help="Claude's model.")
@click.option(
    "--status-report-interval",
    type=SECONDS_OR_NONE,
    metavar="S",
    help="Seconds between status reports, 0: none.  [default: 30]",
)
@click.option("--quiet", is_flag=True, help="Only errors and the final summary.")
@click.option(
    "--log-level",
    type=click.Choice(("debug", "info", "warning", "error"), case_sensitive=False),
    default="info",
    help="Which messages to show.  [default: info]",
)
@click.option("--report", type=FILE, metavar="FILE", help="Write the run as JSON.")
@click.option("--junit", type=FILE, metavar="FILE", help="Write the run as JUnit XML.")
@click.option("--output-dir", type=FILE, metavar="DIR", help="Folder for run folders with the raw stream logs.")
@click.option("--list-commands", is_flag=True, help="List slash commands and skills, then stop.")
@click.option("--inspect-command", metavar="NAME", help="Show one of them, then stop.")
@click.version_option(__version__, prog_name=PROGRAM)
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> int:
    """Run Claude Code instances in parallel, inside token budgets that count every token once.

    PROMPT ("/test --unit" or plain text) runs one instance; else --config, else claude-orchestrator.json of the
    workspace, else one harmless read-only instance that summarises the repository.
    """
    return run(options, _given(ctx, options))


def run(options: Mapping[str, Any], given: Mapping[str, Given]) -> int:
    """Load, plan, check, run, report; returns the exit code. Raises UserError before anything was started.

    `given` has each option that was given, by option or environment, by its name.
    """
    from claude_orchestrator.claude import versions
    from claude_orchestrator.cli import checks
    from claude_orchestrator.ui.terminal import Terminal

    terminal = Terminal(quiet=options["quiet"], level=options["log_level"].lower())
    output_dir = options["output_dir"] or places.runs_dir(terminal.warn, move=_writes(options))
    earlier = _earlier(options, output_dir, terminal)
    if earlier is not None:
        options = _as_before(options, given, earlier.history)
    workspace = options["workspace"].absolute()
    checks.check_workspace(workspace)
    start_in_s = _start_in(options["start_at"])
    config = _config(options, workspace)
    profile = run_inputs.find_profile(options["budget_profile"], workspace)
    settings = merge(_for_settings(given), config.budget, config.source, _given_before(earlier), profile)
    terminal.visuals = not settings.disable_budget_visuals
    only_shows = options["list_commands"] or options["inspect_command"]
    claude = "claude" if only_shows or options["rehearse"] else versions.find_claude(options["claude_bin"])
    sinks = run_inputs.check_sinks(options["alert_command"], options["alert_webhook"])
    prices = run_inputs.find_prices() if settings.in_money or not options["dry_run"] else None
    ledger = None if only_shows else _ledger(options, given, settings, terminal)
    forecasts = run_inputs.Forecasts(ledger, settings.token_weights)
    plan = make_plan(config, settings, workspace=str(workspace), claude_bin=claude, forecast=forecasts.of)
    if only_shows:
        return _show_commands(options, workspace, terminal, make_manager(plan, settings))
    checks.check_plan(plan, config.source)
    checks.check_output_dir(output_dir)
    for option in ("report", "junit"):
        if options[option] is not None:
            checks.check_writable(f"--{option}", options[option])
    meter = choose_meter(settings.meter, plan, os.environ, rehearse=options["rehearse"])
    lacks = None if options["rehearse"] else versions.check_version(claude)
    warnings = [*plan.warnings, *([lacks] if lacks else [])]
    if settings.in_money and prices is None:
        warnings.append(f"budgets in money without {PRICES_EXTRA}: what claude states no cost of has none")
    if options["dry_run"]:
        return _dry_run(plan, settings, meter, terminal, config.source, warnings, earlier, ledger)
    for warning in warnings:
        terminal.message("WARNING", warning)
    from claude_orchestrator.run import controller

    elsewhere = f" --output-dir {shlex.quote(str(output_dir))}" if options["output_dir"] else ""
    header = _header(options, given, config, workspace, claude)
    outputs = controller.Outputs(output_dir, options["report"], options["junit"], elsewhere, private=lacks is None)
    return controller.run(
        plan,
        settings,
        terminal,
        outputs,
        header,
        meter,
        rehearse=options["rehearse"],
        start_in_s=start_in_s,
        earlier=earlier,
        accounting=controller.Accounting(ledger, prices, *sinks),
    )


def _writes(options: Mapping[str, Any]) -> bool:
    """Whether this command may change files."""
    return not (options["dry_run"] or options["list_commands"] or options["inspect_command"])


def _ledger(
    options: Mapping[str, Any], given: Mapping[str, Given], settings: Settings, terminal: Terminal
) -> Ledger | None:
    """The ledger; a rehearsal has one only where an option names it, a dry run makes none."""
    named, windows = options["ledger"], run_inputs.windows_of(settings)
    if options["rehearse"] and "ledger" in given and given["ledger"].origin == "environment":
        named = None
    if named == "off" or (named is None and options["rehearse"]):
        if windows:
            why = "needs the ledger, which is off" if named else "a rehearsal has no ledger: name one (--ledger)"
            raise UserError(f"{windows[0]}: {why}")
        return None
    if named == "":
        raise UserError("--ledger: is empty: expected a file, or off")
    path = Path(named) if named else places.ledger_file(terminal.warn, move=_writes(options))
    if options["dry_run"] and not path.exists():
        from claude_orchestrator.cli import checks

        fault = checks.fault_of_place(path)
        if fault is not None and (named or windows):
            raise UserError(f"--ledger: {path}: cannot be opened: {fault}")
        return None
    return run_inputs.open_ledger(path, None if named or windows else terminal.warn)


def _given(ctx: click.Context, options: Mapping[str, Any]) -> dict[str, Given]:
    """What was given, and whether by option or by environment."""
    origins = {ParameterSource.COMMANDLINE: "option", ParameterSource.ENVIRONMENT: "environment"}
    given = {}
    for name, value in options.items():
        origin = origins.get(ctx.get_parameter_source(name) or ParameterSource.DEFAULT)
        if origin is not None:
            given[name] = Given(value, origin)
    return given


def _for_settings(given: Mapping[str, Given]) -> dict[str, Given]:
    return {SETTINGS[name]: value for name, value in given.items() if name in SETTINGS}


# -- an earlier run --


def _earlier(options: Mapping[str, Any], output_dir: Path, terminal: Terminal) -> EarlierRun | None:
    if options["resume"] is None:
        return None
    from claude_orchestrator.run.run_dir import reopen_run

    return reopen_run(output_dir, options["resume"], terminal.warn, rehearsal=options["rehearse"])


def _header(
    options: Mapping[str, Any], given: Mapping[str, Given], config: Config, workspace: Path, claude: str
) -> dict[str, Any]:
    """What a journal says of how its run was started: enough to go on with it, without prompts and environments."""
    return {
        "version": __version__,
        "workspace": str(workspace),
        "source": config.source,
        "config": None if config.source in (FROM_PROMPT, FROM_NOWHERE) else str(Path(config.source).absolute()),
        "claude_bin": claude,
        "ledger": _ledger_of_header(options["ledger"]),
        "budget_profile": options["budget_profile"],
        "settings": {name: value.value for name, value in _for_settings(given).items()},
        "single": {name: options[name] for name in SINGLE if options[name]},
    }


def _ledger_of_header(named: str | None) -> str | None:
    return named if named in (None, "off") else str(Path(named).absolute())


def _given_before(earlier: EarlierRun | None) -> dict[str, Given]:
    if earlier is None:
        return {}
    header = earlier.history.header
    return {name: Given(value, f"run {header['run']}") for name, value in header["settings"].items()}


def _as_before(options: Mapping[str, Any], given: Mapping[str, Given], history: History) -> dict[str, Any]:
    """The options of a resumed run: what is not given now is as it was given then."""
    header = history.header
    if "rehearse" in given and options["rehearse"] is not header["rehearsal"]:
        was = "a rehearsal" if header["rehearsal"] else "no rehearsal"
        raise UserError(f"--resume: run {header['run']} was {was}, which cannot change: leave out --rehearse")
    if header["source"] != FROM_PROMPT and options["prompt"] is not None:
        raise UserError("--resume: that run was not started with a PROMPT: leave it out")
    if header["source"] == FROM_PROMPT and options["prompt"] is None:
        raise UserError("--resume: that run was started with a PROMPT, which is not kept: give it again")
    config = Path(header["config"]) if header["config"] else None
    before = {
        "workspace": Path(header["workspace"]),
        "config": config,
        "claude_bin": header["claude_bin"],
        "ledger": header.get("ledger"),
        "budget_profile": header.get("budget_profile"),
        "rehearse": header["rehearsal"],
        **(header["single"] if header["source"] == FROM_PROMPT else {}),
    }
    return {**options, **{name: value for name, value in before.items() if name not in given}}


def _start_in(start_at: str | None) -> float:
    if start_at is None:
        return 0.0
    from datetime import datetime

    from claude_orchestrator.config.schedule import seconds_until

    try:
        return seconds_until(start_at, datetime.now())
    except ValueError as error:
        raise UserError(f"--start-at: {error}") from None


def _config(options: Mapping[str, Any], workspace: Path) -> Config:
    """PROMPT, else --config, else the workspace's own config, else the built-in instance."""
    prompt: str | None = options["prompt"]
    if prompt is not None:
        if options["config"] is not None:
            raise UserError("PROMPT and --config exclude each other")
        if not prompt.strip():
            raise UserError("PROMPT: is empty: expected a slash command or a prompt")
        return Config(FROM_PROMPT, (_single_instance(prompt.strip(), options),))
    named = [f"--{name.replace('_', '-')}" for name in SINGLE if options[name]]
    if named:
        raise UserError(f"{', '.join(named)}: only with a PROMPT; in a config they are keys of an instance")
    if options["config"] is not None:
        return load_config(options["config"])
    if (workspace / CONFIG_NAME).exists():
        return load_config(workspace / CONFIG_NAME)
    default = InstanceConfig("summarise-repository", DEFAULT_PROMPT, permission_mode="plan")
    return Config(FROM_NOWHERE, (default,))


def _single_instance(prompt: str, options: Mapping[str, Any]) -> InstanceConfig:
    return InstanceConfig(
        name=options["instance_name"] or unnamed(prompt),
        command=prompt,
        session_id=options["session_id"],
        clear_history=options["clear_history"],
        compact_history=options["compact_history"],
        permission_mode=options["permission_mode"],
        model=options["model"],
    )


def _dry_run(
    plan: Plan,
    settings: Settings,
    meter: Meter,
    terminal: Terminal,
    source: str,
    warnings: list[str],
    earlier: EarlierRun | None,
    ledger: Ledger | None,
) -> int:
    from claude_orchestrator.cli.dry_run import describe

    for spec in plan.specs:
        if spec.base_command is not None:
            warnings += _unknown_command(spec.base_command, spec.name, Path(spec.cwd))
    manager = make_manager(plan, settings)
    instances: list[tuple[LaunchSpec, str | None]] = [(spec, None) for spec in plan.specs]
    if earlier:
        from claude_orchestrator.run.resume import carry_over, take_up, told

        history, run_id = earlier.history, earlier.folder.path.name
        warnings = [*(text for _, text in told(plan, history, run_id)), *warnings]
        carry_over(manager, history, settings.token_weights)
        known = take_up(plan, history, run_id)
        instances = [(status.spec, str(status.state) if status.ended else None) for status in known]
    if ledger is not None and run_inputs.windows_of(settings):
        from claude_orchestrator.run.ledger_sync import look_at_others

        look_at_others(ledger, manager, settings.token_weights)
    terminal.print(
        describe(instances, manager, settings, meter, terminal.render_options(), source=source, warnings=warnings)
    )
    return 0


def _unknown_command(command: str, name: str, folder: Path) -> list[str]:
    """A warning for a slash command that neither the folder nor the user has; built-in ones differ by version."""
    from claude_orchestrator.claude import commands

    warning = commands.warning_for(command, commands.discover_here(folder))
    return [f"{name}: {warning}"] if warning else []


def _show_commands(options: Mapping[str, Any], workspace: Path, terminal: Terminal, manager: TokenBudgetManager) -> int:
    """`--list-commands` and `--inspect-command`, with the budget panel where there are budgets."""
    from claude_orchestrator.claude import commands
    from token_budget.visualization import render_budget_panel

    known = commands.discover_here(workspace)
    shown = terminal.render_options()
    name = options["inspect_command"]
    if name:
        info = commands.find(known, name)
        if info is None:
            near = commands.nearest(name, [info.name for info in known])
            raise UserError(f"--inspect-command: no command {name}" + (f"; nearest: {', '.join(near)}" if near else ""))
        lines = commands.render_inspect(info, shown.width)
    else:
        lines = commands.render_list(known, shown.width)
    if shown.visuals:
        width = min(shown.width, 77)
        lines += render_budget_panel(manager, width=width, color=shown.color, ascii_only=shown.ascii_only)
    terminal.print(lines)
    return 0


def _open_standard_streams() -> None:
    """Where the shell has closed one (`>&-`), no other file may get its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            fd = os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            setattr(sys, name, os.fdopen(fd, "w" if number else "r"))


def main() -> None:
    """The console script: runs the command and turns errors into exit codes."""
    _open_standard_streams()
    try:
        code = command.main(prog_name=PROGRAM, standalone_mode=False)
    except UserError as error:
        for line in error.lines:
            click.echo(f"ERROR: {printable(line)}", err=True)
        code = 2
    except click.ClickException as error:
        click.echo(f"ERROR: {printable(error.format_message())} (see {PROGRAM} --help)", err=True)
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        if run_inputs.is_ledger_error(error):
            click.echo(f"ERROR: --ledger: {printable(str(error))}", err=True)
            sys.exit(2)
        if isinstance(error, click.Abort) and not isinstance(error.__cause__, EOFError):
            sys.exit(130)  # click's word for Ctrl-C, but also for an EOFError
        import traceback

        traceback.print_exc()
        click.echo(f"ERROR: this is a bug in {PROGRAM} {__version__}: please report it with the above", err=True)
        code = 3
    sys.exit(code or 0)
