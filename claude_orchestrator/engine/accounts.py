"""The limits that runs share: their own of a day, a week and a month, and those of an account. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, tzinfo
from types import MappingProxyType
from typing import Any

from claude_orchestrator.config.settings import Settings
from claude_orchestrator.errors import UserError
from token_budget.budget_manager import TokenBudgetManager
from token_budget.ledger.records import AccountRecord, Limit
from token_budget.models import Budget, Scope, Unit
from token_budget.named_tuples import NamedTuple
from token_budget.windows import Window, name_of, start_of, to_ms

SCOPES = {Window.DAILY: Scope.DAILY, Window.WEEKLY: Scope.WEEKLY, Window.MONTHLY: Scope.MONTHLY}
WINDOWS = {scope: window for window, scope in SCOPES.items()}
NOBODY = AccountRecord("")


class Charged(NamedTuple):
    """The account that a run charges, and what the run itself limits: its use of each window, by scope and unit."""

    account: AccountRecord = NOBODY
    own: Mapping[tuple[Scope, Unit], int] = MappingProxyType({})


def charge(settings: Settings, account: AccountRecord) -> tuple[Settings, Charged]:
    """The settings with the limits of an account, which block. Of two limits the lower one counts.

    Raises UserError where the run asks for warn mode, or this machine does not know the account's time zone.
    """
    try:
        _zone_of(account)
    except ValueError as error:
        raise UserError(f"--account: {account.account}: {error}") from None
    origin = f"account {account.account}"
    own = own_limits(settings)
    values: dict[str, Any] = {}
    for window, unit, limit in account.limits:
        before = own.get((SCOPES[window], unit))
        if before is None or limit < before:
            values[f"{window}_{unit.word}_budget"] = limit
    if settings.budget_enforcement_mode != "block":
        if settings.origins.get("budget_enforcement_mode", "default") != "default":
            raise UserError(f"--account: the limits of {account.account} are enforced, so warn mode is not possible")
        values["budget_enforcement_mode"] = "block"
    origins = {**settings.origins, **dict.fromkeys(values, origin)}
    return settings._replace(origins=origins, **values), Charged(account, own)


def _zone_of(account: AccountRecord) -> tzinfo:
    """The time zone of an account. Raises ValueError if this machine does not know it."""
    from token_budget.ledger.accounts import zone_named  # a run without an account needs none

    return zone_named(account.zone)


def own_limits(settings: Settings) -> dict[tuple[Scope, Unit], int]:
    """The window limits in the settings, by scope and unit."""
    found = {(scope, unit): getattr(settings, f"{scope}_{unit.word}_budget") for scope in WINDOWS for unit in Unit}
    return {key: limit for key, limit in found.items() if limit is not None}


class SharedWindows:
    """The budgets of days, weeks and months. All runs that use the ledger share them, or all that charge one
    account."""

    def __init__(self, manager: TokenBudgetManager, charged: Charged) -> None:
        self._manager = manager
        self._own = charged.own
        self._known = charged.account
        self._zone = _zone_of(charged.account) if charged.account.account else None  # that of this machine

    @property
    def account(self) -> str:
        """The account's name; empty without one."""
        return self._known.account

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """The budgets that are shared."""
        return self._manager.windows

    def limits(self, now_ms: int) -> list[Limit]:
        """What the ledger has to check now, a limit for each budget. No limit is above that of the account."""
        now, most = self._local(now_ms), self._most()
        return [
            Limit(
                to_ms(start_of(WINDOWS[budget.scope], now)),
                min(budget.limit, most.get((budget.scope, budget.unit), budget.limit)),
                budget.unit,
            )
            for budget in self.budgets
        ]

    def name_of(self, scope: Scope, now_ms: int) -> str:
        """The name of the window around this moment, such as `day 2026-11-24`."""
        return name_of(WINDOWS[scope], self._local(now_ms))

    def take(self, account: AccountRecord) -> list[tuple[Budget, bool]]:
        """Take over the account's limits as they are now. Returns each budget whose limit changed, and whether that
        made it exceeded."""
        is_new, self._known = account.limits != self._known.limits, account._replace(zone=self._known.zone)
        changed = []
        for (scope, unit), limit in self._most().items():
            budget = self._manager.budgets_of(scope, unit).get(self.account)
            if budget is not None and not is_new and budget.limit <= limit:
                continue
            wanted = min(limit, self._own.get((scope, unit), limit))
            was_exceeded = budget is not None and budget.exceeded
            if budget is None or budget.limit != wanted:
                budget = self._manager.set_budget(scope, wanted, self.account, unit)
                changed.append((budget, budget.exceeded and not was_exceeded))
        return changed

    def _most(self) -> dict[tuple[Scope, Unit], int]:
        return {(SCOPES[window], unit): limit for window, unit, limit in self._known.limits}

    def _local(self, now_ms: int) -> datetime:
        return datetime.fromtimestamp(now_ms / 1000, self._zone)
