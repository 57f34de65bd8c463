"""Connects an attempt to the API meter, which counts its requests or refuses them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.config.plan import LaunchSpec
from claude_orchestrator.engine.ports import ApiMeter, MeterPlace, RunContext
from claude_orchestrator.engine.run_events import Changed
from claude_orchestrator.engine.state import InstanceStatus
from claude_orchestrator.gateway.refusals import Refusal
from token_budget.models import Action, Hold


class Metering:
    """A MeteredAttempt. `record` charges what was counted; `on_refused` stops the instance that a budget refuses."""

    def __init__(
        self,
        context: RunContext,
        meter: ApiMeter,
        status: InstanceStatus,
        launch_hold: Hold,
        record: Callable[[Hold | None], None],
        on_refused: Callable[[Refusal], None],
    ) -> None:
        self.budgets = context.budgets_of(status.spec)
        self.environ: Mapping[str, str] = dict(status.spec.env)
        self.price = context.services.price
        self._context = context
        self._meter = meter
        self._status = status
        self._launch_hold = launch_hold
        self._record = record
        self._on_refused = on_refused
        self._place: MeterPlace = meter.open(self)
        status.attempt.meter()

    @property
    def waits(self) -> bool:
        """Whether a request of the instance waits for a budget."""
        return self._place.waiting > 0

    def through(self, spec: LaunchSpec) -> LaunchSpec:
        """The same instance, with the meter as its API address."""
        return spec._replace(env=(*spec.env, *self._place.env))

    async def close(self) -> None:
        """The attempt has ended."""
        self._context.manager.release(self._launch_hold)
        await self._meter.close(self._place)

    # -- MeteredAttempt --

    def requested(self) -> None:
        """Release the hold of the launch: from the first request on, each request has its own hold."""
        if self._launch_hold.remaining:
            self._context.manager.release(self._launch_hold)
            self._meter.recheck()

    def used(self, usage: ApiUsage, hold: Hold | None) -> None:
        """Count and charge what a response has used."""
        self._status.apply(usage)
        if self.price is not None:
            self._status.attempt.costs.price(self.price, usage)
        self._record(hold)
        self._context.bus.publish(Changed())

    def refused(self, refusal: Refusal) -> None:
        """Stop the instance."""
        self._on_refused(refusal)

    async def reserve(self, hold: Hold) -> bool:
        """Reserve a request's hold on the shared limits."""
        decision = await self._context.services.shared.admit(self._status.name, hold)
        return decision.action in (Action.ALLOW, Action.WARN)

    def settled(self, hold: Hold) -> None:
        """Give a request's hold back to the shared limits."""
        self._context.services.shared.released(hold)
