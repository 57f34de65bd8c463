"""When an instance starts with another model, because little of a budget is left. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from claude_orchestrator.config.instance_kinds import ModelWhenLow
from token_budget.models import Budget


def low_budget(low: ModelWhenLow, budgets: Iterable[Budget]) -> Budget | None:
    """The tightest of these budgets if less of it is left than the setting says, else None."""
    tightest = max(budgets, key=lambda budget: budget.percentage, default=None)
    return tightest if tightest is not None and tightest.percentage > 100 - low.below else None
