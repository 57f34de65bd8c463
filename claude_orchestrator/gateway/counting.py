"""Counts one answer of the API as it passes, and charges the attempt that asked for it."""

from __future__ import annotations

import aiohttp
from aiohttp import hdrs

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.gateway.admission import Ticket
from claude_orchestrator.gateway.client import Client
from claude_orchestrator.gateway.sender import Sender
from claude_orchestrator.gateway.usage_reader import answer_meter
from token_budget.models import Usage

SESSION = "x-claude-code-session-id"  # of the claude that asks, which a tool of the instance may have started


class AnswerCount:
    """The count of one answer; `number` is no other answer's. `is_exact`: its usage is all that is billed."""

    def __init__(
        self, client: Client, ticket: Ticket, answer: aiohttp.ClientResponse, number: int, *, is_exact: bool = True
    ) -> None:
        self._client = client
        self._ticket = ticket
        self._number = number
        self._is_exact = is_exact
        self._id = self._name = ""
        self._session_id = answer.request_info.headers.get(SESSION)
        self._sender = Sender.of(answer.request_info.headers)
        kind = answer.headers.get(hdrs.CONTENT_TYPE, "").lower()
        self.is_document = "event-stream" not in kind
        self._meter = answer_meter(answer.headers.get(hdrs.CONTENT_ENCODING, "").strip().lower())

    def feed(self, chunk: bytes) -> None:
        """The next bytes have come."""
        self._charge(self._meter.feed(chunk))

    def close(self, *, whole: bool) -> ApiUsage | None:
        """The answer has ended, `whole` or not.

        An answer that does not state its usage counts with all that was held for it: the API billed something.
        """
        usage, ticket, name = self._meter.close(), self._ticket, f"unknown-{self._number}"
        most = held_usage(ticket)
        if usage is None:
            unknown = ApiUsage(name, most, whole, cut=not whole, exact=False, model=ticket.model)
            self._client.attempt.used(unknown._replace(**self._sender._asdict()), ticket.hold)
            return None
        usage = usage._replace(id=usage.id or name)
        if not usage.told and usage.usage.total_tokens < most.total_tokens:
            usage = usage._replace(usage=most | usage.usage)
        self._charge(usage)
        return usage

    def _charge(self, usage: ApiUsage | None) -> None:
        if usage is None or not usage.id:
            return
        if usage.id != self._id:
            self._id = usage.id
            self._name = self._client.name_of(usage.id, self._number)
        exact = usage.exact and self._is_exact
        named = usage._replace(id=self._name, exact=exact, session_id=self._session_id, **self._sender._asdict())
        self._client.attempt.used(named, self._ticket.hold)


def held_usage(ticket: Ticket) -> Usage:
    """The most that the API can bill for a request; nothing where no budget holds it."""
    return Usage(ticket.input_tokens, ticket.output_tokens) if ticket.hold is not None else Usage()
