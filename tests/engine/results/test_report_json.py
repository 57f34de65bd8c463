"""Budgets in money in the JSON report."""

from __future__ import annotations

from claude_orchestrator.engine.results.report_json import json_report
from tests.ui.test_report import NOW, a_run
from token_budget.models import Scope, Unit


def test_a_budget_in_money_is_given_in_dollars_and_in_nano_dollars() -> None:
    view = a_run("one")
    view.manager.set_budget(Scope.OVERALL, 2_500_000_000, unit=Unit.USD)
    (cost,) = json_report(view, NOW, 0)["budgets"]["costs"]
    assert (cost["scope"], cost["key"], cost["limit_usd"], cost["used_usd"]) == ("overall", None, "2.5", "0")
    assert (cost["limit_nano_usd"], cost["percentage"]) == (2_500_000_000, 0.0)
