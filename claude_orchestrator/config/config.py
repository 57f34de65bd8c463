"""A config: its instances, its budgets, how a rehearsal behaves. A check reports every fault at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from claude_orchestrator.claude.failures import command_word
from claude_orchestrator.config.approvals import ApprovalRules
from claude_orchestrator.config.compound_kinds import collect, object_of, read_object
from claude_orchestrator.config.fields import BUDGET, CHECK, INSTANCE, REHEARSAL, Setting, by_key
from claude_orchestrator.config.item_sources import ForEach
from claude_orchestrator.config.kinds import PORT
from claude_orchestrator.config.placeholders import placeholders
from claude_orchestrator.config.subagent_limits import SubagentLimits
from claude_orchestrator.errors import UserError
from token_budget.fields import BadValue, Kind, expected, show_json
from token_budget.named_tuples import NamedTuple

if TYPE_CHECKING:
    from claude_orchestrator.config.items import Item


class Rehearsal(NamedTuple):
    """How a simulated instance behaves. None is derived from the instance's `max_tokens_per_command`."""

    turns: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    seed: int | None = None


class Check(NamedTuple):
    """A shell command that verifies an instance's work. It is run up to `rounds` times, after further turns."""

    command: str
    rounds: int = 3
    timeout_s: float = 600.0


class InstanceConfig(NamedTuple):
    """One entry of `instances`, or an instance of the group that an entry with `for_each` expands to."""

    name: str
    command: str
    description: str = ""
    allowed_tools: tuple[str, ...] = ()
    disallowed_tools: tuple[str, ...] = ()
    permission_mode: str | None = None
    model: str | None = None
    session_id: str | None = None
    session_file: str | None = None
    new_session_id: str | None = None
    unknown_command: str = "fail"
    clear_history: bool = False
    compact_history: bool = False
    pre_commands: tuple[str, ...] = ()
    max_tokens_per_command: int | None = None
    cwd: str | None = None
    env: tuple[tuple[str, str], ...] = ()
    timeout_s: float | None = None
    retries: int | None = None
    append_system_prompt: str | None = None
    mcp_config: tuple[str, ...] = ()
    worktree: str | bool = False
    base: str | None = None
    check: Check | None = None
    fail_on_denied: bool | None = None
    subagent_token_budget: SubagentLimits | None = None
    approvals: ApprovalRules | None = None
    race: int = 1
    race_of: str | None = None
    node: tuple[tuple[str, float], ...] = ()
    json_schema: str | None = None
    depends_on: tuple[str, ...] = ()
    run_if: str = "success"
    extra_args: tuple[str, ...] = ()
    rehearsal: Rehearsal | None = None
    for_each: ForEach | None = None
    group: str | None = None
    item: Item | None = None
    item_index: int | None = None


class Config(NamedTuple):
    """A config: its source, its instances, what its `budget` object sets, and what deserves a warning.

    `budget` has the names of Settings; limits by command are objects. `groups` says how many items each `for_each`
    has, also where fewer were selected. `dashboard` is the port of the run's page, and 0 any free one.
    """

    source: str
    instances: tuple[InstanceConfig, ...]
    budget: Mapping[str, Any] = MappingProxyType({})
    rehearsal: Rehearsal = Rehearsal()
    warnings: tuple[str, ...] = ()
    groups: Mapping[str, int] = MappingProxyType({})
    dashboard: int | None = None


def load_config(path: Path, override: Mapping[str, Any] | None = None) -> Config:
    """Read and check a config file. `override` has instance values that come before its defaults.

    Raises UserError with every fault found.
    """
    from claude_orchestrator.config.reader import read_config_file

    return parse_config(read_config_file(path), str(path), override)


def parse_config(data: object, source: str, override: Mapping[str, Any] | None = None) -> Config:
    """Check a config's data. `override` has instance values that come before its defaults.

    Raises UserError with every fault found, one line each.
    """
    from claude_orchestrator.config.reader import duplicate_keys

    faults = list(duplicate_keys(data))
    try:
        values = read_object(data, TOP)
    except BadValue as error:
        faults += error.faults
    if isinstance(data, dict):
        faults += _missing(data)
    if faults:
        raise UserError(*(f"{source}: {path.lstrip('.') + ': ' if path else ''}{why}" for path, why in faults))
    assert isinstance(data, dict)
    both = [
        f"{source}: instances[{index}]: it has both command and prompt: the command is used"
        for index, entry in enumerate(data["instances"])
        if entry.get("command") is not None and entry.get("prompt") is not None
    ]
    without_effect = [
        f"{source}: budget.{setting.budget} has no effect: {setting.no_effect}"
        for setting in BUDGET
        if setting.no_effect and values.get("budget", {}).pop(setting.name, None) is not None
    ]
    instances = _with_defaults(values.pop("instances"), {**values.pop("defaults", {}), **(override or {})})
    return _checked_graph(Config(source, instances, warnings=(*both, *without_effect), **values))


def _checked_graph(config: Config) -> Config:
    """The same config. Raises UserError with every fault of its dependencies."""
    if any(map(_may_depend, config.instances)):
        from claude_orchestrator.config.graph import graph_faults  # not needed by most configs

        if faults := graph_faults(config.instances):
            raise UserError(*(f"{config.source}: {path.lstrip('.')}: {why}" for path, why in faults))
    return config


def _may_depend(entry: InstanceConfig) -> bool:
    """Whether an entry depends on others, or has what may be a placeholder for their results."""
    texts = (entry.command, entry.append_system_prompt or "", *entry.pre_commands, *(text for _, text in entry.env))
    return bool(entry.depends_on or entry.for_each) or entry.run_if != "success" or any("{{" in text for text in texts)


def _missing(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a config lacks: its instances, or what one of them is asked."""
    entries, defaults = data.get("instances"), data.get("defaults")
    if entries is None:
        yield ".instances", "missing: expected a list of at least one instance"
    if isinstance(defaults, dict) and (defaults.get("command") or defaults.get("prompt")):
        return
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(entry, dict) and entry.get("command") is None and entry.get("prompt") is None:
            yield f".instances[{index}]", "it has neither command nor prompt: add one of them"


def _with_defaults(entries: Iterable[dict[str, Any]], defaults: Mapping[str, Any]) -> tuple[InstanceConfig, ...]:
    entries = [{**defaults, **values} for values in entries]
    taken = {values["name"] for values in entries if "name" in values}
    return tuple(
        InstanceConfig(**{**values, "name": values.get("name") or _free_name(values["command"], taken)})
        for values in entries
    )


def unnamed(command: str) -> str:
    """The name of an instance that has none: its base command, or `prompt`."""
    word = command_word(command)
    return word[:60] if word and not placeholders(word) else "prompt"


# -- the objects of a config --


def _kinds(settings: tuple[Setting, ...], place: str) -> dict[str, Kind]:
    return {key: setting.kind for key, setting in by_key(settings, place).items()}


def _read_budget(value: object) -> dict[str, Any]:
    """The values of a `budget` object by the names of Settings."""
    keys = by_key(BUDGET, "budget")
    read = read_object(value, {key: setting.kind for key, setting in keys.items()})
    values: dict[str, Any] = {}
    for key, item in read.items():
        if keys[key].name in values:
            raise BadValue((f".{key}", f"is another name of {keys[key].budget}: leave one of them out"))
        values[keys[key].name] = item
    return values


def _make_check(values: dict[str, Any]) -> Check:
    if "command" not in values:
        raise BadValue(("", "it has no command: add one"))
    return Check(**values)


_CHECK = object_of(_make_check, _kinds(CHECK, "instance"), "check")
_REHEARSAL = object_of(lambda values: Rehearsal(**values), _kinds(REHEARSAL, "instance"), "rehearsal")
_INSTANCE_KINDS = {**_kinds(INSTANCE, "instance"), "check": _CHECK, "rehearsal": _REHEARSAL}


def _read_instance(value: object) -> dict[str, Any]:
    """The values of an instance by the names of InstanceConfig, as far as they are given."""
    values = read_object(value, _INSTANCE_KINDS)
    values.pop("output_format", None)
    prompt = values.pop("prompt", None)
    return values if prompt is None else {"command": prompt, **values}


def _read_defaults(value: object) -> dict[str, Any]:
    if isinstance(value, dict) and value.get("name") is not None:
        raise BadValue((".name", "each instance has its own name: leave it out"))
    return _read_instance(value)


def _read_instances(value: object) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, list):
        raise expected("a list of instances", value)
    if not value:
        raise BadValue(("", "expected at least one instance, got an empty list"))
    faults = list(_duplicate_names(value))
    try:
        found = collect((f"[{index}]", entry, INSTANCE_KIND) for index, entry in enumerate(value))
    except BadValue as error:
        raise BadValue(*error.faults, *faults) from None
    if faults:
        raise BadValue(*faults)
    return found


def _duplicate_names(entries: list[object]) -> list[tuple[str, str]]:
    first: dict[str, int] = {}
    faults = []
    for index, entry in enumerate(entries):
        name = entry.get("name") if isinstance(entry, dict) else None
        if isinstance(name, str) and first.setdefault(name, index) != index:
            why = f"duplicate name {show_json(name)}, first used by instances[{first[name]}]"
            faults.append((f"[{index}].name", why))
    return faults


def _free_name(command: str, taken: set[str]) -> str:
    """A name for an instance that has none, with a number if it is taken. Names are shown, so prompts are not used."""
    base = unnamed(command)
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base} #{number}"
    taken.add(name)
    return name


INSTANCE_KIND = Kind(_read_instance, {"$ref": "#/$defs/instance"})
TOP = {
    "defaults": Kind(_read_defaults, {"$ref": "#/$defs/defaults"}),
    "instances": Kind(_read_instances, {"type": "array", "minItems": 1, "items": INSTANCE_KIND.schema}),
    "budget": Kind(_read_budget, {"$ref": "#/$defs/budget"}),
    "rehearsal": _REHEARSAL,
    "dashboard": PORT,
}
