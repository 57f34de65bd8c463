"""The options of a run, merged in one place: option > environment > config file > default. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from claude_orchestrator.config.config import BudgetConfig
from claude_orchestrator.errors import UserError
from token_budget.alerts import parse_thresholds
from token_budget.models import MAX_LIMIT, Weights
from token_budget.pricing import parse_usd

if TYPE_CHECKING:
    from token_budget.usage.profiles import Profile

DEFAULT_ALERT_AT = (80,)
# keys of a config's `budget` object and of profiles, where the options' names differ
KEYS = {
    "overall_budget": "overall_token_budget",
    "enforcement_mode": "budget_enforcement_mode",
    "disable_visuals": "disable_budget_visuals",
}
DEFAULT_MAX_PARALLEL = 8
DEFAULT_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is done with; `origins` names where each value came from. Costs are in nano-dollars."""

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
    daily_token_budget: int | None = None
    weekly_token_budget: int | None = None
    monthly_token_budget: int | None = None
    overall_cost_budget: int | None = None
    daily_cost_budget: int | None = None
    weekly_cost_budget: int | None = None
    monthly_cost_budget: int | None = None
    command_cost_budgets: tuple[tuple[str, int], ...] = ()
    alert_at: tuple[int, ...] = DEFAULT_ALERT_AT
    adjust: str = "pool"
    stop_at_rate_limit: float | None = None
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def in_money(self) -> bool:
        """Whether there is a budget in money."""
        limits = (self.overall_cost_budget, self.daily_cost_budget, self.weekly_cost_budget, self.monthly_cost_budget)
        return bool(self.command_cost_budgets) or any(limit is not None for limit in limits)


@dataclass(frozen=True, slots=True)
class Given:
    """A value that was given, and where: `option` or `environment`."""

    value: Any
    origin: str


def merge(
    given: Mapping[str, Given],
    budget: BudgetConfig,
    source: str,
    before: Mapping[str, Given] | None = None,
    profile: Profile | None = None,
) -> Settings:
    """One Settings from what was given, else the profile, else the config's `budget` object (named `source` in
    origins); `before`: what was given when the run that is resumed began.

    `given` has the names of Settings; `command_budgets` is a list of `KEY=N` texts and adds to the file's, key by
    key; weights, costs and thresholds are text. Raises UserError with every fault.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    lists: dict[str, dict[str, Any]] = {name: {} for name in _PARSERS}
    errors: list[str] = []

    def put(name: str, value: Any, origin: str) -> None:
        if name in lists:
            lists[name].update(value)
            origins.update((f"{name}[{key}]", origin) for key, _ in value)
        elif value is not None:
            values[name], origins[name] = value, origin

    for field_ in fields(BudgetConfig):
        put(KEYS.get(field_.name, field_.name), getattr(budget, field_.name), source)
    for name, value in (profile.values if profile else {}).items():
        many = isinstance(value, Mapping)
        for key, item in value.items() if isinstance(value, Mapping) else ((name, value),):
            origin = profile.origins[f"{name}[{key}]" if many else name] if profile else ""
            put(KEYS.get(name, name), [(key, item)] if many else item, origin)
    for name, given_value in (*(before or {}).items(), *given.items()):
        if name in lists:
            for text in given_value.value:
                try:
                    put(name, [_PARSERS[name](text)], given_value.origin)
                except ValueError as error:
                    errors.append(str(error))
        else:
            put(name, given_value.value, given_value.origin)
    for name, value in values.items():
        try:
            values[name] = _read(name, value)
        except ValueError as error:
            option = f"--{name.replace('_', '-')}"
            errors.append(str(error) if str(error).startswith(option) else f"{option}: {error}")
    costs = {key: parse_usd(str(value)) for key, value in lists["command_cost_budgets"].items()}
    if errors:
        raise UserError(*errors)
    unset = {f.name for f in fields(Settings)} - {*values, *lists, "origins"}
    origins.update((name, "default") for name in unset)
    budgets = tuple(lists["command_budgets"].items())
    return Settings(**values, command_budgets=budgets, command_cost_budgets=tuple(costs.items()), origins=origins)


def _read(name: str, value: Any) -> Any:
    """A value that was given as text. Raises ValueError with a reason."""
    if name == "token_weights":
        return Weights.parse(value)
    if name == "alert_at":
        return parse_thresholds(value)
    return parse_usd(str(value)) if name.endswith("_cost_budget") else value


def parse_command_budget(text: str) -> tuple[str, int]:
    """`/cmd=N` as key and limit; the last `=` splits. Raises ValueError with the whole error line."""
    key, number = _split(text, "--command-budget", "/test=1000")
    if not (number.isascii() and number.isdigit() and len(number) <= 16) or not 0 < int(number) <= MAX_LIMIT:
        raise ValueError(f"--command-budget: expected a positive integer after '=', got {number!r} in {text!r}")
    return key, int(number)


def parse_command_cost_budget(text: str) -> tuple[str, str]:
    """`/cmd=USD` as key and amount; the last `=` splits. Raises ValueError with the whole error line."""
    key, amount = _split(text, "--command-cost-budget", "/test=1.50")
    try:
        parse_usd(amount)
    except ValueError as error:
        raise ValueError(f"--command-cost-budget: {error} in {text!r}") from None
    return key, amount


def _split(text: str, option: str, example: str) -> tuple[str, str]:
    key, separator, number = text.rpartition("=")
    if not separator:
        raise ValueError(f"{option}: expected KEY=N such as {example}, got {text!r}")
    if not key.strip():
        raise ValueError(f"{option}: the command before '=' is empty in {text!r}")
    return key.strip(), number.strip()


_PARSERS: dict[str, Callable[[str], tuple[str, Any]]] = {
    "command_budgets": parse_command_budget,
    "command_cost_budgets": parse_command_cost_budget,
}
