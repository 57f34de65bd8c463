"""Refusals: the figures, and the option that makes room."""

from __future__ import annotations

import pytest

from claude_orchestrator.gateway.refusals import BudgetRefusal, option_for, round_up
from token_budget.models import Budget, Scope, Unit

NANO = 10**9


def test_the_reason_has_the_figures_and_the_next_step() -> None:
    refusal = BudgetRefusal(Budget(10_000, key="/test"), 20_562)
    assert refusal.reason == (
        "its next request may need up to 20,562 tokens; 10,000 are left of the /test budget (10,000). "
        "To continue: claude-orchestrator --resume last --command-budget /test=30000"
    )


def test_money_is_shown_as_money() -> None:
    budget = Budget(NANO // 2, scope=Scope.OVERALL, unit=Unit.USD, used=NANO // 4)
    assert BudgetRefusal(budget, NANO // 2).reason == (
        "its next request may cost up to $0.50; $0.25 is left of the overall cost budget ($0.50). "
        "To continue: claude-orchestrator --resume last --overall-cost-budget 1"
    )


def test_the_parent_of_a_subagent_reads_the_figures_and_what_to_do_instead() -> None:
    """It is no user: an option, or the word resume, would not help it."""
    reason = BudgetRefusal(Budget(10_000, scope=Scope.SUBAGENT, key="a1", used=8_000), 20_562).reason
    assert reason.startswith(
        "this subagent has used its token budget: 2,000 of 10,000 tokens are left, and its next request may need up "
        "to 20,562. Do not continue it."
    )
    assert "--" not in reason and "resume" not in reason


@pytest.mark.parametrize(
    ("budget", "option"),
    [
        (Budget(1, scope=Scope.OVERALL), "--overall-token-budget 7"),
        (Budget(1, scope=Scope.DAILY), "--daily-token-budget 7"),
        (Budget(1, scope=Scope.INSTANCE, key="a b"), "--command-budget 'a b=7'"),
        (Budget(1, scope=Scope.GROUP, key="fix"), "--command-budget fix=7"),
        (Budget(1, key="/test", unit=Unit.USD), "--command-cost-budget /test=0.000000007"),
    ],
)
def test_each_scope_has_its_option(budget: Budget, option: str) -> None:
    assert option_for(budget, 7) == option


@pytest.mark.parametrize(("quantity", "rounded"), [(1, 1), (9, 9), (10, 10), (11, 20), (25_702, 30_000)])
def test_limits_are_round(quantity: int, rounded: int) -> None:
    assert round_up(quantity) == rounded


def test_the_suggested_limit_has_room_for_more_than_one_request() -> None:
    used_up = Budget(2_000_000, scope=Scope.OVERALL, used=1_990_000)
    assert BudgetRefusal(used_up, 20_000).enough == 3_000_000


def test_a_limit_of_an_account_is_raised_in_the_ledger() -> None:
    tokens, money = (Budget(1000, scope=Scope.DAILY, key="team", unit=unit, used=900) for unit in Unit)
    reason = BudgetRefusal(tokens, 300).reason
    assert " are left of the daily (team) budget (1,000). To continue: token-budget limit set team daily=2000" in reason
    assert reason.endswith(", then claude-orchestrator --resume last")
    assert "token-budget limit set team daily-cost=0.000002, then" in BudgetRefusal(money, 300).reason
