"""The click command, built from the table of settings, and the values that the user gave."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

import click
from click.core import ParameterSource

from claude_orchestrator import __version__
from claude_orchestrator.config.fields import CONFIG_NAME, ENV_PREFIX, PROGRAM, Setting
from claude_orchestrator.config.given import ENVIRONMENT, OPTIONS, Given, Options, read_given
from claude_orchestrator.config.kinds import FILE, FLAG
from claude_orchestrator.errors import UserError
from token_budget.text import SHELL_HINT

_FOUND = {
    "resume": "runs",
    "apply": "runs",
    "budget_profile": "profiles",
    "inspect_command": "commands",
}  # what `cli.runs.completion` offers
_ORIGINS = {ParameterSource.COMMANDLINE: "option", ParameterSource.ENVIRONMENT: ENVIRONMENT}
_HELP = f"""Run many Claude Code instances in parallel, within limits on tokens and costs.

PROMPT is a slash command such as "/test --unit", or plain text. It runs one instance. To run several, use --config.
Without both, the program runs {CONFIG_NAME} of the workspace. If there is none, it runs one read-only
instance that summarises the repository.
"""
_EPILOG = (
    f"You can also set every option in the environment, as in {ENV_PREFIX}_MAX_PARALLEL=4. Write tokens as "
    "50000, 50k or 1.5M, money as 2.50 or $2.50, times as 90, 90s, 5m or 2h. A time without a unit is in seconds. "
    "Exit codes: 0 all completed; 1 some failed, were blocked, stopped or skipped; 2 bad usage or config; 3 a bug; "
    "130/143/129 interrupted/terminated/hung up."
)


class _Command(click.Command):
    """A command whose help shows its options in groups, and whose options take no other option for their value.

    It makes only the options that it needs. To make and read all hundred took 3 % of an instant run.
    """

    _made: list[click.Parameter] | None = None

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        if self._made is None:
            self._made = _parameters(OPTIONS.values())
        return [*self._made, *super().get_params(ctx)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Raises a usage error where a value is missing, as in `--overall-cost-budget $2`, of which a shell leaves
        `--overall-cost-budget` alone."""
        names = {f"--{name}": one for one in OPTIONS.values() for name in (one.option, *one.aliases)}
        self._made = None if ctx.resilient_parsing else _parameters(_asked_for(args, names))
        given = args[: args.index("--")] if "--" in args else args
        for name, follower in pairwise(given):
            setting = names.get(name)
            if setting is not None and setting.kind is not FLAG and not setting.bare and follower in names:
                hint = SHELL_HINT if "USD" in setting.metavar else ""
                raise click.BadOptionUsage(name, f"Option {name!r} needs a value, but {follower} follows{hint}", ctx)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {setting.group: [] for setting in OPTIONS.values()}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                setting = OPTIONS.get(param.name or "")
                groups.setdefault(setting.group if setting else "Other", []).append(record)
        for title, records in groups.items():
            if not records:
                continue
            with formatter.section(title):
                formatter.write_dl(records)


def make_command(run: Callable[[Options], int]) -> click.Command:
    """The command: it reads its options and calls `run`, which returns the exit code."""

    @click.pass_context
    def call(ctx: click.Context, /, prompt: str | None, **params: Any) -> int:
        return run(_read(ctx, prompt, params))

    return _Command(
        PROGRAM,
        callback=call,
        help=_HELP,
        epilog=_EPILOG,
        context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": ENV_PREFIX},
    )


def _asked_for(args: Iterable[str], names: Mapping[str, Setting]) -> Iterable[Setting]:
    """The settings of the options that are given; all of them if an argument looks like another option."""
    found = {}
    if any(variable.startswith(ENV_PREFIX) for variable in os.environ):
        found = {one.option: one for one in OPTIONS.values() if not os.environ.keys().isdisjoint(_variables(one))}
    for name in (arg.partition("=")[0] for arg in args if arg.startswith("-") and len(arg) > 1):
        if name not in names:
            return OPTIONS.values()
        found[names[name].option] = names[name]
    return found.values()


def _variables(setting: Setting) -> list[str]:
    """The variables that give an option, its own one first."""
    return [setting.variable, *(f"{ENV_PREFIX}_{name.upper()}" for name in setting.aliases)]


def _parameters(settings: Iterable[Setting]) -> list[click.Parameter]:
    return [
        click.Argument(["prompt"], required=False, shell_complete=_offers("commands")),
        *map(_option, settings),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="Show the version and exit.",
        ),
    ]


def _show_version(ctx: click.Context, param: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        click.echo(f"{PROGRAM}, version {__version__}")
        ctx.exit()


def _option(setting: Setting) -> click.Option:
    kind, older = setting.kind, setting.aliases
    bare: dict[str, Any] = {"flag_value": setting.bare} if setting.bare else {}
    return click.Option(
        [f"--{setting.option}", *(f"--{name}" for name in older), setting.param],
        is_flag=kind is FLAG,
        default=None,
        multiple=kind.element is not None,
        type=None if kind is FLAG else click.STRING,
        metavar=setting.metavar or ("|".join(kind.choices) if kind.choices else None),
        help=_help(setting),
        envvar=_variables(setting),
        shell_complete=_completion(setting),
        hidden=bool(setting.no_effect),
        **bare,
    )


def _help(setting: Setting) -> str:
    repeatable = " Repeatable." if setting.kind.element is not None else ""
    default = f"  [default: {setting.shown_default}]" if setting.shown_default else ""
    return f"{setting.help}{repeatable}{default}"


def _completion(setting: Setting) -> Callable[[click.Context, click.Parameter, str], list[Any]] | None:
    choices = setting.kind.choices
    if choices:
        return lambda ctx, param, incomplete: [choice for choice in choices if choice.startswith(incomplete)]
    if setting.kind is FILE:
        return _offers("files")
    return _offers(_FOUND[setting.param]) if setting.param in _FOUND else None


def _offers(what: str) -> Callable[[click.Context, click.Parameter, str], list[Any]]:
    def offer(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from claude_orchestrator.cli.runs import completion  # only after Tab

        offered: list[Any] = getattr(completion, what)(ctx, param, incomplete)
        return offered

    return offer


def _read(ctx: click.Context, prompt: str | None, params: Mapping[str, Any]) -> Options:
    """What was given, read and checked. Raises UserError with every fault."""
    given: dict[str, Given] = {}
    values: dict[str, Any] = {}
    faults: list[str] = []
    for param, setting in OPTIONS.items():
        value = setting.default if setting.kind is not FLAG else bool(setting.default)
        origin = _ORIGINS.get(ctx.get_parameter_source(param) or ParameterSource.DEFAULT)
        if origin is not None and params[param] is not None:
            given[param] = Given(params[param], origin)
            try:
                value = read_given(setting, given[param])
            except UserError as error:
                faults += error.lines
        if not setting.run:
            values[param] = value
    if faults:
        raise UserError(*faults)
    return Options(prompt, values, given)
