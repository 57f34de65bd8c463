"""`--dry-run`: what a run would do, as text. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from claude_orchestrator.config.plan import LaunchSpec
from claude_orchestrator.config.settings import Meter, Settings
from token_budget.budget_manager import TokenBudgetManager
from token_budget.models import Action, Hold, Unit
from token_budget.text import RenderOptions, format_usd, printable
from token_budget.visualization import render_budget_panel

_ADMISSION = {
    Action.ALLOW: "would start",
    Action.WARN: "would start with a warning",
    Action.WAIT: "would wait",
    Action.BLOCK: "would be blocked",
}


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a run would do. Each instance carries the state in which an earlier run ended it, if it is not run again."""

    instances: Sequence[tuple[LaunchSpec, str | None]]
    manager: TokenBudgetManager
    settings: Settings
    meter: Meter
    source: str
    warnings: Sequence[str] = ()


def describe(dry_run: DryRun, options: RenderOptions) -> list[str]:
    """Every instance with its exact arguments, prompts, folder, budgets, estimate and the decision on its launch.

    The decisions assume that all instances start at the same moment: each estimate is held while the next decision is
    made. At the end the manager is as it was.
    """
    instances, manager, settings, meter = dry_run.instances, dry_run.manager, dry_run.settings, dry_run.meter
    lines = [f"DRY RUN: {len(instances)} instances from {dry_run.source}; nothing is launched"]
    lines += [f"WARNING: {warning}" for warning in dry_run.warnings]
    holds: list[Hold] = []
    for spec, ended in instances:
        if ended is not None:
            lines += ["", f"{spec.index + 1}. {spec.name}: {ended} in an earlier run, is not run again"]
        else:
            lines += ["", *_instance(spec, manager, holds)]
    for hold in holds:
        manager.release(hold)
    lines += [
        "",
        f"Meter: {_meter(meter, manager)}",
        *_chances([spec for spec, ended in instances if ended is None], manager),
    ]
    lines += ["", "Settings (value and origin):", *_settings(settings)]
    lines = [printable(line) for line in lines]
    if options.visuals:
        width = min(options.width, 77)
        panel = render_budget_panel(manager, width=width, color=options.color, ascii_only=options.ascii_only)
        lines += ["", *panel] if panel else []
    return lines


def _meter(meter: Meter, manager: TokenBudgetManager) -> str:
    if meter.kind == "stream":
        return f"stream ({meter.reason}): responses in progress can still pass a budget"
    if manager.enforcement_mode != "block":
        return "api: each response is counted as it passes; warn mode delays and alters nothing"
    return (
        "api: a request is sent only when every budget has room for the most that it can cost (its input, and "
        "max_tokens, which is lowered if a budget has less); it waits for what others hold, and is refused when a "
        "budget is spent"
    )


def _chances(to_run: Sequence[LaunchSpec], manager: TokenBudgetManager) -> list[str]:
    """The chance that the whole plan fits each budget, as far as it is known."""
    lines = []
    for budget in manager.budgets:
        drawing = [spec for spec in to_run if budget in manager.budgets_for(spec.base_command, spec.name)]
        found = [spec.forecasts.get(budget.unit) for spec in drawing]
        forecasts = [forecast for forecast in found if forecast is not None and forecast.known]
        if not drawing or len(forecasts) < len(drawing):
            continue
        from token_budget.forecast import chance_that_sum_is_under

        chance = chance_that_sum_is_under(forecasts, budget.limit - budget.used - budget.held_elsewhere)
        if chance is not None:
            limit = budget.unit.show(budget.limit)
            lines.append(f"Chance that the plan fits the {budget.label} budget ({limit}): {chance:.0%}")
    return lines


def _instance(spec: LaunchSpec, manager: TokenBudgetManager, holds: list[Hold]) -> list[str]:
    budgets = manager.budgets_for(spec.base_command, spec.name)
    decision = manager.reserve(spec.base_command, spec.estimate, spec.name)
    if decision.hold is not None:
        holds.append(decision.hold)
    lines = [f"{spec.index + 1}. {spec.name}" + (f": {spec.description}" if spec.description else "")]
    lines.append(f"   argv:      {shlex.join(spec.argv)}")
    lines += [f"   by file:   --{option} ({len(text)} characters)" for option, text in spec.private]
    lines += [f"   turn {number}:    {turn!r}" for number, turn in enumerate(spec.turns, 1)]
    lines.append(f"   folder:    {spec.cwd}")
    if spec.env:
        lines.append(f"   env:       {', '.join(name for name, _ in spec.env)} (values not shown)")
    if spec.timeout_s is not None:
        lines.append(f"   timeout:   {spec.timeout_s:g} s")
    named = ", ".join(f"{budget.label} ({budget.unit.show(budget.limit)})" for budget in budgets) or "none"
    lines.append(f"   budgets:   {named}")
    cost = f", {format_usd(spec.estimate.nano_usd)}" if spec.estimate.nano_usd else ""
    lines.append(f"   estimate:  {spec.estimate.tokens:,} tokens{cost}")
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
