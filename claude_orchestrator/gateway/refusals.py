"""Why the gateway refuses a request that a budget cannot pay for, and how the user continues. Pure."""

from __future__ import annotations

import shlex

from claude_orchestrator.config.fields import PROGRAM
from token_budget.budget_manager import WINDOW_SCOPES
from token_budget.models import Budget, Scope, Unit
from token_budget.named_tuples import NamedTuple
from token_budget.text import decimal_usd

MARGIN_PERCENT = 125  # one request more would be refused soon again
LEAST_GROWTH_PERCENT = 150  # of the limit that was too small


class BudgetRefusal(NamedTuple):
    """A budget that has too little left for a request, which may draw up to `needed` in the budget's unit."""

    budget: Budget
    needed: int

    @property
    def reason(self) -> str:
        """The figures, and the command that continues the run with a limit that has room."""
        budget, show = self.budget, self.budget.unit.show
        if budget.scope is Scope.SUBAGENT:
            return self._for_parent()
        name = budget.key if budget.scope is Scope.COMMAND and budget.unit is Unit.TOKENS else budget.label
        needs = f"cost up to {show(self.needed)}" if budget.unit is Unit.USD else f"need up to {self.needed:,} tokens"
        left = f"{show(budget.remaining)} {'is' if budget.unit is Unit.USD else 'are'} left"
        return (
            f"its next request may {needs}; {left} of the {name} budget ({show(budget.limit)}). "
            f"To continue: {self._how_to_continue()}"
        )

    def _how_to_continue(self) -> str:
        budget = self.budget
        if budget.scope not in WINDOW_SCOPES or not budget.key:
            return f"{PROGRAM} --resume last {option_for(budget, self.enough)}"
        is_money = budget.unit is Unit.USD  # the limit of an account is in the ledger
        limit = f"{budget.scope}-cost={decimal_usd(self.enough)}" if is_money else f"{budget.scope}={self.enough}"
        return f"token-budget limit set {budget.key} {limit}, then {PROGRAM} --resume last"

    def _for_parent(self) -> str:
        """What the subagent's parent reads as its result: it can continue without the subagent."""
        budget = self.budget
        return (
            f"this subagent has used its token budget: {budget.remaining:,} of {budget.limit:,} tokens are left, and "
            f"its next request may need up to {self.needed:,}. Do not continue it. Use what it has finished, "
            "give a smaller task to a new subagent, or do the rest yourself"
        )

    @property
    def enough(self) -> int:
        """A round limit that has room for this request and some more."""
        least = max(
            (self.budget.used + self.needed) * MARGIN_PERCENT // 100, self.budget.limit * LEAST_GROWTH_PERCENT // 100
        )
        return round_up(least)


def round_up(quantity: int) -> int:
    """The next number with one digit that is not zero."""
    unit: int = 10 ** (len(str(max(quantity, 1))) - 1)
    return -(-quantity // unit) * unit


def option_for(budget: Budget, limit: int) -> str:
    """The option that gives a budget another limit."""
    is_money = budget.unit is Unit.USD
    value = decimal_usd(limit) if is_money else str(limit)
    if budget.scope is Scope.OVERALL or budget.scope in WINDOW_SCOPES:
        return f"--{budget.scope}-{'cost' if is_money else 'token'}-budget {value}"
    return f"--command-{'cost-' if is_money else ''}budget {shlex.quote(f'{budget.key}={value}')}"
