"""The settings of a run, merged in one place: option > environment > profile > config file > default. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from claude_orchestrator.config.approvals import ApprovalRules
from claude_orchestrator.config.fields import BUDGET, DEFAULTS, RUN, Setting
from claude_orchestrator.config.given import Given, read_given
from claude_orchestrator.config.instance_kinds import ModelWhenLow
from claude_orchestrator.config.subagent_limits import SubagentLimits
from claude_orchestrator.errors import UserError
from token_budget.named_tuples import NamedTuple

if TYPE_CHECKING:
    from token_budget.model_weights import TokenWeights
    from token_budget.usage.profiles import Profile

_D: Mapping[str, Any] = DEFAULTS


class Settings(NamedTuple):
    """The settings of a run, typed; `config.fields` declares each. Costs are in nano-dollars.

    `origins` has the origin of each value; that of a limit by command is under `command_budgets[KEY]`.
    """

    overall_token_budget: int | None = _D["overall_token_budget"]
    command_budgets: tuple[tuple[str, int], ...] = ()
    budget_enforcement_mode: str = _D["budget_enforcement_mode"]
    disable_budget_visuals: bool = _D["disable_budget_visuals"]
    token_weights: TokenWeights = _D["token_weights"]
    max_parallel: int = _D["max_parallel"]
    startup_delay_s: float = _D["startup_delay_s"]
    model_when_low: ModelWhenLow | None = _D["model_when_low"]
    max_launches_per_hour: int | None = _D["max_launches_per_hour"]
    share_cache: str = _D["share_cache"]
    share_cache_wait_s: float = _D["share_cache_wait_s"]
    keep_cache_warm: bool = _D["keep_cache_warm"]
    timeout_s: float | None = _D["timeout_s"]
    idle_timeout_s: float | None = _D["idle_timeout_s"]
    startup_timeout_s: float = _D["startup_timeout_s"]
    grace_s: float = _D["grace_s"]
    instances_per_node: int = _D["instances_per_node"]
    lease_s: float = _D["lease_s"]
    cluster_workspace: str = _D["cluster_workspace"]
    fail_fast: bool = _D["fail_fast"]
    fail_on_denied: bool | None = _D["fail_on_denied"]
    subagent_token_budget: SubagentLimits | None = _D["subagent_token_budget"]
    approvals: ApprovalRules = _D["approvals"]
    approval_timeout_s: float = _D["approval_timeout_s"]
    keep_worktrees: bool = _D["keep_worktrees"]
    meter: str = _D["meter"]
    charge_unanswered: str | None = _D["charge_unanswered"]
    retries: int = _D["retries"]
    wait_for_reset: bool = _D["wait_for_reset"]
    status_report_interval_s: float = _D["status_report_interval_s"]
    daily_token_budget: int | None = _D["daily_token_budget"]
    weekly_token_budget: int | None = _D["weekly_token_budget"]
    monthly_token_budget: int | None = _D["monthly_token_budget"]
    overall_cost_budget: int | None = _D["overall_cost_budget"]
    daily_cost_budget: int | None = _D["daily_cost_budget"]
    weekly_cost_budget: int | None = _D["weekly_cost_budget"]
    monthly_cost_budget: int | None = _D["monthly_cost_budget"]
    command_cost_budgets: tuple[tuple[str, int], ...] = ()
    alert_at: tuple[int, ...] = _D["alert_at"]
    account: str | None = _D["account"]
    ledger_outage: str = _D["ledger_outage"]
    hold_policy: str = _D["hold_policy"]
    stop_margin: float = _D["stop_margin"]
    stop_at_rate_limit: float | None = _D["stop_at_rate_limit"]
    origins: Mapping[str, str] = MappingProxyType({})

    @property
    def cache_wait_s(self) -> float:
        """How long one waits at most for the prompt cache that another one writes; 0 if nobody waits."""
        return 0.0 if self.share_cache == "off" else self.share_cache_wait_s

    @property
    def in_money(self) -> bool:
        """Whether there is a budget in money."""
        limits = (self.overall_cost_budget, self.daily_cost_budget, self.weekly_cost_budget, self.monthly_cost_budget)
        return bool(self.command_cost_budgets) or any(limit is not None for limit in limits)

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Every setting as name, value and origin; limits by command come last, one by one."""
        many = [setting for setting in RUN if setting.kind.element is not None]
        for setting in RUN:
            value = getattr(self, setting.name)
            if setting.kind.element is None:
                yield setting.name, "none" if value is None else setting.kind.show(value), self.origins[setting.name]
        for setting in many:
            assert setting.kind.element is not None
            for key, limit in getattr(self, setting.name):
                name = f"{setting.name}[{key}]"
                yield name, setting.kind.element.show(limit), self.origins[name]


class MeterChoice(NamedTuple):
    """`api` or `stream`, and why it is not the other one."""

    kind: str
    reason: str = ""


STREAM = MeterChoice("stream", "as asked for")


class _Merged:
    """Values by name. Later ones replace earlier ones; limits by command are merged key by key."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self.faults: list[str] = []

    def put(self, setting: Setting, value: Any, origin: str, origins: Mapping[str, str] | None = None) -> None:
        """Take a checked value; `origins` has those of single limits by their keys."""
        name = setting.name
        if setting.kind.element is None:
            self.values[name], self.origins[name] = value, origin
            return
        self.values.setdefault(name, {}).update(value)
        for key in value:
            self.origins[f"{name}[{key}]"] = (origins or {}).get(key, origin)

    def put_profile(self, setting: Setting, profile: Profile) -> None:
        """Take what a profile has of a setting."""
        key = setting.budget
        if setting.profile and key in profile.values:
            value = profile.values[key]
            each = {item: profile.origins[f"{key}[{item}]"] for item in value} if setting.kind.element else {}
            self.put(setting, value, profile.origins.get(key, ""), each)

    def settings(self) -> Settings:
        """The settings, with the defaults of those that have no value."""
        origins = self.origins | {setting.name: "default" for setting in RUN if setting.name not in self.values}
        limits = {setting.name: () for setting in RUN if setting.kind.element is not None}
        values = {name: tuple(value.items()) if name in limits else value for name, value in self.values.items()}
        return Settings(**limits | values, origins=origins)

    def read(self, setting: Setting, given: Given) -> None:
        """Take a value as it was typed, or note what is wrong with it."""
        try:
            self.put(setting, read_given(setting, given), given.origin)
        except UserError as error:
            self.faults += error.lines


def merge(
    given: Mapping[str, Given],
    budget: Mapping[str, Any],
    source: str,
    before: Mapping[str, Given] | None = None,
    profile: Profile | None = None,
) -> Settings:
    """One Settings from what was given, else the profile, else the config's `budget` object (named `source` in
    origins); `before`: what was given when the run that is resumed began.

    `given` and `before` have the names of Settings with values as typed; limits by command are lists of `KEY=LIMIT`.
    Raises UserError with every fault.
    """
    merged = _Merged()
    for setting in BUDGET:
        if setting.run and setting.name in budget:
            merged.put(setting, budget[setting.name], source)
        if profile is not None:
            merged.put_profile(setting, profile)
    for layer in (before or {}, given):
        for setting in RUN:
            found = next((layer[name] for name in (setting.name, *setting.aliases) if name in layer), None)
            if found is not None and found.value is not None:
                merged.read(setting, found)
    if merged.faults:
        raise UserError(*merged.faults)
    return merged.settings()
