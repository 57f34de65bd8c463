"""`--dry-run`: what a run would do, as text. Pure."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING

from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.config.settings import MeterChoice, Settings
from token_budget.budget_manager import TokenBudgetManager
from token_budget.models import Action, Budget, Decision, Hold, Unit
from token_budget.named_tuples import NamedTuple
from token_budget.text import RenderOptions, counted, format_usd, printable
from token_budget.visualization import render_budget_panel

if TYPE_CHECKING:
    from token_budget.trials import Trial

MEMBERS_IN_FULL, MEMBERS_SHOWN = 5, 3  # a larger group shows its first instances
_ADMISSION = {
    Action.ALLOW: "would start",
    Action.WARN: "would start with a warning",
    Action.WAIT: "would wait",
    Action.BLOCK: "would be blocked",
}


FENCES = {
    "mark": "processes that instances leave are found by their environment",
    "subreaper": "the kernel returns every process that instances leave, and the program ends it",
    "namespace": "the kernel ends every process that instances leave, whatever is killed",
}


class DryRun(NamedTuple):
    """What a run would do. Each instance carries the state in which an earlier run ended it, if it is not run again.

    `groups` has the number of items of each group, also where fewer were selected; `trials` has their latest runs.
    `in_full`: every instance of a group is shown, not only the first ones.
    `fence` is how the run would find what instances leave. `cluster` describes the nodes and what they would run.
    `head` is what a worktree begins with that has no base.
    `keeping` is what it costs to keep the prompt cache warm, if that is asked for.
    """

    instances: Sequence[tuple[LaunchSpec, str | None]]
    manager: TokenBudgetManager
    settings: Settings
    meter: MeterChoice
    source: str
    warnings: Sequence[str] = ()
    groups: Mapping[str, int] = MappingProxyType({})
    trials: Mapping[str, Trial] = MappingProxyType({})
    in_full: bool = False
    fence: str = "mark"
    cluster: Sequence[str] = ()
    head: str = "HEAD"
    keeping: Sequence[str] = ()


def describe(dry_run: DryRun, options: RenderOptions) -> list[str]:
    """Every instance with its exact arguments, prompts, folder, budgets, estimate and the decision on its launch.

    The decisions assume that all instances start at the same moment: each estimate is held while the next decision is
    made. At the end the manager is as it was.
    """
    instances, manager, settings, meter = dry_run.instances, dry_run.manager, dry_run.settings, dry_run.meter
    lines = [f"DRY RUN: {_size([spec for spec, _ in instances])} from {dry_run.source}, nothing starts"]
    lines += [f"WARNING: {warning}" for warning in dry_run.warnings]
    holds: list[Hold] = []
    for group, members in groupby(instances, lambda instance: instance[0].group):
        if group is None:
            lines += [line for spec, ended in members for line in _instance(spec, ended, dry_run, holds)]
        else:
            lines += _group(group, list(members), dry_run, holds)
    for hold in holds:
        manager.release(hold)
    if any(spec.depends_on for spec, _ in instances):
        from claude_orchestrator.cli.graph_view import describe_graph

        lines += describe_graph([spec for spec, _ in instances], ascii_only=options.ascii_only)
    lines += [
        "",
        f"Meter: {_meter(meter, manager)}",
        *dry_run.keeping,
        f"Fence: {dry_run.fence}: {FENCES[dry_run.fence]}",
        *_chances([spec for spec, ended in instances if ended is None], manager),
    ]
    lines += ["", *dry_run.cluster] if dry_run.cluster else []
    lines += ["", "Settings and their origins:", *_settings(settings)]
    lines = [printable(line) for line in lines]
    if options.visuals:
        width = min(options.width, 77)
        panel = render_budget_panel(manager, width=width, color=options.color, ascii_only=options.ascii_only)
        lines += ["", *panel] if panel else []
    return lines


def _size(specs: Sequence[LaunchSpec]) -> str:
    """How many instances there are, and how many groups whose instances a result will tell."""
    growing = sum(spec.grows is not None for spec in specs)
    instances = counted(len(specs) - growing, "instance")
    return f"{instances} and {counted(growing, 'growing group')}" if growing else instances


def _meter(meter: MeterChoice, manager: TokenBudgetManager) -> str:
    if meter.kind == "stream":
        return f"stream ({meter.reason}): responses in progress can still pass a budget"
    if manager.enforcement_mode != "block":
        return "api: the gateway counts each response as it passes, and warn mode delays and changes nothing"
    return (
        "api: the gateway sends a request only if every budget has room for the most that it can cost. It lowers "
        "max_tokens if a budget has less, waits for the holds of others, and refuses the request if a budget is spent."
    )


def _chances(to_run: Sequence[LaunchSpec], manager: TokenBudgetManager) -> list[str]:
    """The chance that the whole plan fits each budget, as far as it is known."""
    lines = []
    draws: dict[Budget, list[LaunchSpec]] = {}
    for spec in to_run if any(spec.forecasts for spec in to_run) else ():
        for budget in manager.budgets_for(spec.base_command, spec.name):
            draws.setdefault(budget, []).append(spec)
    for budget in (one for one in manager.budgets if one in draws):
        drawing = draws[budget]
        found = [spec.forecasts.get(budget.unit) for spec in drawing]
        forecasts = [forecast for forecast in found if forecast is not None and forecast.known]
        if len(forecasts) < len(drawing):
            continue
        from token_budget.forecast import chance_that_sum_is_under

        chance = chance_that_sum_is_under(forecasts, budget.limit - budget.used - budget.held_elsewhere)
        if chance is not None:
            limit = budget.unit.show(budget.limit)
            lines.append(f"Chance that the plan fits the {budget.label} budget ({limit}): {chance:.0%}")
    return lines


def _group(group: str, members: list[tuple[LaunchSpec, str | None]], dry_run: DryRun, holds: list[Hold]) -> list[str]:
    """A group: how many instances it has, the first ones as they are, and what would happen to the others."""
    manager, items = dry_run.manager, dry_run.groups.get(group, 0)
    of_all = f" of {items:,} items" if items > len(members) else ""
    lines = ["", f"Group {group}: {counted(len(members), 'instance')}{of_all}"]
    source = members[0][0].grows
    if source is not None:
        manager.join(members[0][0].name, group)
        what = f"{source.path} in the result of {source.name}" if source.path else f"the result of {source.name}"
        lines = ["", f"Group {group}: one instance for each item of {what}, each like this one"]
    shown = len(members) if dry_run.in_full or len(members) <= MEMBERS_IN_FULL else MEMBERS_SHOWN
    for spec, ended in members[:shown]:
        lines += _instance(spec, ended, dry_run, holds)
    others: Counter[str] = Counter()
    for spec, ended in members[shown:]:
        others[f"{ended} in an earlier run" if ended else _ADMISSION[_decide(spec, manager, holds).action]] += 1
    if others:
        what = ", ".join(f"{number:,} {words}" for words, number in others.items())
        lines += ["", f"... and {others.total():,} more like these: {what} (--log-level debug shows all)"]
    to_run = sum(ended is None for _, ended in members)
    if group in dry_run.trials and to_run:
        lines += ["", f"Forecast of {group}: {dry_run.trials[group].describe(to_run)}"]
    return lines


def _decide(spec: LaunchSpec, manager: TokenBudgetManager, holds: list[Hold]) -> Decision:
    decision = manager.reserve(spec.base_command, spec.estimate, spec.name)
    if decision.hold is not None:
        holds.append(decision.hold)
    return decision


def _instance(spec: LaunchSpec, ended: str | None, dry_run: DryRun, holds: list[Hold]) -> list[str]:
    manager = dry_run.manager
    if ended is not None:
        return ["", f"{spec.position + 1}. {spec.name}: {ended} in an earlier run, does not run again"]
    budgets = manager.budgets_for(spec.base_command, spec.name)
    decision = _decide(spec, manager, holds)
    lines = ["", f"{spec.position + 1}. {spec.name}" + (f": {spec.description}" if spec.description else "")]
    lines.append(f"   argv:      {shlex.join(spec.argv)}")
    lines += [f"   by file:   --{option} ({counted(len(text), 'character')})" for option, text in spec.private]
    lines += [f"   turn {number}:    {turn!r}" for number, turn in enumerate(spec.turns, 1)]
    if spec.depends_on:
        when = "" if spec.run_if == "success" else f" ({spec.run_if})"
        lines.append(f"   after:     {', '.join(spec.depends_on)}{when}")
    lines.append(f"   folder:    {spec.cwd}")
    if spec.worktree:
        own = spec.worktree if isinstance(spec.worktree, str) else spec.name
        lines.append(f"   worktree:  {own}, which begins with {spec.base or dry_run.head}")
    if spec.folder_free:
        lines.append("   cache:     its system prompt leaves the folder out, so that the worktrees share it")
    if spec.check is not None:
        lines.append(f"   check:     {spec.check.command!r}, at most {counted(spec.check.rounds, 'round')}")
    if spec.env:
        lines.append(f"   env:       {', '.join(name for name, _ in spec.env)} (values not shown)")
    if spec.timeout_s is not None:
        lines.append(f"   timeout:   {spec.timeout_s:g} s")
    named = ", ".join(f"{budget.label} ({budget.unit.show(budget.limit)})" for budget in budgets) or "none"
    lines.append(f"   budgets:   {named}")
    cost = f", {format_usd(spec.estimate.nano_usd)}" if spec.estimate.nano_usd else ""
    lines.append(f"   estimate:  {counted(spec.estimate.tokens, 'token')}{cost}")
    for unit, title in ((Unit.TOKENS, "forecast:"), (Unit.USD, "cost:    ")):
        if unit in spec.forecasts:
            lines.append(f"   {title}  {spec.forecasts[unit].describe(unit)}")
    reason = f" ({decision.reason})" if decision.reason else ""
    lines.append(f"   admission: {_ADMISSION[decision.action]}{reason}")
    return lines


def _settings(settings: Settings) -> list[str]:
    rows = list(settings.rows())
    width = max(len(name) for name, _, _ in rows)
    return [f"   {name:<{width}}  {value} ({origin})" for name, value, origin in rows]
