"""Raises alerts: when a budget reaches a threshold, or a forecast passes its limit."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.accounts import WINDOWS
from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.ledger_sync import LedgerSync
from claude_orchestrator.engine.run_events import AlertRaised, RunEvent
from claude_orchestrator.engine.run_view import RunView
from token_budget.alerts import AlertBook, AlertTargets
from token_budget.models import Amount, Budget

if TYPE_CHECKING:
    from token_budget.usage.delivery import DeliveryThread


class Alerting:
    """Publishes each alert once among all orchestrators."""

    def __init__(
        self,
        view: RunView,
        settings: Settings,
        ledger: LedgerSync,
        bus: Bus,
        *,
        sent: Iterable[str] = (),
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._run_id = view.run_id
        self._weights = settings.token_weights
        self._manager = view.manager
        self._instances = view.instances
        self._ledger = ledger
        self._bus = bus
        self._now = now
        self._new_keys: list[str] = []
        self._book = AlertBook(settings.alert_at, sent, self._new_keys.append)

    async def raise_due(self) -> None:
        """Publish the due alerts that no other process has sent."""
        now = self._now()
        found = self._book.due(self._manager.budgets, self._window_of, self._run_id)
        for budget, expected in self._expected().items() if self._book.thresholds else ():
            overrun = self._book.overrun(budget, budget.used + expected, self._window_of(budget), self._run_id)
            found += [overrun] if overrun is not None else []
        if not self._new_keys:
            return
        keys = list(self._new_keys)
        self._new_keys.clear()
        claimed = await self._ledger.claim_alerts(keys)
        for alert in found:
            if alert.key in claimed:
                payload = alert.payload(now.astimezone().isoformat())
                self._bus.publish(AlertRaised(alert.text, payload, already_reported=alert.used > alert.limit))

    def _window_of(self, budget: Budget) -> str:
        if budget.scope not in WINDOWS:
            return f"run {self._run_id}"
        return self._ledger.windows.name_of(budget.scope, self._ledger.now_ms())

    def _expected(self) -> Counter[Budget]:
        """What the instances that draw on each budget are forecast to use from now on."""
        left: Counter[Budget] = Counter()
        for status in self._instances:
            spec = status.spec
            if status.ended:
                continue
            used = Amount(status.drawn(self._weights), status.nano_usd or 0)
            more = {unit: forecast.more(used.of(unit)) for unit, forecast in spec.forecasts.items() if forecast.known}
            budgets = self._manager.budgets_for(spec.base_command, spec.name)
            left.update({budget: more[budget.unit] for budget in budgets if budget.unit in more})
        return left


class AlertDelivery:
    """An observer that delivers alerts to their sinks. Leaving its context waits briefly for them.

    Deliveries run in a thread. A failure is reported with the next event, or at the end.
    """

    def __init__(self, targets: AlertTargets, bus: Bus) -> None:
        self._failures: deque[str] = deque()
        self._sinks: DeliveryThread | None = None
        if any(targets):
            from token_budget.usage.alert_sinks import DeliveryLimits, sinks_of  # it imports urllib, which takes long
            from token_budget.usage.delivery import DeliveryThread

            self._sinks = DeliveryThread(sinks_of(targets, DeliveryLimits()), self._failures.append)
        self._bus = bus

    def observe(self, event: RunEvent) -> None:
        """Deliver an alert soon."""
        if self._sinks is not None and isinstance(event, AlertRaised):
            self._sinks.put(dict(event.payload))
        self._report_failures()

    def __enter__(self) -> Self:
        if self._sinks is not None:
            self._sinks.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sinks is not None:
            self._sinks.__exit__(kind, error, trace)
        self._report_failures()

    def _report_failures(self) -> None:
        while self._failures:
            self._bus.warn(self._failures.popleft())
