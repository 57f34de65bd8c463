"""Who decides whether a request may go: the budgets of this process, or those of the driver of a cluster."""

from __future__ import annotations

import asyncio
from typing import Protocol

from claude_orchestrator.gateway.admission import Admission, Ticket, Verdict
from claude_orchestrator.gateway.client import Client
from claude_orchestrator.gateway.refusals import BudgetRefusal
from claude_orchestrator.gateway.sender import Sender
from claude_orchestrator.gateway.unanswered import most_of

ASK_AGAIN_S = 0.2


class Decider(Protocol):
    """Decides on requests. A ticket that may go has a hold, unless no budget limits it."""

    async def has_room(self, client: Client, ticket: Ticket, sender: Sender) -> bool:
        """Whether the request could go now, with the bound that it has. It may get its hold here already."""

    async def admit(self, client: Client, ticket: Ticket, sender: Sender) -> str | None:
        """Wait until the request may go; returns why it may not, if its budget is spent."""

    def settle(self, client: Client, ticket: Ticket) -> None:
        """The request has ended, or was never sent."""


class LocalDecider:
    """Decides by the budgets of this process."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    async def has_room(self, client: Client, ticket: Ticket, sender: Sender) -> bool:
        """Whether the request could go now."""
        return self._admission.has_room(ticket)

    async def admit(self, client: Client, ticket: Ticket, sender: Sender) -> str | None:
        """Wait until the request may go. A refusal is reported to the attempt, too."""
        while await self._decide(client, ticket) is Verdict.GO:
            if ticket.hold is None or await self._reserve(client, ticket):
                client.attempt.admitted(sender)
                return None
            self.settle(client, ticket)  # other runs were first: the budgets know by now what they hold
            await asyncio.sleep(ASK_AGAIN_S)
        assert ticket.spent is not None
        refused = BudgetRefusal(ticket.spent, self._admission.needed(ticket, ticket.spent))
        client.attempt.refused(refused, sender)
        return refused.reason

    async def _reserve(self, client: Client, ticket: Ticket) -> bool:
        assert ticket.hold is not None
        return await client.attempt.reserve(ticket.hold, most_of(ticket, self._admission.weights_of(ticket)))

    async def _decide(self, client: Client, ticket: Ticket) -> Verdict:
        answered: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        ticket.answer = lambda verdict: None if answered.done() else answered.set_result(verdict)
        verdict = self._admission.ask(ticket)
        if verdict is Verdict.WAIT:
            client.waiting += 1
            try:
                verdict = await answered
            except asyncio.CancelledError:
                self._admission.leave(ticket)
                raise
            finally:
                client.waiting -= 1
        return verdict

    def settle(self, client: Client, ticket: Ticket) -> None:
        """Give the request's hold back."""
        hold = ticket.hold
        self._admission.settle(ticket)
        if hold is not None:
            client.attempt.settled(hold)
