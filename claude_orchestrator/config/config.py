"""The JSON config file: read, checked whole, frozen. Every error is reported at once, each with its path."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from claude_orchestrator.errors import UserError
from token_budget.alerts import parse_thresholds
from token_budget.budget_manager import MODES
from token_budget.models import MAX_LIMIT, WEIGHT_KEYS, Weights

_T = TypeVar("_T")
MAX_RETRIES = 100
MAX_USD = 1_000_000
WINDOWS = ("daily", "weekly", "monthly")
ADJUST = ("off", "pool", "fair")
MAX_CONFIG_BYTES = 16 * 1024 * 1024
PERMISSION_MODES = ("default", "acceptEdits", "auto", "bypassPermissions", "dontAsk", "manual", "plan")
OWN_OPTIONS = ("-p", "--print", "--input-format", "--output-format", "--resume", "-r", "--continue", "-c")


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """How a simulated instance behaves; None: worked out from the instance's `max_tokens_per_command`."""

    turns: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class InstanceConfig:
    """One entry of `instances`."""

    name: str
    command: str
    description: str = ""
    allowed_tools: tuple[str, ...] = ()
    disallowed_tools: tuple[str, ...] = ()
    permission_mode: str | None = None
    model: str | None = None
    session_id: str | None = None
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
    extra_args: tuple[str, ...] = ()
    rehearsal: Rehearsal | None = None


@dataclass(frozen=True, slots=True)
class BudgetConfig:
    """The `budget` object; None: not said in the file. Costs are in USD, as text, so that they are exact."""

    overall_budget: int | None = None
    command_budgets: tuple[tuple[str, int], ...] = ()
    enforcement_mode: str | None = None
    disable_visuals: bool | None = None
    token_weights: str | None = None
    daily_token_budget: int | None = None
    weekly_token_budget: int | None = None
    monthly_token_budget: int | None = None
    overall_cost_budget: str | None = None
    command_cost_budgets: tuple[tuple[str, str], ...] = ()
    daily_cost_budget: str | None = None
    weekly_cost_budget: str | None = None
    monthly_cost_budget: str | None = None
    alert_at: str | None = None
    adjust: str | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """A whole config: where it comes from, its instances, its budgets, and what deserves a warning."""

    source: str
    instances: tuple[InstanceConfig, ...]
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    rehearsal: Rehearsal = field(default_factory=Rehearsal)
    warnings: tuple[str, ...] = ()


def load_config(path: Path) -> Config:
    """Read and check a config file. Raises UserError with every fault found."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot read the config: {error.strerror or error}") from None
    if len(raw) > MAX_CONFIG_BYTES:
        raise UserError(f"{path}: the config is larger than {MAX_CONFIG_BYTES // 2**20} MiB")
    try:
        data = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_unique_keys)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: line {error.lineno} column {error.colno}: invalid JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        reason = "too deeply nested" if isinstance(error, RecursionError) else str(error)
        raise UserError(f"{path}: invalid JSON: {reason}") from None
    return parse_config(data, str(path))


def parse_config(data: object, source: str) -> Config:
    """Check a config's data. Raises UserError with every fault found, one line each."""
    reader = _Reader(source)
    config = reader.config(data)
    if reader.errors:
        raise UserError(*reader.errors)
    return config


class _DuplicateKey(dict[str, Any]):
    """An object in which a key stood twice."""

    key = ""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result and not _is_comment(key):
            result = _DuplicateKey(result)
            result.key = key
        result[key] = value
    return result


def _is_comment(key: str) -> bool:
    return key.startswith("//") or key == "$schema"


def show(value: object) -> str:
    """A value as JSON, short enough for an error line."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


class _Reader:
    """Turns data into a Config and collects the errors on the way."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.errors: list[str] = []
        self.warnings: list[str] = []

    def error(self, path: str, expected: str, value: object = ...) -> None:
        got = "" if value is ... else f", got {show(value)}"
        self.errors.append(f"{self.source}: {path + ': ' if path else ''}{expected}{got}")

    # -- objects --

    def config(self, data: object) -> Config:
        fields = self.fields(
            data, "", {"instances": self.instances, "budget": self.budget, "rehearsal": self.rehearsal}
        )
        if isinstance(data, dict) and "instances" not in data:
            self.error("instances", "missing: expected a list of at least one instance")
        return Config(self.source, warnings=tuple(self.warnings), **{"instances": (), **fields})

    def fields(self, data: object, path: str, readers: Mapping[str, Callable[[object, str], Any]]) -> dict[str, Any]:
        """The fields of an object that are there and not null; unknown keys are errors with the nearest known."""
        if not isinstance(data, dict):
            self.error(path, "expected an object", data)
            return {}
        if isinstance(data, _DuplicateKey):
            self.error(path, f"the key {show(data.key)} stands twice")
        fields = {}
        for key, value in data.items():
            where = f"{path}.{key}" if path else key
            if key in readers:
                if value is not None:
                    fields[key] = readers[key](value, where)
            elif not _is_comment(key):
                import difflib

                near = difflib.get_close_matches(key, readers, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(readers)}"
                self.error(where, f"unknown key{hint}")
        return fields

    def instances(self, data: object, path: str) -> tuple[InstanceConfig, ...]:
        if not isinstance(data, list):
            self.error(path, "expected a list of instances", data)
            return ()
        if not data:
            self.error(path, "expected at least one instance, got an empty list")
        found = [self.instance(entry, f"{path}[{i}]") for i, entry in enumerate(data)]
        taken: dict[str, int] = {}
        for i, (_, fields) in enumerate(found):
            name = fields.get("name")
            if name is not None and name in taken:
                self.error(f"{path}[{i}].name", f"duplicate name {show(name)}, first used by {path}[{taken[name]}]")
            elif name is not None:
                taken[name] = i
        return tuple(
            InstanceConfig(**{**fields, "name": fields.get("name") or _free_name(command, taken), "command": command})
            for command, fields in found
        )

    def instance(self, data: object, path: str) -> tuple[str, dict[str, Any]]:
        fields = self.fields(
            data,
            path,
            {
                "name": self.line,
                "command": self.words,
                "prompt": self.words,
                "description": self.text,
                "allowed_tools": self.texts,
                "disallowed_tools": self.texts,
                "permission_mode": self.permission_mode,
                "model": self.line,
                "session_id": self.line,
                "clear_history": self.flag,
                "compact_history": self.flag,
                "pre_commands": self.commands,
                "max_tokens_per_command": self.positive_integer,
                "cwd": self.line,
                "env": self.env,
                "timeout_s": self.seconds,
                "retries": self.retries,
                "append_system_prompt": self.text,
                "mcp_config": self.mcp_config,
                "worktree": self.worktree,
                "extra_args": self.extra_args,
                "output_format": self.output_format,
                "rehearsal": self.rehearsal,
            },
        )
        fields.pop("output_format", None)
        command, prompt = fields.pop("command", None), fields.pop("prompt", None)
        if command is None and prompt is None and isinstance(data, dict):
            self.error(path, "neither command nor prompt: one of them is needed")
        if command is not None and prompt is not None:
            self.warnings.append(f"{self.source}: {path}: both command and prompt: the command counts")
        return command or prompt or "", fields

    def budget(self, data: object, path: str) -> BudgetConfig:
        return BudgetConfig(
            **self.fields(
                data,
                path,
                {
                    "overall_budget": self.positive_integer,
                    "command_budgets": self.command_budgets,
                    "enforcement_mode": self.enforcement_mode,
                    "disable_visuals": self.flag,
                    "token_weights": self.token_weights,
                    **dict.fromkeys((f"{window}_token_budget" for window in WINDOWS), self.positive_integer),
                    **dict.fromkeys((f"{window}_cost_budget" for window in ("overall", *WINDOWS)), self.usd),
                    "command_cost_budgets": self.command_cost_budgets,
                    "alert_at": self.alert_at,
                    "adjust": self.adjust,
                },
            )
        )

    def rehearsal(self, data: object, path: str) -> Rehearsal:
        readers = {
            "turns": self.positive_integer,
            "tokens": self.positive_integer,
            "seconds": self.seconds,
            "seed": self.integer,
        }
        return Rehearsal(**self.fields(data, path, readers))

    # -- values; after an error each returns something of the right type, which nobody gets to see --

    def text(self, value: object, path: str) -> str:
        if not isinstance(value, str):
            self.error(path, "expected a string", value)
            return ""
        if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
            self.error(path, "a NUL or half a surrogate pair cannot be passed on", value)
        return value

    def line(self, value: object, path: str) -> str:
        text = self.text(value, path)
        if isinstance(value, str) and (not text.strip() or not text.isprintable()):
            self.error(path, "expected one line of text, not empty", value)
        return text

    def words(self, value: object, path: str) -> str:
        text = self.text(value, path).strip()
        if isinstance(value, str) and not text:
            self.error(path, "is empty: expected a slash command or a prompt")
        return text

    def flag(self, value: object, path: str) -> bool:
        if not isinstance(value, bool):
            self.error(path, "expected true or false", value)
        return value is True

    def integer(self, value: object, path: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            self.error(path, "expected an integer", value)
            return 0
        return value

    def positive_integer(self, value: object, path: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            self.error(path, "expected a positive integer", value)
            return 1
        if value > MAX_LIMIT:
            self.error(path, f"expected at most {MAX_LIMIT:,}", value)
            return 1
        return value

    def retries(self, value: object, path: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_RETRIES:
            self.error(path, f"expected an integer from 0 to {MAX_RETRIES}", value)
            return 0
        return value

    def seconds(self, value: object, path: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
            self.error(path, "expected a positive number of seconds", value)
            return 1.0
        return float(value)

    def list_of(self, value: object, path: str, reader: Callable[[object, str], str]) -> tuple[str, ...]:
        if not isinstance(value, list):
            self.error(path, "expected a list of strings", value)
            return ()
        return tuple(reader(item, f"{path}[{i}]") for i, item in enumerate(value))

    def texts(self, value: object, path: str) -> tuple[str, ...]:
        return self.list_of(value, path, self.line)

    def commands(self, value: object, path: str) -> tuple[str, ...]:
        return self.list_of(value, path, self.words)

    def choice(self, value: object, path: str, choices: tuple[str, ...]) -> str:
        if value not in choices:
            self.error(path, f"expected one of {', '.join(choices)}", value)
        return str(value)

    def permission_mode(self, value: object, path: str) -> str:
        return self.choice(value, path, PERMISSION_MODES)

    def enforcement_mode(self, value: object, path: str) -> str:
        return self.choice(value, path, MODES)

    def output_format(self, value: object, path: str) -> str:
        return self.choice(value, path, ("stream-json",))

    def env(self, value: object, path: str) -> tuple[tuple[str, str], ...]:
        if not isinstance(value, dict):
            self.error(path, "expected an object of strings", value)
            return ()
        pairs = []
        for key, item in value.items():
            if _is_comment(key):
                continue
            if not key or "=" in key or "\0" in key:
                self.error(f"{path}.{key}", "not a name of an environment variable")
            pairs.append((self.text(key, f"{path}.{key}"), self.text(item, f"{path}.{key}")))
        return tuple(pairs)

    def mcp_config(self, value: object, path: str) -> tuple[str, ...]:
        if isinstance(value, dict):
            return (json.dumps(value),)
        if isinstance(value, list):
            return self.texts(value, path)
        if not isinstance(value, str):
            self.error(path, "expected a file, a list of files or an object", value)
            return ()
        return (self.line(value, path),)

    def worktree(self, value: object, path: str) -> str | bool:
        if isinstance(value, bool):
            return value
        if not isinstance(value, str):
            self.error(path, "expected true, false or a name", value)
            return False
        return self.line(value, path)

    def extra_args(self, value: object, path: str) -> tuple[str, ...]:
        args = self.list_of(value, path, self.text)
        for i, arg in enumerate(args):
            if arg.partition("=")[0] in OWN_OPTIONS:
                self.error(f"{path}[{i}]", "is set by the orchestrator itself", arg)
        return args

    def usd(self, value: object, path: str) -> str:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_USD:
            self.error(path, f"expected an amount of USD above 0 and at most {MAX_USD:,}", value)
            return "1"
        return f"{value:.9f}".rstrip("0").rstrip(".")

    def alert_at(self, value: object, path: str) -> str:
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        try:
            parse_thresholds(text)
        except ValueError:
            self.error(path, 'expected percentages such as 80, [50, 80] or "50,80"', value)
            return ""
        return text

    def adjust(self, value: object, path: str) -> str:
        return self.choice(value, path, ADJUST)

    def command_cost_budgets(self, value: object, path: str) -> tuple[tuple[str, str], ...]:
        return self.by_command(value, path, self.usd)

    def command_budgets(self, value: object, path: str) -> tuple[tuple[str, int], ...]:
        return self.by_command(value, path, self.positive_integer)

    def by_command(self, value: object, path: str, reader: Callable[[object, str], _T]) -> tuple[tuple[str, _T], ...]:
        if not isinstance(value, dict):
            self.error(path, "expected an object of command: limit", value)
            return ()
        if isinstance(value, _DuplicateKey):
            self.error(path, f"the key {show(value.key)} stands twice")
        pairs = []
        for key, limit in value.items():
            if _is_comment(key):
                continue
            if not key.strip():
                self.error(path, "a command's name is empty")
            pairs.append((key.strip(), reader(limit, f"{path}.{key}")))
        return tuple(pairs)

    def token_weights(self, value: object, path: str) -> str:
        if isinstance(value, dict):
            for key, weight in value.items():
                if key not in WEIGHT_KEYS or isinstance(weight, bool) or not isinstance(weight, int | float):
                    self.error(f"{path}.{key}", f"expected a number for one of {', '.join(WEIGHT_KEYS)}", weight)
                    return "flat"
            value = ",".join(f"{key}={weight}" for key, weight in value.items())
        if not isinstance(value, str):
            self.error(path, "expected flat, billing or weights such as output=5", value)
            return "flat"
        try:
            Weights.parse(value)
        except ValueError as error:
            self.error(path, str(error))
        return value


def unnamed(command: str) -> str:
    """What an instance without a name is called: its base command, or `prompt`."""
    return command.split(None, 1)[0][:60] if command.startswith("/") else "prompt"


def _free_name(command: str, taken: dict[str, int]) -> str:
    """A name for an instance that has none, numbered where it is taken: not the prompt, for names are shown."""
    base = unnamed(command)
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base} #{number}"
    taken[name] = -1
    return name
