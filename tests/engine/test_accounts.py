"""The limits of accounts: which limit counts, where a day begins, and what a change during a run does."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.accounts import Charged, SharedWindows, charge, own_limits
from claude_orchestrator.errors import UserError
from token_budget.budget_manager import TokenBudgetManager
from token_budget.ledger.accounts import limit_name, limits_at, zone_named
from token_budget.ledger.records import AccountLimit, AccountRecord, Limit
from token_budget.models import Amount, Scope, Unit
from token_budget.windows import Window, to_ms

DAILY = AccountLimit(Window.DAILY, Unit.TOKENS, 2000)
COST = AccountLimit(Window.MONTHLY, Unit.USD, 50)
TEAM = AccountRecord("team", "Asia/Tokyo", (DAILY, COST))
ASKED = {"budget_enforcement_mode": "option"}


def test_of_two_limits_the_lower_one_counts_and_it_blocks() -> None:
    settings, charged = charge(Settings(daily_token_budget=5000, weekly_token_budget=7), TEAM)
    assert (settings.daily_token_budget, settings.weekly_token_budget, settings.monthly_cost_budget) == (2000, 7, 50)
    assert settings.budget_enforcement_mode == "block" and settings.origins["budget_enforcement_mode"] == "account team"
    assert settings.origins["daily_token_budget"] == "account team"
    assert charged.own == {(Scope.DAILY, Unit.TOKENS): 5000, (Scope.WEEKLY, Unit.TOKENS): 7}
    block = Settings(daily_token_budget=5, budget_enforcement_mode="block", origins=ASKED)
    settings, _ = charge(block, TEAM)
    assert settings.daily_token_budget == 5 and settings.origins["budget_enforcement_mode"] == "option"
    assert own_limits(Settings()) == {}


def test_what_cannot_be_charged() -> None:
    with pytest.raises(UserError, match="limits of team are enforced, so warn mode is not possible"):
        charge(Settings(origins=ASKED), TEAM)
    with pytest.raises(UserError, match="--account: team: time zone 'Mars/Olympus'"):
        charge(Settings(), TEAM._replace(zone="Mars/Olympus"))


def windows(charged: Charged, **limits: int) -> tuple[TokenBudgetManager, SharedWindows]:
    manager = TokenBudgetManager(enforcement_mode="block", account=charged.account.account)
    for scope, limit in limits.items():
        manager.set_budget(Scope(scope), limit, manager.account)
    return manager, SharedWindows(manager, charged)


def test_a_day_begins_in_the_zone_of_the_account() -> None:
    now = datetime(2026, 11, 27, 16, 0, tzinfo=UTC)  # in Tokyo the 28th has begun
    _, shared = windows(Charged(TEAM), daily=2000)
    assert shared.limits(to_ms(now)) == [Limit(to_ms(datetime(2026, 11, 27, 15, tzinfo=UTC)), 2000)]
    assert shared.name_of(Scope.DAILY, to_ms(now)) == "day 2026-11-28"
    assert limits_at(TEAM, to_ms(now))[0] == shared.limits(to_ms(now))[0]
    assert limits_at(TEAM, to_ms(now))[1].since_ms == to_ms(datetime(2026, 10, 31, 15, tzinfo=UTC))
    _, own = windows(Charged(), daily=3)
    here = datetime.fromtimestamp(now.timestamp()).replace(hour=0)
    assert own.limits(to_ms(now)) == [Limit(to_ms(here), 3)] and own.account == ""
    assert zone_named("UTC") is UTC and [limit_name(one) for one in TEAM.limits] == ["daily", "monthly-cost"]


def test_instances_draw_on_the_windows_of_their_account() -> None:
    manager, shared = windows(Charged(TEAM), daily=2000)
    (budget,) = manager.budgets_for("/test", "one")
    assert budget.label == "daily (team)" and shared.budgets == (budget,)
    assert manager.record("/test", Amount(2001)) == (budget,)


def test_a_limit_changes_during_a_run() -> None:
    manager, shared = windows(Charged(TEAM._replace(limits=(DAILY,)), {(Scope.DAILY, Unit.TOKENS): 5000}), daily=2000)
    assert shared.take(TEAM._replace(limits=(DAILY,))) == []
    (daily,) = manager.budgets
    manager.record(None, Amount(600))
    assert shared.take(TEAM._replace(limits=(DAILY._replace(limit=500),))) == [(daily, True)]
    assert daily.limit == 500 and daily.exceeded
    assert shared.take(TEAM._replace(limits=(DAILY._replace(limit=9000),))) == [(daily, False)]
    assert daily.limit == 5000  # the run's own limit
    lower, (cost, is_crossed) = shared.take(TEAM)
    assert lower == (daily, False) and daily.limit == 2000
    assert (cost.label, cost.limit, is_crossed) == ("monthly cost (team)", 50, False)
    assert shared.budgets == (daily, cost)


def test_nobody_raises_a_limit_above_that_of_the_account() -> None:
    manager, shared = windows(Charged(TEAM._replace(limits=(DAILY,))), daily=2000)
    manager.set_budget(Scope.DAILY, 10**9, "team")
    assert shared.limits(0)[0].limit == 2000  # what the ledger checks
    ((budget, _),) = shared.take(TEAM._replace(limits=(DAILY,)))
    assert budget.limit == 2000
    manager.set_budget(Scope.DAILY, 100, "team")
    assert shared.take(TEAM._replace(limits=(DAILY,))) == [] and budget.limit == 100
