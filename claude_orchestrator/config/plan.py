"""From a config to what will be launched: arguments, prompts, folders, budgets. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache, partial
from pathlib import PurePath
from typing import TYPE_CHECKING, TypeVar

from claude_orchestrator.claude.argv import launch_argv, private_options
from claude_orchestrator.claude.failures import command_word
from claude_orchestrator.claude.prompt_cache import cache_prefix, can_leave_folder_out
from claude_orchestrator.config.config import Config, InstanceConfig, Rehearsal
from claude_orchestrator.config.item_sources import ResultOf
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.errors import UserError
from token_budget.budget_manager import WINDOW_SCOPES, TokenBudgetManager
from token_budget.fields import show_json
from token_budget.models import Amount, Scope, Unit
from token_budget.named_tuples import NamedTuple
from token_budget.text import format_usd

if TYPE_CHECKING:
    from token_budget.forecast import Forecast

_T = TypeVar("_T")
DEFAULT_ESTIMATE_TOKENS = 1_000
# what a base command, or the plain prompt of the instance with this name, will use with a model, in a unit
ForecastFn = Callable[[str | None, str, str | None, Unit], "Forecast | None"]
# from the spec of a group, its instances and the first free index to their launches and budgets
Grow = Callable[
    ["LaunchSpec", "Sequence[InstanceConfig]", int], "tuple[tuple[LaunchSpec, ...], tuple[PlannedBudget, ...]]"
]


class PlannedBudget(NamedTuple):
    """A limit on a command, a group or an instance."""

    scope: Scope
    key: str
    limit: int
    unit: Unit = Unit.TOKENS


class Plan(NamedTuple):
    """Everything a run will do, before it does anything.

    `grow` makes the launches of a group's instances, and their budgets, once they are known.
    """

    specs: tuple[LaunchSpec, ...]
    budgets: tuple[PlannedBudget, ...]
    warnings: tuple[str, ...]
    grow: Grow | None = None


def make_plan(
    config: Config,
    settings: Settings,
    *,
    workspace: str,
    claude_bin: str,
    forecast: ForecastFn = lambda base_command, instance, model, unit: None,
) -> Plan:
    """The plan for a config: every instance's launch, every budget, and warnings of budgets that match nothing.

    The key of a limit is a command if it begins with `/`; else an instance, a group, or a command without its `/`, the
    first that exists.
    """
    planner = _Planner(config.rehearsal, settings, workspace, claude_bin, forecast)
    specs = tuple(planner.spec(index, instance) for index, instance in enumerate(config.instances))
    specs = _with_shared_prompts(specs, settings)
    _check_needs(specs)
    explicit, warnings = _explicit_budgets(settings.command_budgets, specs)
    named = {(budget.scope, budget.key) for budget in explicit}
    own = [
        PlannedBudget(Scope.INSTANCE, spec.name, instance.max_tokens_per_command)
        for spec, instance in zip(specs, config.instances, strict=True)
        if instance.max_tokens_per_command is not None
        and spec.grows is None
        and (Scope.INSTANCE, spec.name) not in named
        and (Scope.COMMAND, spec.base_command) not in named
    ]
    costs, more = _explicit_budgets(settings.command_cost_budgets, specs, Unit.USD)
    limited = {budget.key for budget in explicit if budget.scope is Scope.COMMAND}
    planned = (*explicit, *own, *costs), (*config.warnings, *warnings, *more)
    return Plan(specs, *planned, grow=partial(planner.members, limited))


def _first(own: _T | None, of_run: _T | None) -> _T | None:
    """The instance's own value, else that of the run."""
    return of_run if own is None else own


def make_manager(plan: Plan, settings: Settings) -> TokenBudgetManager:
    """A budget manager with the plan's limits."""
    account = settings.account or ""
    manager = TokenBudgetManager(enforcement_mode=settings.budget_enforcement_mode, account=account)
    for unit in Unit:
        for scope in (Scope.OVERALL, *WINDOW_SCOPES):
            limit = getattr(settings, f"{scope}_{unit.word}_budget")
            if limit is not None:
                manager.set_budget(scope, limit, account if scope in WINDOW_SCOPES else "", unit)
    for budget in plan.budgets:
        manager.set_budget(budget.scope, budget.limit, budget.key, budget.unit)
    for spec in plan.specs:
        if spec.group is not None:
            manager.join(spec.name, spec.group)
    return manager


def _explicit_budgets(
    budgets: Iterable[tuple[str, int]], specs: tuple[LaunchSpec, ...], unit: Unit = Unit.TOKENS
) -> tuple[list[PlannedBudget], list[str]]:
    names = {spec.name: spec.group for spec in specs if spec.grows is None}
    groups = dict.fromkeys(spec.group for spec in specs if spec.group is not None)
    commands = list(dict.fromkeys(spec.base_command for spec in specs if spec.base_command is not None))
    found: dict[tuple[Scope, str], PlannedBudget] = {}
    warnings: list[str] = []
    faults: list[str] = []
    for key, limit in budgets:
        scope, resolved = _what_is_limited(key, names, groups, commands)
        found[scope, resolved] = PlannedBudget(scope, resolved, limit, unit=unit)
        if scope is Scope.COMMAND and resolved not in commands:
            faults += [_not_one_key(key)] if "=" in key or "," in key else []
            amount = format_usd(limit) if unit is Unit.USD else limit
            known = [*commands, *groups, *(name for name, group in names.items() if group is None or "[" in key)]
            warnings.append(f"the budget {key}={amount} matches nothing in the plan{_nearest(key, known)}")
    if faults:
        raise UserError(*faults)
    return list(found.values()), warnings


def _what_is_limited(
    key: str, names: Collection[str], groups: Collection[str], commands: Collection[str]
) -> tuple[Scope, str]:
    """The scope of a budget, and its key there: an instance, a group, or a command, whose slash can be left out."""
    if key.startswith("/"):
        return Scope.COMMAND, key
    if key in names:
        return Scope.INSTANCE, key
    if key in groups:
        return Scope.GROUP, key
    return Scope.COMMAND, f"/{key}" if f"/{key}" in commands else key


def _check_needs(specs: tuple[LaunchSpec, ...]) -> None:
    """Refuse dependencies on instances of a group that it does not have."""
    known = {spec.name for spec in specs} | {spec.group for spec in specs}
    faults = [
        f"{spec.name}: depends_on: there is no instance {show_json(need)}: depend on its whole group"
        for spec in specs
        for need in spec.depends_on
        if need not in known
    ]
    if faults:
        raise UserError(*faults[:20])


def _not_one_key(key: str) -> str:
    return f"budget for {show_json(key)}: no command, group or instance has this name: write KEY=LIMIT once for each"


def _nearest(key: str, known: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(key, list(dict.fromkeys(known)), n=3)
    return f"; nearest: {', '.join(near)}" if near else ""


class _Planner(NamedTuple):
    """Makes the specs of instances, from what all of them have in common."""

    rehearsal: Rehearsal
    settings: Settings
    workspace: str
    claude_bin: str
    forecast: ForecastFn

    def spec(self, index: int, instance: InstanceConfig) -> LaunchSpec:
        """The launch of one instance."""
        settings, command = self.settings, command_word(instance.command)
        approvals = settings.approvals if instance.approvals is None else instance.approvals
        later = instance.for_each if isinstance(instance.for_each, ResultOf) else None
        name, group, needs = instance.name, instance.group, instance.depends_on
        if later is not None:
            name, group, needs = _group(instance)
        forecasts = self._forecasts(command, instance)
        expected = {unit: found.p50 or 0 for unit, found in forecasts.items()}
        tokens = instance.max_tokens_per_command or expected.get(Unit.TOKENS) or DEFAULT_ESTIMATE_TOKENS
        return LaunchSpec(
            position=index,
            name=name,
            description=instance.description,
            command=instance.command,
            base_command=command,
            argv=launch_argv(self.claude_bin, instance, asks=approvals.handled),
            approvals=approvals,
            private=private_options(instance),
            turns=turns_of(instance),
            cwd=_folder(self.workspace, instance.cwd or ""),
            env=instance.env,
            estimate=Amount(tokens, expected.get(Unit.USD, 0)),
            forecasts=forecasts,
            timeout_s=instance.timeout_s if instance.timeout_s is not None else settings.timeout_s,
            retries=instance.retries if instance.retries is not None else settings.retries,
            session_id=instance.session_id,
            rehearsal=instance.rehearsal or self.rehearsal,
            json_schema=instance.json_schema,
            unknown_command=instance.unknown_command,
            group=group,
            item=instance.item,
            item_index=instance.item_index,
            depends_on=needs,
            run_if=instance.run_if,
            check=instance.check,
            worktree=instance.worktree,
            base=instance.base,
            race_of=instance.race_of,
            node=instance.node,
            late=instance if later or (instance.depends_on and _has_templates(instance)) else None,
            grows=later,
            fail_on_denied=bool(_first(instance.fail_on_denied, settings.fail_on_denied)),
            subagent_limits=_first(instance.subagent_token_budget, settings.subagent_token_budget) or (),
        )

    def _forecasts(self, command: str | None, instance: InstanceConfig) -> dict[Unit, Forecast]:
        subject = instance.name if instance.group is None else f"{instance.group}[]"  # a group has one forecast
        units = (Unit.TOKENS, Unit.USD) if self.settings.in_money else (Unit.TOKENS,)
        found = {unit: self.forecast(command, subject, instance.model, unit) for unit in units}
        return {unit: forecast for unit, forecast in found.items() if forecast is not None}

    def members(
        self, limited: Collection[str], group: LaunchSpec, instances: Sequence[InstanceConfig], first_index: int
    ) -> tuple[tuple[LaunchSpec, ...], tuple[PlannedBudget, ...]]:
        """The launches of the instances that a group has grown, and their budgets.

        Commands in `limited` have budgets of their own. Forecasts are those of the group.
        """
        planner = self._replace(forecast=lambda command, name, model, unit: group.forecasts.get(unit))
        specs = tuple(planner.spec(first_index + number, instance) for number, instance in enumerate(instances))
        specs = _with_shared_prompts(specs, self.settings)
        budgets = tuple(
            PlannedBudget(Scope.INSTANCE, spec.name, instance.max_tokens_per_command)
            for spec, instance in zip(specs, instances, strict=True)
            if instance.max_tokens_per_command is not None and spec.base_command not in limited
        )
        return specs, budgets


def _with_shared_prompts(specs: tuple[LaunchSpec, ...], settings: Settings) -> tuple[LaunchSpec, ...]:
    """The same launches. Those whose system prompts differ only in their worktrees now share one."""
    if settings.share_cache == "off" or not any(spec.worktree for spec in specs):
        return specs
    places = {
        index: cache_prefix(spec.argv, spec.private, spec.env, "", folder_free=True)
        for index, spec in enumerate(specs)
        if spec.worktree and can_leave_folder_out(spec.argv)
    }
    sizes = Counter(places.values())
    return tuple(
        spec._replace(folder_free=index in places and sizes[places[index]] > 1) for index, spec in enumerate(specs)
    )


@lru_cache(maxsize=1024)
def _group(instance: InstanceConfig) -> tuple[str, str | None, tuple[str, ...]]:
    """The name, the group and the needs of what stands for a group until its instances are known."""
    from claude_orchestrator.config.for_each import group_name
    from claude_orchestrator.config.graph import needs_of

    name = group_name(instance)
    return name, name, needs_of(instance)


def _has_templates(instance: InstanceConfig) -> bool:
    from claude_orchestrator.config.for_each import has_templates

    return has_templates(instance)


def _folder(workspace: str, cwd: str) -> str:
    return str(PurePath(workspace, cwd))


def turns_of(instance: InstanceConfig) -> tuple[str, ...]:
    """The prompts of an instance, in order."""
    clear = ("/clear",) if instance.clear_history else ()
    compact = ("/compact",) if instance.compact_history else ()
    return (*clear, *compact, *instance.pre_commands, instance.command)
