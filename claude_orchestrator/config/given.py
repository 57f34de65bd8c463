"""Values as they were typed, by option or environment, and how they are read. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from claude_orchestrator.config.compound_kinds import collect
from claude_orchestrator.config.fields import SETTINGS, SINGLE, Setting
from claude_orchestrator.errors import UserError
from token_budget.fields import BadValue, Kind, show_json
from token_budget.named_tuples import NamedTuple

ENVIRONMENT, ARGUMENT = "environment", "argument"
OPTIONS = {setting.param: setting for setting in SETTINGS if setting.option}
SINGLE_OPTIONS = tuple(param for param, setting in OPTIONS.items() if setting.group == SINGLE)


class Given(NamedTuple):
    """A value as it was typed, and where: `option`, `environment`, `argument` of the Python API, or an earlier run."""

    value: Any
    origin: str


class Options:
    """The program's options, by their parameters' names.

    `values` has every option that is no setting of the run, with defaults. `given` has every option that the user
    gave, as it was typed.
    """

    __slots__ = ("given", "prompt", "values")

    def __init__(self, prompt: str | None, values: Mapping[str, Any], given: Mapping[str, Given]) -> None:
        self.prompt = prompt
        self.values = values
        self.given = given

    def __getitem__(self, param: str) -> Any:
        return self.values[param]

    @property
    def may_write(self) -> bool:
        """Whether this command may change files."""
        return not (self["dry_run"] or self["list_commands"] or self["inspect_command"])

    @property
    def settings(self) -> dict[str, Given]:
        """The given settings of the run, by their names in Settings."""
        return {OPTIONS[param].name: given for param, given in self.given.items() if OPTIONS[param].run}

    def with_earlier(self, earlier: Mapping[str, Any]) -> Options:
        """The same options; those that are not given now are as they were given to an earlier run."""
        kept = {param: value for param, value in earlier.items() if param not in self.given}
        return Options(self.prompt, {**self.values, **kept}, self.given)


def repeated(options: Options, *names: str) -> Iterator[str]:
    """Those options that were given, but not by the environment, for another command; a folder as an absolute path."""
    for name in names:
        if name in options.given and options.given[name].origin != ENVIRONMENT:
            value = options[name]
            yield f"--{name.replace('_', '-')}"
            yield str(value.absolute() if name == "output_dir" else value)


def not_stored(options: Options) -> list[str]:
    """The options that a run does not store, as far as they were given: they are repeated to continue it."""
    return [*repeated(options, "claude_bin", "cluster")]


def read_given(setting: Setting, given: Given) -> Any:
    """The value that was typed. Raises UserError with every fault, after the option or variable that it came by."""
    label = {ENVIRONMENT: setting.variable, ARGUMENT: setting.param}.get(given.origin, f"--{setting.option}")
    try:
        element = setting.kind.element
        if element is None:
            return setting.kind.read(given.value)
        pair = Kind(lambda text: parse_limit(str(text), element), {})
        return dict(collect(("", text, pair) for text in given.value))
    except BadValue as error:
        raise UserError(
            *(f"{label}: {place.lstrip('.') + ': ' if place else ''}{why}" for place, why in error.faults)
        ) from None


def parse_limit(text: str, kind: Kind) -> tuple[str, Any]:
    """`/cmd=LIMIT` as key and limit; the last `=` splits. Raises BadValue."""
    key, separator, limit = text.rpartition("=")
    if not separator:
        raise BadValue(("", f"expected KEY=N such as /test=50k, got {show_json(text)}"))
    if not key.strip():
        raise BadValue(("", f"the command before '=' is empty in {show_json(text)}"))
    try:
        return key.strip(), kind.read(limit.strip())
    except BadValue as error:
        raise BadValue(*((place, f"{why} in {show_json(text)}") for place, why in error.faults)) from None
