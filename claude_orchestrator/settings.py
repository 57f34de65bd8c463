"""The options of a run, merged in one place: option > environment > config file > default. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from claude_orchestrator.config import BudgetConfig
from claude_orchestrator.errors import UserError
from token_budget.models import Weights

DEFAULT_MAX_PARALLEL = 8
DEFAULT_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is done with; `origins` names where each value came from."""

    overall_token_budget: int | None = None
    command_budgets: tuple[tuple[str, int], ...] = ()
    budget_enforcement_mode: str = "warn"
    disable_budget_visuals: bool = False
    token_weights: Weights = field(default_factory=Weights)
    max_parallel: int = DEFAULT_MAX_PARALLEL
    startup_delay_s: float = 0.0
    timeout_s: float | None = None
    idle_timeout_s: float | None = None
    grace_s: float = DEFAULT_GRACE_S
    fail_fast: bool = False
    meter: str = "auto"
    retries: int = 0
    wait_for_reset: bool = False
    status_report_interval_s: float = 30.0
    origins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Given:
    """A value that was given, and where: `option` or `environment`."""

    value: Any
    origin: str


def merge(
    given: Mapping[str, Given], budget: BudgetConfig, source: str, before: Mapping[str, Given] | None = None
) -> Settings:
    """One Settings from what was given and the config's `budget` object (named `source` in origins); `before`: what
    was given when the run that is resumed began.

    `given` has the names of Settings; `command_budgets` is a list of `KEY=N` texts and adds to the file's, key by
    key; `token_weights` is text. Raises UserError with every fault.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}

    def put(name: str, value: object, origin: str) -> None:
        if value is not None:
            values[name] = value
            origins[name] = origin

    put("overall_token_budget", budget.overall_budget, source)
    put("budget_enforcement_mode", budget.enforcement_mode, source)
    put("disable_budget_visuals", budget.disable_visuals, source)
    put("token_weights", budget.token_weights, source)
    command_budgets = dict(budget.command_budgets)
    origins.update((f"command_budgets[{key}]", source) for key in command_budgets)
    errors = []
    for name, item in (*(before or {}).items(), *given.items()):
        if name != "command_budgets":
            put(name, item.value, item.origin)
            continue
        for text in item.value:
            try:
                key, limit = parse_command_budget(text)
            except ValueError as error:
                errors.append(str(error))
                continue
            command_budgets[key] = limit
            origins[f"command_budgets[{key}]"] = item.origin
    weights = values.get("token_weights")
    if weights is not None:
        try:
            values["token_weights"] = Weights.parse(weights)
        except ValueError as error:
            errors.append(f"--token-weights: {error}")
    if errors:
        raise UserError(*errors)
    origins.update((f.name, "default") for f in fields(Settings) if f.name not in values and f.name != "origins")
    return Settings(**values, command_budgets=tuple(command_budgets.items()), origins=origins)


def parse_command_budget(text: str) -> tuple[str, int]:
    """`/cmd=N` as key and limit; the last `=` splits. Raises ValueError with the whole error line."""
    key, separator, number = text.rpartition("=")
    key, number = key.strip(), number.strip()
    if not separator:
        raise ValueError(f"--command-budget: expected KEY=N such as /test=1000, got {text!r}")
    if not key:
        raise ValueError(f"--command-budget: the command before '=' is empty in {text!r}")
    if not (number.isascii() and number.isdigit()) or int(number) == 0:
        raise ValueError(f"--command-budget: expected a positive integer after '=', got {number!r} in {text!r}")
    return key, int(number)
