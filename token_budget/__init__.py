"""Token budgets: limits, holds and the panel that shows them (standard library only)."""

from token_budget.budget_manager import TokenBudgetManager
from token_budget.models import Action, CommandBudgetInfo, Decision, Hold, Scope, Usage, Weights
from token_budget.visualization import render_budget_panel, render_progress_bar

__all__ = [
    "Action",
    "CommandBudgetInfo",
    "Decision",
    "Hold",
    "Scope",
    "TokenBudgetManager",
    "Usage",
    "Weights",
    "render_budget_panel",
    "render_progress_bar",
]
