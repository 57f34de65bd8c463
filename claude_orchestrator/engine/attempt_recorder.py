"""Applies what an instance prints to its attempt: charges its budgets, and publishes what has changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from claude_orchestrator.claude.events import Event, Result
from claude_orchestrator.claude.stream import parse
from claude_orchestrator.engine.hidden_use import HiddenUse
from claude_orchestrator.engine.hold_policy import HoldPolicy
from claude_orchestrator.engine.run_context import RunContext
from claude_orchestrator.engine.run_events import Answered, Crossed, Foreseen, SessionNamed, TurnEnded, UsageRecorded
from claude_orchestrator.engine.state import InstanceStatus
from token_budget.models import Amount, Budget, Hold

if TYPE_CHECKING:
    from claude_orchestrator.engine.in_flight import SentRequest

NOTHING = Amount()


class AttemptRecorder:
    """Records one attempt. `hold` is what its launch reserved, and `stops` are the budgets that stop it."""

    def __init__(
        self,
        context: RunContext,
        status: InstanceStatus,
        hold: Hold,
        holds: HoldPolicy,
        hidden: HiddenUse,
        stops: tuple[Budget, ...],
    ) -> None:
        self._context = context
        self._status = status
        self._hold = hold
        self._holds = holds
        self._hidden = hidden
        self._stops = stops
        self._bus = context.bus
        self._services = context.services

    def take(self, lines: bytes) -> Iterator[tuple[Event, Amount]]:
        """Take whole lines into account; yields each event, with what it has charged."""
        for event in parse(lines):
            yield event, self._apply(event)

    def _apply(self, event: Event) -> Amount:
        status, attempt = self._status, self._status.attempt
        metered, session = status.tally.metered, (status.session_id, attempt.folder)
        turns = attempt.turns_completed if isinstance(event, Result) else 0
        lost = attempt.lost_results
        status.apply(event)
        if metered and isinstance(event, Result):
            attempt.costs.settle_sources(self._services.price)
        charged = self.record(self._hold)
        if metered and not status.tally.metered:
            self._bus.warn(
                f"{status.name} bypasses the API meter, perhaps by an address in its settings.json: its stream is "
                "counted instead, without a hard cap"
            )
        if session != (status.session_id, attempt.folder):
            self._bus.publish(SessionNamed(status.name, status.session_id, attempt.folder))
        if isinstance(event, Result):
            self._publish_turn(event, turns)
            self._read_notes(event, attempt.lost_results - lost)
        return charged

    def foresee(self) -> None:
        """Report a limit that the hidden responses in progress will pass, or that is nearer than the margin."""
        if self._hidden.watches and not self._status.tally.metered:
            found = self._hidden.foreseen(self._stops)
            if found is not None:
                self._bus.publish(Foreseen(*found))

    def finish(self) -> None:
        """The process has ended: charge the last counts."""
        costs, price = self._status.attempt.costs, self._services.price
        if price is not None:
            costs.price(price, None)
        costs.settle_sources(price)
        self.record(self._hold)

    def record(self, hold: Hold | None, subagent: Budget | None = None, sent: SentRequest | None = None) -> Amount:
        """Charge the budgets what was counted since the last call, then report the limits that this passed.

        `subagent` is the budget of the subagent that has used it, `sent` the API request, as far as they are known.
        """
        status = self._status
        delta = status.attempt.costs.take_delta(self._context.settings.token_weights)
        if delta is None:
            return NOTHING
        crossed = self._context.manager.record(status.spec.base_command, delta.amount, status.name, hold, subagent)
        self._bus.publish(UsageRecorded(status, delta, sent))
        for budget in crossed:
            self._bus.publish(Crossed(budget))
        if hold is not None:
            self._holds.grow(status, hold)
        return delta.amount

    def _publish_turn(self, result: Result, turns_before: int) -> None:
        """Publish the answer of a turn, and that the turn has ended."""
        name, attempt = self._status.name, self._status.attempt
        if attempt.is_answer(result):
            of = len(self._status.planned.turns)
            turn = min(attempt.turn_number, of)  # those that answer a check replace the last one
            self._bus.publish(Answered(name, turn, of, result.answer, result.structured_output))
        if attempt.turns_completed != turns_before:
            self._bus.publish(TurnEnded(name, attempt.turns_completed))

    def _read_notes(self, result: Result, lost: int) -> None:
        """Report what a result says beside its answer."""
        if lost:
            which = "a result" if lost == 1 else f"{lost} results"
            self._bus.warn(f"{self._status.name}: claude has written {which} that did not arrive: an answer is missing")
        if result.signed_in_until is not None:
            self._services.signed_in_until(result.signed_in_until)
