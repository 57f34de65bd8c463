"""Token budgets: limits, holds and the panel that shows them (standard library only)."""

from token_budget.budget_manager import TokenBudgetManager
from token_budget.models import (
    Action,
    Amount,
    Budget,
    CommandBudgetInfo,
    Decision,
    Hold,
    Scope,
    Unit,
    Usage,
    Weights,
)
from token_budget.visualization import render_budget_panel, render_progress_bar

__all__ = [
    "Action",
    "Amount",
    "Budget",
    "CommandBudgetInfo",
    "Decision",
    "Hold",
    "Scope",
    "TokenBudgetManager",
    "Unit",
    "Usage",
    "Weights",
    "render_budget_panel",
    "render_progress_bar",
]
