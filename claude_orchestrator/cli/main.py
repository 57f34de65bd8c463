"""The program: load, plan, check, then show or run; and errors as exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from claude_orchestrator import __version__
from claude_orchestrator.cli.options import OPTIONS, SINGLE_OPTIONS, Options, make_command
from claude_orchestrator.config.fields import CONFIG_NAME, PROGRAM
from claude_orchestrator.config.given import Given
from claude_orchestrator.errors import UserError
from token_budget import places
from token_budget.text import printable

if TYPE_CHECKING:
    from claude_orchestrator.config.config import Config
    from claude_orchestrator.config.plan import LaunchSpec, Plan
    from claude_orchestrator.config.settings import Settings
    from claude_orchestrator.engine.resume import JournalHistory
    from claude_orchestrator.engine.run_dir import EarlierRun
    from claude_orchestrator.gateway.choice import Meter
    from claude_orchestrator.ui.terminal import Terminal
    from token_budget.ledger.store import LedgerStore
    from token_budget.pricing import Prices
    from token_budget.text import RenderOptions

SCRIPTS = (PROGRAM, "claude-instance-orchestrator")
DEFAULT_PROMPT = "Summarise this repository: what it is for, how it is built, where to start reading."
MAX_REPEATED_CHARS = 200  # of a PROMPT, in the command that continues its run
FROM_PROMPT, FROM_NOWHERE = "PROMPT", "built-in default"  # a config's source where it is no file


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything that the user asked for, read and checked, but not yet compared with this machine."""

    options: Options
    earlier: EarlierRun | None
    output_dir: Path
    workspace: Path
    start_in_s: float
    config: Config
    settings: Settings
    alert_command: tuple[str, ...] | None
    alert_webhook: str | None

    @property
    def only_shows(self) -> bool:
        """Whether commands are only listed or shown."""
        return bool(self.options["list_commands"] or self.options["inspect_command"])


@dataclass(frozen=True, slots=True)
class Planned:
    """What a run would do, and what it uses: the claude, the prices, the ledger."""

    plan: Plan
    claude: str
    prices: Prices | None
    ledger: LedgerStore | None


@dataclass(frozen=True, slots=True)
class Checked:
    """How instances will be counted, what deserves a warning, and whether claude can take secrets by file."""

    meter: Meter
    warnings: list[str]
    private: bool


def run(options: Options) -> int:
    """Load, plan, check, then show or run; returns the exit code. Raises UserError before anything has started."""
    from claude_orchestrator.ui.terminal import Terminal

    terminal = Terminal(quiet=options["quiet"], level=options["log_level"])
    loaded = load(options, terminal)
    planned = plan(loaded, terminal)
    if loaded.only_shows:
        return show_commands(loaded, planned, terminal)
    checked = check(loaded, planned)
    if options["dry_run"]:
        return show_plan(loaded, planned, checked, terminal)
    return start(loaded, planned, checked, terminal)


# -- load: options, an earlier run, config, profile --


def load(options: Options, terminal: Terminal) -> Loaded:
    """Read everything that the options name. Raises UserError."""
    from claude_orchestrator.cli import checks
    from claude_orchestrator.config.settings import merge
    from claude_orchestrator.engine import run_inputs

    output_dir = options["output_dir"] or places.runs_dir(terminal.warn, move=options.may_write)
    earlier = _earlier(options, output_dir, terminal)
    if earlier is not None:
        options = _as_before(options, earlier.history)
    workspace = options["workspace"].absolute()
    checks.check_workspace(workspace)
    start_in_s = _start_in(options["start_at"])
    config = checks.with_schemas(_config(options, workspace), workspace)
    profile = run_inputs.find_profile(options["budget_profile"], workspace)
    settings = merge(options.settings, config.budget, config.source, _given_before(earlier), profile)
    sinks = run_inputs.check_sinks(options["alert_command"], options["alert_webhook"])
    return Loaded(options, earlier, output_dir, workspace, start_in_s, config, settings, *sinks)


def _earlier(options: Options, output_dir: Path, terminal: Terminal) -> EarlierRun | None:
    if options["resume"] is None:
        return None
    from claude_orchestrator.engine.run_dir import reopen_run

    return reopen_run(output_dir, options["resume"], terminal.warn, rehearsal=options["rehearse"])


def _given_before(earlier: EarlierRun | None) -> dict[str, Given]:
    if earlier is None:
        return {}
    header = earlier.history.header
    return {name: Given(value, f"run {header['run']}") for name, value in header["settings"].items()}


def _as_before(options: Options, history: JournalHistory) -> Options:
    """The options of a resumed run: those that are not given now are as they were given then."""
    header = history.header
    if "rehearse" in options.given and options["rehearse"] is not header["rehearsal"]:
        was = "a rehearsal" if header["rehearsal"] else "no rehearsal"
        raise UserError(f"--resume: run {header['run']} was {was}, and that cannot change: leave out --rehearse")
    if header["source"] != FROM_PROMPT and options.prompt is not None:
        raise UserError("--resume: that run was not started with a PROMPT: leave it out")
    if header["source"] == FROM_PROMPT and options.prompt is None:
        raise UserError("--resume: that run was started with a PROMPT, which is not stored: give it again")
    return options.with_earlier(
        {
            "workspace": Path(header["workspace"]),
            "config": Path(header["config"]) if header["config"] else None,
            "claude_bin": header["claude_bin"],
            "ledger": header.get("ledger"),
            "budget_profile": header.get("budget_profile"),
            "rehearse": header["rehearsal"],
            **(header["single"] if header["source"] == FROM_PROMPT else {}),
        }
    )


def _start_in(start_at: str | None) -> float:
    if start_at is None:
        return 0.0
    from datetime import datetime

    from claude_orchestrator.config.schedule import seconds_until

    try:
        return seconds_until(start_at, datetime.now())
    except ValueError as error:
        raise UserError(f"--start-at: {error}") from None


def _config(options: Options, workspace: Path) -> Config:
    """PROMPT, else --config, else the workspace's own config, else the built-in instance."""
    from claude_orchestrator.config.config import Config, InstanceConfig, load_config, unnamed

    prompt, single = options.prompt, {param: options[param] for param in SINGLE_OPTIONS if options[param]}
    if prompt is not None:
        if options["config"] is not None:
            raise UserError("PROMPT and --config exclude each other")
        prompt = (_standard_input() if prompt == "-" else prompt).strip()
        if not prompt:
            raise UserError("PROMPT: is empty: expected a slash command or a prompt")
        keys = {OPTIONS[param].instance: value for param, value in single.items()}
        return Config(FROM_PROMPT, (InstanceConfig(**{"name": unnamed(prompt), "command": prompt, **keys}),))
    if single:
        named = ", ".join(f"--{OPTIONS[param].option}" for param in single)
        raise UserError(f"{named}: only with a PROMPT; in a config they are keys of an instance")
    if options["config"] is not None:
        return load_config(options["config"])
    if (workspace / CONFIG_NAME).exists():
        return load_config(workspace / CONFIG_NAME)
    return Config(FROM_NOWHERE, (InstanceConfig("summarise-repository", DEFAULT_PROMPT, permission_mode="plan"),))


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise UserError(f"PROMPT: standard input is not UTF-8 text (byte {error.start})") from None


# -- plan: what would be launched, by which claude --


def plan(loaded: Loaded, terminal: Terminal) -> Planned:
    """Plan what would be launched. Raises UserError."""
    from claude_orchestrator.claude import versions
    from claude_orchestrator.config.plan import make_plan
    from claude_orchestrator.engine import run_inputs

    options, settings = loaded.options, loaded.settings
    no_claude = loaded.only_shows or options["rehearse"]
    claude = "claude" if no_claude else versions.find_claude(options["claude_bin"])
    prices = run_inputs.find_prices() if settings.in_money or not options["dry_run"] else None
    ledger = None if loaded.only_shows else _ledger(options, settings, terminal)
    forecasts = run_inputs.Forecasts(ledger, settings.token_weights)
    workspace = str(loaded.workspace)
    made = make_plan(loaded.config, settings, workspace=workspace, claude_bin=claude, forecast=forecasts.of)
    return Planned(made, claude, prices, ledger)


def _ledger(options: Options, settings: Settings, terminal: Terminal) -> LedgerStore | None:
    """The ledger. A rehearsal has one only if an option names it; a dry run creates none."""
    from claude_orchestrator.engine import run_inputs

    named, windows = _ledger_option(options), run_inputs.windows_of(settings)
    if named == "off" or (named is None and options["rehearse"]):
        if windows:
            why = "needs the ledger, which is off" if named else "a rehearsal has no ledger: name one (--ledger)"
            raise UserError(f"{windows[0]}: {why}")
        return None
    path = Path(named) if named else places.ledger_file(terminal.warn, move=options.may_write)
    if options["dry_run"] and not path.exists():
        from claude_orchestrator.cli import checks

        fault = checks.fault_of_place(path)
        if fault is not None and (named or windows):
            raise UserError(f"--ledger: {path}: cannot be opened: {fault}")
        return None
    return run_inputs.open_ledger(path, None if named or windows else terminal.warn)


def _ledger_option(options: Options) -> str | None:
    """The ledger that was named; the environment names none for a rehearsal."""
    named: str | None = options["ledger"]
    if named == "":
        raise UserError("--ledger: is empty: expected a file, or off")
    given = options.given.get("ledger")
    return None if options["rehearse"] and given is not None and given.origin == "environment" else named


# -- check: what has to be there before anything starts --


def check(loaded: Loaded, planned: Planned) -> Checked:
    """Refuse what cannot work, with UserError; collect what deserves a warning."""
    from claude_orchestrator.claude import versions
    from claude_orchestrator.cli import checks
    from claude_orchestrator.gateway.choice import choose_meter
    from token_budget.pricing import EXTRA

    options, settings = loaded.options, loaded.settings
    _printed(options, loaded.config.source)
    checks.check_plan(planned.plan, loaded.config)
    checks.check_output_dir(loaded.output_dir)
    for option in ("report", "junit", "results"):
        if options[option] is not None and not (option != "junit" and _is_stdout(options[option])):
            checks.check_writable(f"--{option}", options[option])
    meter = choose_meter(settings.meter, planned.plan, os.environ, rehearse=options["rehearse"])
    lacks = None if options["rehearse"] else versions.check_version(planned.claude)
    doubts = () if options["rehearse"] else checks.doubts(planned.plan, loaded.config, os.environ)
    warnings = [*planned.plan.warnings, *([lacks] if lacks else []), *doubts]
    if settings.in_money and planned.prices is None:
        warnings.append(f"budgets in money without {EXTRA}: what claude states no cost for is not counted")
    return Checked(meter, warnings, private=lacks is None)


# -- show, or run --


def show_commands(loaded: Loaded, planned: Planned, terminal: Terminal) -> int:
    """Print the commands of the workspace."""
    from claude_orchestrator.cli.commands_view import render_commands
    from claude_orchestrator.config.plan import make_manager

    manager = make_manager(planned.plan, loaded.settings)
    name = loaded.options["inspect_command"]
    terminal.print(render_commands(loaded.workspace, name, manager, _shown(loaded, terminal)))
    return 0


def show_plan(loaded: Loaded, planned: Planned, checked: Checked, terminal: Terminal) -> int:
    """Print what a run would do."""
    from claude_orchestrator.cli.commands_view import warn_of_unknown
    from claude_orchestrator.cli.dry_run import DryRun, describe
    from claude_orchestrator.config.plan import make_manager
    from claude_orchestrator.engine import run_inputs

    settings, specs = loaded.settings, planned.plan.specs
    warnings = list(checked.warnings)
    for spec in specs:
        if spec.base_command is not None:
            warnings += warn_of_unknown(spec.base_command, spec.name, Path(spec.cwd))
    manager = make_manager(planned.plan, settings)
    instances: list[tuple[LaunchSpec, str | None]] = [(spec, None) for spec in specs]
    if loaded.earlier:
        from claude_orchestrator.engine.resume import carry_over, restore, resume_messages

        history, run_id = loaded.earlier.history, loaded.earlier.directory.path.name
        warnings = [*(text for _, text in resume_messages(planned.plan, history, run_id)), *warnings]
        carry_over(manager, history, settings.token_weights)
        known = restore(planned.plan, history, run_id)
        instances = [(status.spec, str(status.state) if status.ended else None) for status in known]
    if planned.ledger is not None and run_inputs.windows_of(settings):
        from claude_orchestrator.engine.ledger_sync import read_shared

        read_shared(planned.ledger, manager, settings.token_weights)
    dry_run = DryRun(instances, manager, settings, checked.meter, loaded.config.source, warnings)
    terminal.print(describe(dry_run, _shown(loaded, terminal)))
    return 0


def _shown(loaded: Loaded, terminal: Terminal) -> RenderOptions:
    return terminal.render_options(visuals=not loaded.settings.disable_budget_visuals)


def start(loaded: Loaded, planned: Planned, checked: Checked, terminal: Terminal) -> int:
    """Run the plan to its end, report it, and return the exit code."""
    from claude_orchestrator.cli.run_plan import Handover, run_plan
    from claude_orchestrator.engine.controller import Accounting, RunPlace, RunRequest
    from claude_orchestrator.ui.report_files import Reports
    from claude_orchestrator.ui.terminal import Terminal

    options, settings = loaded.options, loaded.settings
    prints = _printed(options, loaded.config.source)
    handover = Handover(options["results"], append=loaded.earlier is not None, prints=prints)
    if prints or _is_stdout(options["results"]):  # then messages and tables go to standard error
        terminal = Terminal(out=sys.stderr, quiet=options["quiet"], level=options["log_level"])
    for warning in checked.warnings:
        terminal.warn(warning)
    header = _header(loaded, planned.claude)
    request = RunRequest(planned.plan, settings, checked.meter, header, options["rehearse"], loaded.start_in_s)
    place = RunPlace(loaded.output_dir, loaded.earlier, private=checked.private)
    accounting = Accounting(planned.ledger, planned.prices, loaded.alert_command, loaded.alert_webhook)
    reports = Reports(
        terminal,
        visuals=not settings.disable_budget_visuals,
        report=None if _is_stdout(options["report"]) else options["report"],
        junit=options["junit"],
        continue_with=partial(_continue_command, options),
    )
    return run_plan(request, place, accounting, reports, handover)


def _is_stdout(path: Path | None) -> bool:
    return path == Path("-")


def _printed(options: Options, source: str) -> str:
    """What a run prints on standard output at its end, besides result lines. Raises UserError."""
    asked = [
        option
        for option, there in (
            ("--results -", _is_stdout(options["results"])),
            ("--report -", _is_stdout(options["report"])),
            ("--print-results", options["print_results"]),
        )
        if there
    ]
    if len(asked) > 1:
        raise UserError(f"{' and '.join(asked)}: only one of them can have standard output")
    if not asked:
        return "answer" if source in (FROM_PROMPT, FROM_NOWHERE) else ""
    return {"--report -": "report", "--print-results": "answers"}.get(asked[0], "")


def _continue_command(options: Options, run_id: str) -> str:
    """The command that continues a run: what the run itself does not keep is given again."""
    import shlex

    words = [PROGRAM, "--resume", run_id]
    if "output_dir" in options.given and options.given["output_dir"].origin == "option":
        words += ["--output-dir", str(options["output_dir"].absolute())]
    if options.prompt is None:
        return shlex.join(words)
    if options.prompt == "-" or len(options.prompt) > MAX_REPEATED_CHARS or not options.prompt.isprintable():
        return f"{shlex.join(words)} -  (with the same PROMPT on standard input)"
    return shlex.join([*words, options.prompt])


def _header(loaded: Loaded, claude: str) -> dict[str, Any]:
    """What a journal stores about the start of its run: enough to continue it, without prompts and environments."""
    options, source = loaded.options, loaded.config.source
    ledger = options["ledger"]
    return {
        "version": __version__,
        "workspace": str(loaded.workspace),
        "source": source,
        "config": None if source in (FROM_PROMPT, FROM_NOWHERE) else str(Path(source).absolute()),
        "claude_bin": claude,
        "ledger": ledger if ledger in (None, "off") else str(Path(ledger).absolute()),
        "budget_profile": options["budget_profile"],
        "settings": {name: given.value for name, given in options.settings.items()},
        "single": {param: options[param] for param in SINGLE_OPTIONS if options[param]},
    }


# -- the console script --

command = make_command(run)


def _open_standard_streams() -> None:
    """Open those that the shell has closed (`>&-`), so that no other file gets their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            fd = os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            setattr(sys, name, os.fdopen(fd, "w" if number else "r"))


def _script(argv0: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """The name that this program was called by, and the variable with which a shell asks that name for completion."""
    name = Path(argv0).name.removesuffix(".exe")
    name = PROGRAM if name in ("", "-c", "-m", "__main__.py") else name
    variables = {
        f"_{script}_COMPLETE".replace("-", "_").replace(".", "_").upper(): script for script in (name, *SCRIPTS)
    }
    asked = next((variable for variable in variables if environ.get(variable)), None)
    return (variables[asked], asked) if asked else (name, next(iter(variables)))


def main() -> None:
    """The console script: runs the command and turns errors into exit codes."""
    _open_standard_streams()
    name, variable = _script(sys.argv[0], os.environ)
    try:
        code = command.main(prog_name=name, complete_var=variable, standalone_mode=False)
    except UserError as error:
        for line in error.lines:
            click.echo(f"ERROR: {printable(line)}", err=True)
        code = 2
    except click.ClickException as error:
        click.echo(f"ERROR: {printable(error.format_message())} (see {name} --help)", err=True)
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        from claude_orchestrator.engine import run_inputs

        if run_inputs.is_ledger_error(error):
            click.echo(f"ERROR: --ledger: {printable(str(error))}", err=True)
            sys.exit(2)
        if isinstance(error, click.Abort) and not isinstance(error.__cause__, EOFError):
            sys.exit(130)  # click's word for Ctrl-C, but also for an EOFError
        import traceback

        traceback.print_exc()
        click.echo(f"ERROR: this is a bug in {PROGRAM} {__version__}: please report it with the text above", err=True)
        code = 3
    sys.exit(code or 0)
