"""A run's budgets in the ledger: what is written is read, and so are the labels of earlier versions."""

from __future__ import annotations

import pytest

from token_budget.ledger.run_budgets import RunBudgets, read_budgets, write_budgets
from token_budget.models import Budget, Scope, Unit, Weights

Shown = tuple[Scope, str, Unit, int]


def shown(found: RunBudgets) -> list[Shown]:
    return [(one.scope, one.key, one.unit, one.limit) for one in found.budgets]


def test_what_is_written_is_read_whatever_the_names_are() -> None:
    budgets = [
        Budget(5, scope=Scope.OVERALL),
        Budget(6, scope=Scope.WEEKLY, unit=Unit.USD),
        Budget(7, scope=Scope.COMMAND, key="/x command"),
        Budget(8, scope=Scope.INSTANCE, key="a cost"),
        Budget(9, scope=Scope.INSTANCE, key="a", unit=Unit.USD),
    ]
    weights = Weights.parse("output=5")
    found = read_budgets(write_budgets(budgets, weights))
    assert found.weights == weights
    assert shown(found) == [(one.scope, one.key, one.unit, one.limit) for one in budgets]


def test_the_labels_of_earlier_versions_are_read() -> None:
    text = """{"overall": 1, "daily cost": 2, "/test command": 3, "/test command cost": 4, "instance a": 5,
        "instance b cost": 6, "instance a cost": 7, "strange": 8, "monthly": "many", "token weights": "output=5"}"""
    found = read_budgets(text, {"a", "b cost"})
    assert found.weights == Weights.parse("output=5") and shown(found) == [
        (Scope.OVERALL, "", Unit.TOKENS, 1),
        (Scope.DAILY, "", Unit.USD, 2),
        (Scope.COMMAND, "/test", Unit.TOKENS, 3),
        (Scope.COMMAND, "/test", Unit.USD, 4),
        (Scope.INSTANCE, "a", Unit.TOKENS, 5),
        (Scope.INSTANCE, "b cost", Unit.TOKENS, 6),
        (Scope.INSTANCE, "a", Unit.USD, 7),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "5",
        "{}",
        '{"budgets": [5, {"scope": "galaxy", "limit": 5, "unit": "tokens"}, {"scope": "overall", "limit": true}]}',
        '{"overall": 0, "daily": -5, "weekly": true, "token weights": "heavy"}',
    ],
)
def test_what_is_malformed_is_left_out(text: str) -> None:
    assert read_budgets(text) == RunBudgets()
