"""The steps before a run: load, plan, check. The program and the Python API share them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from claude_orchestrator import __version__
from claude_orchestrator.config.fields import CONFIG_NAME
from claude_orchestrator.config.given import OPTIONS, SINGLE_OPTIONS, Given, Options
from claude_orchestrator.errors import UserError
from token_budget import places

if TYPE_CHECKING:
    from claude_orchestrator.config.config import Config
    from claude_orchestrator.config.item_sources import ForEach
    from claude_orchestrator.config.plan import Plan
    from claude_orchestrator.config.settings import Meter, Settings
    from claude_orchestrator.engine.controller import Accounting, RunPlace, RunRequest
    from claude_orchestrator.engine.resume import JournalHistory
    from claude_orchestrator.engine.run_dir import EarlierRun
    from token_budget.ledger.store import LedgerStore
    from token_budget.pricing import Prices

Warn = Callable[[str], None]
DEFAULT_PROMPT = "Summarise this repository: what it is for, how it is built, where to start reading."
# a config's source where it is no file
FROM_PROMPT, FROM_NOWHERE, FROM_DATA = "PROMPT", "built-in default", "config"
NO_FILES = (FROM_PROMPT, FROM_NOWHERE, FROM_DATA)


class Loaded(NamedTuple):
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


class Planned(NamedTuple):
    """What a run would do, and what it uses: the claude, the prices, the ledger."""

    plan: Plan
    claude: str
    prices: Prices | None
    ledger: LedgerStore | None


class Checked(NamedTuple):
    """How instances will be counted, what deserves a warning, and whether claude can take secrets by file."""

    meter: Meter
    warnings: list[str]
    private: bool


# -- load: options, an earlier run, config, profile --


def load(options: Options, warn: Warn, data: Mapping[str, Any] | None = None) -> Loaded:
    """Read everything that the options name. `data` takes the place of a config file. Raises UserError."""
    from claude_orchestrator.config.settings import merge
    from claude_orchestrator.engine import run_inputs, start_checks
    from claude_orchestrator.engine.sessions import with_sessions

    for param in options.given:
        if OPTIONS[param].no_effect:
            warn(f"--{OPTIONS[param].option} has no effect: {OPTIONS[param].no_effect}")
    output_dir = options["output_dir"] or places.runs_dir(warn, move=options.may_write)
    earlier = _earlier(options, output_dir, warn)
    if earlier is not None:
        options = _as_before(options, earlier.history)
    workspace = options["workspace"].absolute()
    start_checks.check_workspace(workspace)
    start_in_s = _start_in(options["start_at"])
    config = _expanded(_config(options, workspace, data), options, workspace)
    config = with_sessions(start_checks.with_schemas(config, workspace), workspace, os.environ)
    profile = run_inputs.find_profile(options["budget_profile"], workspace)
    settings = merge(options.settings, config.budget, config.source, _given_before(earlier), profile)
    if settings.fail_on_denied is None and os.environ.get("CI", "").lower() not in ("", "0", "false"):
        settings = settings._replace(fail_on_denied=True, origins={**settings.origins, "fail_on_denied": "CI is set"})
    sinks = run_inputs.check_sinks(options["alert_command"], options["alert_webhook"])
    return Loaded(options, earlier, output_dir, workspace, start_in_s, config, settings, *sinks)


def _earlier(options: Options, output_dir: Path, warn: Warn) -> EarlierRun | None:
    if options["resume"] is None:
        return None
    from claude_orchestrator.engine.run_dir import reopen_run

    return reopen_run(output_dir, options["resume"], warn, rehearsal=options["rehearse"])


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
            "ledger": header.get("ledger"),
            "budget_profile": header.get("budget_profile"),
            "rehearse": header["rehearsal"],
            **header.get("selection", {}),
            **header["single"],
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


def _config(options: Options, workspace: Path, data: Mapping[str, Any] | None) -> Config:
    """PROMPT, else data, else --config, else the workspace's own config, else the built-in instance."""
    from claude_orchestrator.config.config import Config, InstanceConfig, load_config, parse_config, unnamed

    prompt, single = options.prompt, {param: options[param] for param in SINGLE_OPTIONS if options[param]}
    keys: dict[str, Any] = {
        OPTIONS[param].instance: tuple(value) if isinstance(value, list) else value  # a journal keeps tuples as lists
        for param, value in single.items()
    }
    if prompt is not None:
        if options["config"] is not None:
            raise UserError("PROMPT and --config exclude each other")
        prompt = prompt.strip()
        if not prompt:
            raise UserError("PROMPT: is empty: expected a slash command or a prompt")
        if prompt.endswith(".json") and len(prompt.split()) == 1:
            raise UserError(f"PROMPT: {prompt} looks like a config: run it with --config {prompt}")
        if options["for_each"] is not None:
            keys["for_each"] = _for_each(options["for_each"])
        elif "{{item" in prompt:
            raise UserError(
                "PROMPT: {{item}} stands for an item: add --for-each GLOB, --for-each @FILE or --for-each -"
            )
        return Config(FROM_PROMPT, (InstanceConfig(**{"name": unnamed(prompt), "command": prompt, **keys}),))
    if options["for_each"] is not None:
        raise UserError("--for-each: only with a PROMPT; in a config it is the key for_each of an instance")
    found: Path | None = None
    if data is None:
        found = options["config"] or (workspace / CONFIG_NAME if (workspace / CONFIG_NAME).exists() else None)
    if found is None and data is None and single:
        named = ", ".join(f"--{OPTIONS[param].option}" for param in single)
        raise UserError(f"{named}: only with a PROMPT or a config")
    if found is None and data is None:
        own = InstanceConfig("summarise-repository", DEFAULT_PROMPT, permission_mode="plan")
        why = f"no PROMPT and no {CONFIG_NAME}: one instance summarises this repository and changes nothing"
        return Config(FROM_NOWHERE, (own,), warnings=(why,))
    of_one = ("instance_name", "instance_description", "session_id")
    if named := ", ".join(f"--{OPTIONS[param].option}" for param in of_one if param in single):
        raise UserError(f"{named}: only with a PROMPT; in a config they are keys of an instance")
    return load_config(found, keys) if found is not None else parse_config(data, FROM_DATA, keys)


def _for_each(text: str) -> ForEach:
    """What `--for-each` means: a pattern, `@FILE` by its extension, or `-`. Raises UserError."""
    from claude_orchestrator.config.item_sources import FOR_EACH, FORMATS, ItemFile
    from token_budget.fields import BadValue

    if text == "-":
        return ItemFile("lines", "-")
    if text.startswith("@"):
        path = Path(text[1:])
        kind = path.suffix.removeprefix(".").lower()
        return ItemFile(kind if kind in FORMATS else "lines", "-" if text == "@-" else str(path.absolute()))
    try:
        source: ForEach = FOR_EACH.read({"glob": text})
    except BadValue as error:
        raise UserError(*(f"--for-each: {why}" for _, why in error.faults)) from None
    return source


def _expanded(config: Config, options: Options, workspace: Path) -> Config:
    """The config with an instance for each item, and its placeholders filled. Raises UserError."""
    from claude_orchestrator.config.expansion import Selection, expand_config
    from claude_orchestrator.config.item_reading import ItemReader
    from claude_orchestrator.config.racing import expand_races

    if config.source in (FROM_PROMPT, FROM_NOWHERE) and options["for_each"] is None:
        selection = [f"--{param}" for param in ("limit", "shuffle") if options[param] is not None]
        if selection:
            raise UserError(f"{' and '.join(selection)}: only with --for-each, or with for_each in a config")
        return config  # braces in a PROMPT are text
    selected = Selection(options["limit"], options["shuffle"])
    try:
        return expand_races(expand_config(config, ItemReader(workspace).read, selected))
    except UserError as error:
        if config.source != FROM_PROMPT:
            raise
        place = r"^PROMPT: instances\[0\]\.(?:(for_each)[^:]*|\w+): "
        lines = (re.sub(place, lambda at: "--for-each: " if at[1] else "PROMPT: ", line) for line in error.lines)
        raise UserError(*lines) from None


# -- plan: what would be launched, by which claude --


def plan(loaded: Loaded, warn: Warn) -> Planned:
    """Plan what would be launched. Raises UserError."""
    from claude_orchestrator.claude import versions
    from claude_orchestrator.config.plan import make_plan
    from claude_orchestrator.engine import run_inputs

    options, settings = loaded.options, loaded.settings
    no_claude = loaded.only_shows or options["rehearse"]
    claude = "claude" if no_claude else versions.find_claude(options["claude_bin"])
    if loaded.earlier is not None and not no_claude:
        _compare_claude(options, loaded.earlier.history.header["claude_bin"], claude, warn)
    prices = run_inputs.find_prices() if settings.in_money or not options["dry_run"] else None
    ledger = None if loaded.only_shows else _ledger(options, settings, warn)
    forecasts = run_inputs.Forecasts(ledger, settings.token_weights)
    workspace = str(loaded.workspace)
    made = make_plan(loaded.config, settings, workspace=workspace, claude_bin=claude, forecast=forecasts.of)
    return Planned(made, claude, prices, ledger)


def _compare_claude(options: Options, before: object, claude: str, warn: Warn) -> None:
    """Warn where a resumed run has another claude. What a journal says is never run: options and PATH say what is."""
    if before != claude and "claude_bin" not in options.given:
        warn(f"--resume: that run used {before}, this one uses {claude}: --claude-bin names another one")


def _ledger(options: Options, settings: Settings, warn: Warn) -> LedgerStore | None:
    """The ledger. A rehearsal has one only if an option names it; a dry run creates none."""
    from claude_orchestrator.engine import run_inputs

    named, windows = _ledger_option(options), run_inputs.windows_of(settings)
    if named == "off" or (named is None and options["rehearse"]):
        if windows:
            why = "needs the ledger, which is off" if named else "a rehearsal has no ledger: name one (--ledger)"
            raise UserError(f"{windows[0]}: {why}")
        return None
    path = Path(named) if named else places.ledger_file(warn, move=options.may_write)
    if options["dry_run"] and not path.exists():
        from claude_orchestrator.engine import start_checks

        fault = start_checks.fault_of_place(path)
        if fault is not None and (named or windows):
            raise UserError(f"--ledger: {path}: cannot be opened: {fault}")
        return None
    return run_inputs.open_ledger(path, None if named or windows else warn)


def _ledger_option(options: Options) -> str | None:
    """The ledger that was named; the environment names none for a rehearsal."""
    named: str | None = options["ledger"]
    if named == "":
        raise UserError("--ledger: is empty: expected a file, or off")
    given = options.given.get("ledger")
    return None if options["rehearse"] and given is not None and given.origin == "environment" else named


# -- check: what has to be there before anything starts --


def _folder_warnings(loaded: Loaded, planned: Planned) -> list[str]:
    """Refuse worktrees that git would refuse, with UserError; returns what deserves a warning about folders."""
    from claude_orchestrator.engine.shared_folders import shared_folders

    specs, at_once = planned.plan.specs, loaded.settings.max_parallel
    shared = list(shared_folders(specs, loaded.config.instances, at_once))
    if not any(spec.worktree for spec in specs):
        return shared
    from claude_orchestrator.engine.worktrees.start_checks import check_worktrees

    return [*shared, *check_worktrees(specs, loaded.output_dir, os.environ, at_once)]


def check(loaded: Loaded, planned: Planned) -> Checked:
    """Refuse what cannot work, with UserError; collect what deserves a warning."""
    from claude_orchestrator.claude import versions
    from claude_orchestrator.engine import start_checks
    from claude_orchestrator.gateway.choice import choose_meter

    options, settings = loaded.options, loaded.settings
    start_checks.check_plan(planned.plan, loaded.config)
    start_checks.check_output_dir(loaded.output_dir)
    for option in ("report", "junit", "results"):
        if options[option] not in (None, Path("-")):
            start_checks.check_writable(f"--{option}", options[option])
    meter = choose_meter(settings.meter, planned.plan, os.environ, rehearse=options["rehearse"])
    lacks = None if options["rehearse"] else versions.check_version(planned.claude)
    doubts = () if options["rehearse"] else start_checks.doubts(planned.plan, loaded.config, os.environ)
    warnings = [*planned.plan.warnings, *([lacks] if lacks else []), *dict.fromkeys(doubts)]
    if not options["rehearse"]:
        warnings += _folder_warnings(loaded, planned)
    if settings.in_money and planned.prices is None:
        from token_budget.pricing import EXTRA

        warnings.append(f"budgets in money without {EXTRA}: what claude states no cost for is not counted")
    return Checked(meter, warnings, private=lacks is None)


# -- what a run is built from --


def run_parts(loaded: Loaded, planned: Planned, checked: Checked) -> tuple[RunRequest, RunPlace, Accounting]:
    """What `controller.run` needs."""
    from claude_orchestrator.engine import controller

    request = controller.RunRequest(
        planned.plan,
        loaded.settings,
        checked.meter,
        _header(loaded, planned.claude),
        loaded.options["rehearse"],
        loaded.start_in_s,
    )
    place = controller.RunPlace(loaded.output_dir, loaded.earlier, private=checked.private)
    accounting = controller.Accounting(planned.ledger, planned.prices, loaded.alert_command, loaded.alert_webhook)
    return request, place, accounting


def _header(loaded: Loaded, claude: str) -> dict[str, Any]:
    """What a journal stores about the start of its run: enough to continue it, without prompts and environments."""
    options, source = loaded.options, loaded.config.source
    ledger, for_each = options["ledger"], options["for_each"]
    if for_each is not None and for_each.startswith("@") and for_each != "@-":
        for_each = f"@{Path(for_each[1:]).absolute()}"
    return {
        "version": __version__,
        "workspace": str(loaded.workspace),
        "source": source,
        "config": None if source in NO_FILES else str(Path(source).absolute()),
        "claude_bin": claude,
        "ledger": ledger if ledger in (None, "off") else str(Path(ledger).absolute()),
        "budget_profile": options["budget_profile"],
        "settings": {name: given.value for name, given in options.settings.items()},
        "single": {param: options[param] for param in SINGLE_OPTIONS if options[param]},
        "selection": {param: options[param] for param in ("limit", "shuffle") if options[param] is not None}
        | ({} if for_each is None else {"for_each": for_each}),
    }
