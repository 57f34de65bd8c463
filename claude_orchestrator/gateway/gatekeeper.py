"""Lets a request to the API go when the budgets can pay for the most that it can cost."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, replace

import aiohttp
from aiohttp import hdrs, web

from claude_orchestrator.gateway.admission import LEAST_THINKING_TOKENS, Ticket
from claude_orchestrator.gateway.bounds import (
    InputBound,
    adds_up,
    by_server_tools,
    dearest_terms,
    is_bounded,
)
from claude_orchestrator.gateway.deciding import Decider
from claude_orchestrator.gateway.forwarding import (
    Exchange,
    Forwarder,
    error_response,
    forwarded_headers,
    refusal,
)
from claude_orchestrator.gateway.requests import (
    COUNTED_KEYS,
    NO_INPUT_KEYS,
    RequestedOutput,
    Unbounded,
    count_request,
    lowered,
    read_request,
)
from claude_orchestrator.gateway.sender import Sender
from claude_orchestrator.gateway.unanswered import most_of
from claude_orchestrator.gateway.upstream import NotSent, UpstreamClient
from token_budget.model_weights import TokenWeights, weights_for
from token_budget.models import Amount, Hold

COUNT_TIMEOUT_S = 10.0
MAY_PASS = (408, 409, 425, 429)  # statuses of 400 to 499 after which asking again may help
FIELD_TOKENS = 700  # what the API may write of its own for a field such as a schema
NO_COUNT = "the API does not count this request's documents now, and nothing else bounds them"
NEVER_COUNTS = (
    "this API has no token counting for the request (status {}), and nothing else bounds its documents: "
    "send them as text, or run in warn mode"
)


@dataclass(frozen=True, slots=True)
class InputCount:
    """The API's count of a request's input; without one, the status that says that none will ever come."""

    tokens: int | None = None
    final_status: int | None = None


class Gatekeeper:
    """Bounds requests, holds their bounds on the budgets, and sends them."""

    def __init__(self, upstream: UpstreamClient, forwarder: Forwarder, decider: Decider, weights: TokenWeights) -> None:
        self._upstream = upstream
        self._forwarder = forwarder
        self._decider = decider
        self._weights = weights

    async def send(self, exchange: Exchange) -> web.StreamResponse:
        """Send a request as soon as its bound fits the budgets; refuse what never will."""
        client, request, body = exchange.client, exchange.request, exchange.body
        try:
            asked = read_request(b"" if hdrs.CONTENT_ENCODING in request.headers else body, exchange.path)
        except Unbounded as error:
            return refusal(str(error))
        sender = Sender.of(request.headers)
        budgets = await client.attempt.budgets_of(sender)
        ticket = Ticket(budgets, 0, asked.max_tokens, wanted_tokens=client.wanted_tokens.get(sender.agent, 0))
        ticket.least_tokens = min(ticket.least_tokens, asked.max_tokens)
        ticket.model, ticket.terms = asked.model, dearest_terms(asked.data)
        if asked.thinking_tokens is not None:
            ticket.least_tokens = min(ticket.max_tokens, 2 * LEAST_THINKING_TOKENS)
        known = client.bound(asked, request.headers.getall("anthropic-beta", []))
        exchange = replace(exchange, ticket=ticket, known=known)
        try:
            count = await self._bound(exchange, ticket, asked, known, sender)
            if count is not None and count.tokens is None:
                if count.final_status is not None:
                    return refusal(NEVER_COUNTS.format(count.final_status))
                return error_response(529, "overloaded_error", NO_COUNT)
            why_not = await self._decider.admit(client, ticket, sender)
            if why_not is not None:
                return refusal(why_not)
            body = lowered(body, asked, ticket.output_tokens)
            del asked  # it is larger than the body, and the answer may take minutes
            return await self._forwarder.forward(replace(exchange, body=body))
        finally:
            self._decider.settle(client, ticket)

    async def watch(self, exchange: Exchange) -> web.StreamResponse:
        """Send a request that no budget can refuse; what it can cost is known in case it gets no answer."""
        client, ticket = exchange.client, exchange.ticket
        assert ticket is not None
        with contextlib.suppress(Unbounded):
            body = b"" if hdrs.CONTENT_ENCODING in exchange.request.headers else exchange.body
            asked = read_request(body, exchange.path)
            ticket.growth_tokens = by_server_tools(asked.data)
            ticket.input_tokens = InputBound().of(exchange.body) + ticket.growth_tokens
            ticket.output_tokens = asked.max_tokens
            ticket.model, ticket.terms = asked.model, dearest_terms(asked.data)
            ticket.cost = client.cost_of(ticket)
            ticket.hold = Hold((), Amount())
        try:
            if ticket.hold is not None:
                most = most_of(ticket, weights_for(self._weights, ticket.model))
                await client.attempt.reserve(ticket.hold, most)
            return await self._forwarder.forward(exchange)
        finally:
            if ticket.hold is not None:
                client.attempt.settled(ticket.hold)

    async def _bound(
        self, exchange: Exchange, ticket: Ticket, asked: RequestedOutput, known: InputBound, sender: Sender
    ) -> InputCount | None:
        """Bound the request's input. Returns the API's count where only that bounds it."""
        client, body = exchange.client, exchange.body
        bounded, more = is_bounded(body), by_server_tools(asked.data)
        ticket.growth_tokens = more
        ticket.input_tokens = (known if adds_up(body) else InputBound()).of(body) + more
        ticket.cost = client.cost_of(ticket)
        if bounded and await self._decider.has_room(client, ticket, sender):
            return None
        count = await self._count(exchange, asked)
        if count.tokens is not None:
            counted = count.tokens + more
            ticket.input_tokens = min(counted, ticket.input_tokens) if bounded else counted
            ticket.cost = client.cost_of(ticket)
        return None if bounded else count

    async def _count(self, exchange: Exchange, asked: RequestedOutput) -> InputCount:
        """The request's input tokens at most, by the API's own count, which costs nothing."""
        path, body = count_request(exchange.path, asked)
        headers = forwarded_headers(exchange.request.headers)
        headers[hdrs.ACCEPT_ENCODING] = "identity"
        try:
            async with asyncio.timeout(COUNT_TIMEOUT_S):
                sending = self._upstream.send(exchange.client.address, "POST", path, headers, body)
                async with sending as answer:
                    if answer.status != 200:
                        is_final = answer.status in (501, 505) or 300 <= answer.status < 500
                        is_final = is_final and answer.status not in MAY_PASS
                        return InputCount(final_status=answer.status if is_final else None)
                    found = json.loads(await answer.content.read(1024 * 1024))
        except NotSent:
            return InputCount(final_status=308)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, RecursionError):
            return InputCount()
        tokens = found.get("input_tokens", found.get("inputTokens")) if isinstance(found, dict) else None
        if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
            return InputCount()
        # its documentation: the count may differ by a small amount
        return InputCount(tokens + tokens // 100 + 16 + _uncounted(asked))


def _uncounted(asked: RequestedOutput) -> int:
    """The most tokens of the fields that the API's count leaves out: one for each byte."""
    rest = {key: value for key, value in asked.data.items() if key not in (*COUNTED_KEYS, *NO_INPUT_KEYS) and value}
    effort = rest.get("output_config")
    if isinstance(effort, dict) and set(effort) <= {"effort"}:
        del rest["output_config"]  # Claude Code always sends it
    return sum(FIELD_TOKENS + len(json.dumps(value, ensure_ascii=False).encode()) for value in rest.values())
