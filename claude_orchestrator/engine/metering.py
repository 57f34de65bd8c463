"""Connects an attempt to the API meter, which counts its requests or refuses them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.config.subagent_limits import SubagentLimits, limit_for, needs_type
from claude_orchestrator.engine.in_flight import SentRequest
from claude_orchestrator.engine.refused_request import RefusedRequest
from claude_orchestrator.engine.run_context import RunContext
from claude_orchestrator.engine.run_events import Changed, Recounted, RequestSent, RequestSettled, RequestTimed
from claude_orchestrator.engine.state import InstanceStatus
from token_budget.models import NO_USAGE, Action, Budget, Hold, Scope
from token_budget.portions import CACHE_KEEPING

END_S = 5.0  # for a call that keeps the prompt cache
ASK_TYPE_S = 0.02
ASK_TYPE_TIMES = 50  # that is a second; the stream names a subagent's type when it sends its first request

if TYPE_CHECKING:
    from claude_orchestrator.engine.ports import ApiMeter, MeterPlace
    from claude_orchestrator.gateway.attempt import RequestTiming
    from claude_orchestrator.gateway.refusals import BudgetRefusal
    from claude_orchestrator.gateway.sender import Sender
    from claude_orchestrator.gateway.unanswered import Most


class Metering:
    """A MeteredAttempt. `record` charges what was counted; `refusals` is notified of requests that the instance's
    budgets refuse."""

    def __init__(
        self,
        context: RunContext,
        meter: ApiMeter,
        status: InstanceStatus,
        launch_hold: Hold,
        record: Callable[[Hold | None, Budget | None, SentRequest | None], object],
        refusals: RefusedRequest,
    ) -> None:
        self.budgets = context.budgets_of(status.spec)
        self.environ: Mapping[str, str] = dict(status.spec.env)
        self.price = context.services.price
        self._context = context
        self._meter = meter
        self._status = status
        self._launch_hold = launch_hold
        self._record = record
        self._refusals = refusals
        self._subagent_budgets: dict[str, Budget] = {}
        self._refused_subagents: set[str] = set()
        self.place: MeterPlace = meter.open(self, status.name)
        self._sent: dict[Hold, tuple[SentRequest, Most]] = {}
        self._numbers = itertools.count(1)
        self._attempt = status.attempt
        self._calls: set[KeepingCall] = set()
        status.attempt.meter()

    @property
    def counts(self) -> bool:
        """Whether more use can be counted for the attempt: it is the instance's last one, and metered."""
        attempt = self._status.attempt
        return attempt is self._attempt and attempt.tally.metered

    @property
    def model(self) -> str:
        """The model that has answered; empty before it has."""
        return next(iter(self._attempt.tally.models), "")

    @property
    def waits(self) -> bool:
        """Whether a request of the instance waits for a budget."""
        return self.place.waiting > 0

    def through(self, spec: LaunchSpec) -> LaunchSpec:
        """The same instance, with the meter as its API address."""
        return spec._replace(env=(*spec.env, *self.place.env))

    async def close(self) -> None:
        """The attempt has ended. A call that repeats a request of its ends before."""
        for call in tuple(self._calls):
            await call.end()
        self._context.manager.release(self._launch_hold)
        await self._meter.close(self.place)

    # -- MeteredAttempt --

    async def budgets_of(self, sender: Sender) -> tuple[Budget, ...]:
        """The instance's budgets, and the subagent's own. That needs the subagent's type, which the stream names a
        moment later."""
        limits = self._status.spec.subagent_limits
        if not limits or not sender.agent:
            return self.budgets
        own = await self._subagent_budget(limits, sender)
        return self.budgets if own is None else (*self.budgets, own)

    async def _subagent_budget(self, limits: SubagentLimits, sender: Sender) -> Budget | None:
        known = self._subagent_budgets.get(sender.agent)
        if known is not None:
            return known
        attribution = self._status.tally.attribution
        if sender.parent_agent:
            attribution.meet(sender.parent_agent)
        attribution.meet(sender.agent, sender.parent_agent)
        if needs_type(limits):
            for _ in range(ASK_TYPE_TIMES):
                if attribution.knows_type(sender.agent):
                    break
                await asyncio.sleep(ASK_TYPE_S)
        subagent = attribution.subagent(sender.agent)
        limit = limit_for(limits, subagent)
        if limit is None:
            return None
        key = f"{subagent.type or 'of no type'} {subagent.id} of {self._status.name}"
        budget = self._subagent_budgets[sender.agent] = self._context.manager.subagent_budget(key, limit)
        return budget

    def requested(self) -> None:
        """Release the hold of the launch: from the first request on, each request has its own hold."""
        if self._context.services.starts is not None:
            self._context.services.starts.ended(self._status.name)
        if self._launch_hold.remaining:
            self._context.manager.release(self._launch_hold)
            self._meter.recheck()

    def used(self, usage: ApiUsage, hold: Hold | None) -> None:
        """Count and charge what a response has used."""
        usage = usage._replace(source=self._source_of(usage))
        self._status.apply(usage)
        if self.price is not None:
            self._status.attempt.costs.price(self.price, usage)
        sent, most = self._sent.get(hold, (None, None)) if hold is not None else (None, None)
        if sent is not None and most is not None:
            sent.rest = most.rest(usage)
        self._record(hold, self._subagent_budgets.get(usage.agent), sent)
        self._context.bus.publish(Changed())

    def _source_of(self, usage: ApiUsage) -> str:
        return usage.agent or self._status.attempt.source_of(usage.session_id)

    def refused(self, refusal: BudgetRefusal, sender: Sender) -> None:
        """Stop the instance; if a subagent's own budget is spent, only that subagent."""
        if refusal.budget.scope is not Scope.SUBAGENT:
            self._refusals.refused(refusal, sender)
        elif sender.agent not in self._refused_subagents:
            self._refused_subagents.add(sender.agent)
            budget = refusal.budget
            self._context.bus.warn(
                f"{budget.label} budget: used {budget.figures()}, and its next request may need up to "
                f"{refusal.needed:,}: that request is refused, and its parent continues"
            )

    def admitted(self, sender: Sender) -> None:
        """A request of this sender is sent: if one was refused before, claude has asked for less."""
        self._refusals.admitted(sender)

    async def reserve(self, hold: Hold, most: Most) -> bool:
        """Reserve a request's hold on the shared limits, and record it: a crash must not forget what was sent."""
        decision = await self._context.services.shared.admit(self._status.name, hold, sent=True)
        if decision.action not in (Action.ALLOW, Action.WARN):
            return False
        sent = SentRequest(next(self._numbers), hold, most.usage.usage, most.usage.model)
        self._sent[hold] = sent, most
        self._context.bus.publish(RequestSent(self._status, sent))
        return True

    def settled(self, hold: Hold) -> None:
        """Give a request's hold back to the shared limits."""
        self._context.services.shared.released(hold)
        sent, _ = self._sent.pop(hold, (None, None))
        if sent is not None:
            self._context.bus.publish(RequestSettled(self._status, sent))

    def timed(self, model: str, timing: RequestTiming) -> None:
        """Publish how long a request took."""
        self._context.bus.publish(RequestTimed(self._status.name, model, *timing))


class KeepingCall(Metering):
    """A call that keeps the prompt cache, charged to the attempt whose request it repeats, which may have ended."""

    def __init__(self, of: Metering) -> None:
        super().__init__(of._context, of._meter, of._status, of._launch_hold, of._record, of._refusals)
        self._numbers = of._numbers
        self._of = of
        self._over = asyncio.Event()
        of._calls.add(self)
        self.usage = NO_USAGE
        self.refusal: BudgetRefusal | None = None

    async def end(self) -> None:
        """The attempt ends: so does the call, within a moment if it was sent, and else at once."""
        if not self.waits:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), END_S)
        await self._meter.close(self.place)

    async def close(self) -> None:
        """The call has ended, and so has its place at the meter."""
        await self._meter.close(self.place)
        self._of._calls.discard(self)
        self._over.set()
        if self._status.ended and self.counts:  # its end is in the journal, with less
            totals = self._attempt.totals
            self._context.bus.publish(Recounted(self._status.name, self._status.attempts, totals))

    async def budgets_of(self, sender: Sender) -> tuple[Budget, ...]:
        """The instance's budgets."""
        return self.budgets

    def requested(self) -> None:
        """The attempt keeps what it holds."""

    def used(self, usage: ApiUsage, hold: Hold | None) -> None:
        """Count and charge what the call has used."""
        self.usage = usage.usage
        super().used(usage._replace(agent="", parent_agent="", session_id=None), hold)

    def _source_of(self, usage: ApiUsage) -> str:
        return CACHE_KEEPING

    def refused(self, refusal: BudgetRefusal, sender: Sender) -> None:
        """Remember it: no instance needs the call."""
        self.refusal = refusal

    def admitted(self, sender: Sender) -> None:
        """It says nothing of the attempt's own requests."""

    def timed(self, model: str, timing: RequestTiming) -> None:
        """Only the requests of instances are timed."""
