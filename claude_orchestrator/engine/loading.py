"""Reads what a run is made from: options, an earlier run, the config and its items, the profile."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from claude_orchestrator.config.fields import CONFIG_NAME
from claude_orchestrator.config.given import OPTIONS, SINGLE_OPTIONS, Given, Options
from claude_orchestrator.errors import UserError
from token_budget import places
from token_budget.ledger.address import is_address
from token_budget.named_tuples import NamedTuple

if TYPE_CHECKING:
    from claude_orchestrator.config.config import Config
    from claude_orchestrator.config.item_sources import ForEach
    from claude_orchestrator.config.settings import Settings
    from claude_orchestrator.engine.earlier_runs import EarlierRun
    from claude_orchestrator.engine.journal_history import JournalHistory
    from token_budget.alerts import AlertTargets

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
    alerts: AlertTargets

    @property
    def only_shows(self) -> bool:
        """Whether commands are only listed or shown."""
        return bool(self.options["list_commands"] or self.options["inspect_command"])


def load(options: Options, warn: Warn, data: Mapping[str, Any] | None = None) -> Loaded:
    """Read everything that the options name. `data` takes the place of a config file. Raises UserError."""
    from claude_orchestrator.config.settings import merge
    from claude_orchestrator.engine import run_inputs, start_checks

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
    config = _config(options, workspace, data)
    try:
        config = start_checks.with_schemas(_expanded(config, options, workspace), workspace)
    except UserError as error:
        raise _named_by_option(error, config) from None
    if any(entry.session_id is not None for entry in config.instances):
        from claude_orchestrator.engine.sessions import with_sessions

        config = with_sessions(config, workspace, os.environ)
    options = _with_ledger(options, config, workspace)
    profile = run_inputs.find_profile(options["budget_profile"], workspace)
    settings = merge(options.settings, config.budget, config.source, _given_before(earlier), profile)
    if settings.fail_on_denied is None and os.environ.get("CI", "").lower() not in ("", "0", "false"):
        settings = settings._replace(fail_on_denied=True, origins={**settings.origins, "fail_on_denied": "CI is set"})
    alerts = run_inputs.check_alerts(options)
    return Loaded(options, earlier, output_dir, workspace, start_in_s, config, settings, alerts)


def _earlier(options: Options, output_dir: Path, warn: Warn) -> EarlierRun | None:
    if options["resume"] is None:
        return None
    from claude_orchestrator.engine.earlier_runs import reopen_run

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


def _with_ledger(options: Options, config: Config, workspace: Path) -> Options:
    """The options with the ledger of the config, if no option names one. A rehearsal leaves that ledger alone."""
    named = config.budget.get("ledger")
    if named is None or options["ledger"] is not None or options["rehearse"]:
        return options
    if named not in ("", "off") and not is_address(named):
        named = str(workspace / named)
    return Options(options.prompt, {**options.values, "ledger": named}, options.given)


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
    from claude_orchestrator.config.config import Config, InstanceConfig, load_config, parse_config

    single = {param: options[param] for param in SINGLE_OPTIONS if options[param]}
    keys: dict[str, Any] = {
        OPTIONS[param].instance: tuple(value) if isinstance(value, list) else value  # a journal keeps tuples as lists
        for param, value in single.items()
    }
    if options.prompt is not None:
        return _of_prompt(options, options.prompt.strip(), keys)
    if options["for_each"] is not None:
        raise UserError("--for-each: only with a PROMPT; in a config it is the key for_each of an instance")
    own = workspace / CONFIG_NAME
    found: Path | None = options["config"] or (_found(own) if own.exists() else None)
    if found is None and data is None:
        if single:
            raise UserError(f"{_named(single)}: only with a PROMPT or a config")
        why = f"no PROMPT and no {CONFIG_NAME}: one instance summarises this repository and changes nothing"
        summary = InstanceConfig("summarise-repository", DEFAULT_PROMPT, permission_mode="plan")
        return Config(FROM_NOWHERE, (summary,), warnings=(why,))
    of_one = ("instance_name", "instance_description", "session_id")
    if named := _named(param for param in of_one if param in single):
        raise UserError(f"{named}: only with a PROMPT; in a config they are keys of an instance")
    if data is not None:
        return parse_config(data, FROM_DATA, keys)
    assert found is not None
    return load_config(found, keys)


def _found(config: Path) -> Path:
    """The workspace's own config, unless another user put it there. Raises UserError."""
    from token_budget.owned import check_found

    try:
        check_found(config, f"name it with --config {config.name} if you trust it")
    except OSError as error:
        raise UserError(error.strerror or str(error)) from None
    return config


def _named(params: Iterable[str]) -> str:
    return ", ".join(f"--{OPTIONS[param].option}" for param in params)


def _of_prompt(options: Options, prompt: str, keys: dict[str, Any]) -> Config:
    """A config of one instance; `keys` has its other values."""
    from claude_orchestrator.config.config import Config, InstanceConfig, unnamed

    if options["config"] is not None:
        raise UserError("PROMPT and --config exclude each other")
    if not prompt:
        raise UserError("PROMPT: is empty: expected a slash command or a prompt")
    if prompt.endswith(".json") and len(prompt.split()) == 1:
        raise UserError(f"PROMPT: {prompt} looks like a config: run it with --config {prompt}")
    warnings: tuple[str, ...] = ()
    if options["for_each"] is not None:
        keys["for_each"] = _for_each(options["for_each"])
        if "{{" not in prompt:
            warnings = ("--for-each: the PROMPT has no {{item}}, so every item gets the same prompt",)
    elif "{{item" in prompt:
        raise UserError("PROMPT: {{item}} stands for an item: add --for-each GLOB, --for-each @FILE or --for-each -")
    entry = InstanceConfig(**{"name": unnamed(prompt), "command": prompt, **keys})
    return Config(FROM_PROMPT, (entry,), warnings=warnings)


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
    if config.source in (FROM_PROMPT, FROM_NOWHERE) and options["for_each"] is None:
        selection = [f"--{param}" for param in ("limit", "shuffle") if options[param] is not None]
        if selection:
            raise UserError(f"{' and '.join(selection)}: only with --for-each, or with for_each in a config")
        return config  # braces in a PROMPT are text
    from claude_orchestrator.config.expansion import Selection, expand_config
    from claude_orchestrator.config.item_reading import ItemReader
    from claude_orchestrator.config.racing import expand_races

    selected = Selection(options["limit"], options["shuffle"])
    return expand_races(expand_config(config, ItemReader(workspace).read, selected))


def _named_by_option(error: UserError, config: Config) -> UserError:
    """The same faults, which name the option, because a PROMPT has no place in a config."""
    if config.source != FROM_PROMPT:
        return error
    place = re.compile(r"^PROMPT: (?:instances\[0\]|instance .*?)\.(?:(for_each|json_schema)[^:]*|\w+): ")

    def option(at: re.Match[str]) -> str:
        return f"--{at[1].replace('_', '-')}: " if at[1] else "PROMPT: "

    return UserError(*(place.sub(option, line) for line in error.lines))
