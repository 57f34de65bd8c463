"""Holds of a TokenBudgetManager: how they shrink, grow, and are taken over by what is used."""

from __future__ import annotations

import pytest

from token_budget import TokenBudgetManager
from token_budget.models import Amount, Budget, Scope, Unit, Weights


def test_a_hold_shrinks_and_grows_within_what_is_free() -> None:
    manager = TokenBudgetManager(1_000)
    manager.set_budget(Scope.OVERALL, 10**9, unit=Unit.USD)
    hold = manager.hold(manager.budgets, Amount(600, 5))
    assert manager.shrink(hold, 400) == 200 and manager.shrink(hold, 400) == 0
    assert hold.remaining == Amount(400, 5)
    assert manager.grow(hold, 100) == 100
    assert manager.grow(hold, 10_000) == 500 and manager.grow(hold, 1) == 0
    assert [budget.held for budget in manager.budgets] == [1_000, 5]
    manager.release(hold)
    manager.release(hold)
    assert [budget.held for budget in manager.budgets] == [0, 0]


def test_a_hold_without_token_budgets_does_not_grow() -> None:
    manager = TokenBudgetManager()
    assert manager.grow(manager.hold((), Amount(5)), 100) == 0


def test_what_others_use_of_a_window_is_taken_over_and_its_crossing_reported_once() -> None:
    manager = TokenBudgetManager()
    budget = manager.set_budget(Scope.DAILY, 1_000)
    assert not manager.update_shared(budget, 900, 300)
    assert (budget.used, budget.held_elsewhere, budget.free) == (900, 300, -200)
    assert manager.update_shared(budget, 1_001, 0)
    assert not manager.update_shared(budget, 1_100, 0)


def test_a_budget_shows_its_figures() -> None:
    assert repr(Budget(5, key="/a", used=3)) == "Budget(/a command: used=3 held=0 limit=5)"
    assert Budget(0).percentage == 0.0
    assert Amount(5, 7).at_most(Amount(9, 2)) == Amount(5, 2) and not Amount()


@pytest.mark.parametrize("text", ["input=1001", "input=1.1234567", "input=x", "input", "speed=1", "input=-1"])
def test_weights_that_make_no_sense(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected flat|a weight is"):
        Weights.parse(text)


def test_all_weights_at_zero_make_no_sense() -> None:
    with pytest.raises(ValueError, match="at least one weight"):
        Weights.parse("input=0,output=0,cache_write=0,cache_read=0")
