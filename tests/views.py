"""A view of a run, without a run."""

from __future__ import annotations

import time
from datetime import datetime

from claude_orchestrator.config.plan import Plan
from claude_orchestrator.engine.run_view import RunChanges, RunView
from claude_orchestrator.engine.sharing.cache_use import CacheUse
from claude_orchestrator.engine.state import InstanceStatus
from token_budget.budget_manager import TokenBudgetManager


def a_view(
    plan: Plan,
    instances: list[InstanceStatus],
    manager: TokenBudgetManager,
    started_at: datetime,
    clock_at_start: float,
    run_id: str = "r",
) -> RunView:
    """A view in which nothing was removed."""
    changes, cache = RunChanges(), CacheUse(time.monotonic)
    return RunView(run_id, plan, instances, manager, started_at, clock_at_start, [], changes, cache)
