"""What is passed to the API, as the config and the options of the program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypedDict

from claude_orchestrator.config.config import InstanceConfig
from claude_orchestrator.config.given import ARGUMENT, OPTIONS, Given, Options, read_given
from claude_orchestrator.errors import UserError
from token_budget.fields import nearest_name

ConfigLike = Mapping[str, Any] | Sequence[InstanceConfig] | PathLike[str] | str


class RunOptions(TypedDict, total=False):
    """The program's options, by their names with underscores. Each takes what the program or a config takes."""

    workspace: str | PathLike[str]
    resume: str
    rehearse: bool
    start_at: str
    for_each: str
    limit: int
    shuffle: int
    overall_token_budget: int | str
    command_budget: Mapping[str, int | str]
    budget_enforcement_mode: str
    token_weights: str | Mapping[str, float]
    meter: str
    charge_unanswered: str
    hold_policy: str
    model_when_low: str | Mapping[str, Any]
    stop_margin: float | str
    budget_profile: str
    overall_cost_budget: float | str
    command_cost_budget: Mapping[str, float | str]
    daily_cost_budget: float | str
    weekly_cost_budget: float | str
    monthly_cost_budget: float | str
    stop_at_rate_limit: float | str
    ledger: str | PathLike[str]
    account: str
    ledger_outage: str
    daily_token_budget: int | str
    weekly_token_budget: int | str
    monthly_token_budget: int | str
    alert_at: int | str | list[int]
    alert_command: str
    alert_desktop: bool
    alert_ntfy: str
    alert_webhook: str
    max_launches_per_hour: int | str
    max_parallel: int
    startup_delay: float | str
    share_cache: str
    share_cache_wait: float | str
    keep_cache_warm: bool
    timeout: float | str
    idle_timeout: float | str
    startup_timeout: float | str
    grace: float | str
    fail_fast: bool
    fail_on_denied: bool
    keep_worktrees: bool
    cluster: str
    cluster_workspace: str
    instances_per_node: int | str
    lease: float | str
    retries: int
    wait_for_reset: bool
    claude_bin: str
    no_control: bool
    approvals: str | Mapping[str, Any]
    approval_timeout: float | str
    subagent_token_budget: int | str | Mapping[str, int | str]
    instance_name: str
    instance_description: str
    session_id: str
    clear_history: bool
    compact_history: bool
    permission_mode: str
    allowed_tools: list[str]
    disallowed_tools: list[str]
    model: str
    unknown_command: str
    json_schema: str | Mapping[str, Any]
    output_dir: str | PathLike[str]


def data_of(config: ConfigLike) -> Mapping[str, Any] | None:
    """The JSON data of a config that is neither a prompt nor a file."""
    if isinstance(config, str | PathLike):
        return None
    data: Mapping[str, Any] = _data(config if isinstance(config, Mapping) else {"instances": config})
    return data


def _data(value: Any) -> Any:
    """Typed objects as the JSON that says the same, for the one reader that checks both."""
    if hasattr(value, "_asdict"):
        given = {key: item for key, item in value._asdict().items() if item not in (None, "", (), {}, False)}
        if isinstance(value, InstanceConfig):
            given = {**given, **({"env": dict(value.env)} if value.env else {})}
        return _data(given)
    if isinstance(value, Mapping):
        return {key: _data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_data(item) for item in value]
    return str(value) if isinstance(value, PathLike) else value


def options_of(config: ConfigLike, options: RunOptions) -> Options:
    """The program's options. Raises UserError for one that does not exist, and for every value that is refused."""
    allowed, faults = RunOptions.__annotations__, []
    given: dict[str, Given] = {}
    values = {param: setting.default for param, setting in OPTIONS.items() if not setting.run}
    if isinstance(config, PathLike):
        values["config"] = Path(config)
    for name, value in options.items():
        if name not in allowed:
            near = nearest_name(name, allowed)
            faults.append(f"{name}: no such option" + (f"; nearest: {near}" if near else ""))
        elif value is not None:
            given[name] = Given(_as_typed(name, value), ARGUMENT)
            try:
                read = read_given(OPTIONS[name], given[name])
                values.update({name: read} if name in values else {})
            except UserError as error:
                faults += error.lines
    if isinstance(config, str) and config.endswith(".json") and len(config.split()) == 1:
        faults.append(f"config: {config!r} would be a prompt: pass Path({config!r}) to run a config file")
    if faults:
        raise UserError(*faults)
    return Options(config if isinstance(config, str) else None, values, given)


def _as_typed(name: str, value: Any) -> Any:
    """A value as an option has it; limits by command are a list of `KEY=LIMIT`."""
    if OPTIONS[name].kind.element is not None and isinstance(value, Mapping):
        return [f"{key}={limit}" for key, limit in value.items()]
    return _data(value)
