"""Lets a request to the API go when the budgets can pay for the most that it can cost."""

from __future__ import annotations

import asyncio
import json

import aiohttp
from aiohttp import hdrs, web

from claude_orchestrator.gateway.admission import LEAST_THINKING_TOKENS, Admission, Ticket, Verdict
from claude_orchestrator.gateway.bounds import InputBound, by_server_tools, is_bounded
from claude_orchestrator.gateway.client import Client
from claude_orchestrator.gateway.forwarding import (
    AGENT,
    Exchange,
    Forwarder,
    error_response,
    forwarded_headers,
    refusal,
)
from claude_orchestrator.gateway.requests import COUNTED_KEYS, MESSAGES, Asked, lowered, read_request
from claude_orchestrator.gateway.upstream import Upstream
from token_budget.models import Unit

COUNT_TIMEOUT_S = 10.0
ASK_AGAIN_S = 0.2
NO_COUNT = "the API does not count this request's documents now, and nothing else bounds them"
NOT_PLAIN = "a request in block mode is plain JSON with an integer max_tokens"


class Gatekeeper:
    """Bounds requests, holds their bounds on the budgets, and sends them."""

    def __init__(self, upstream: Upstream, forwarder: Forwarder, admission: Admission) -> None:
        self._upstream = upstream
        self._forwarder = forwarder
        self._admission = admission

    async def send(self, client: Client, request: web.BaseRequest, path: str, body: bytes) -> web.StreamResponse:
        """Send a request as soon as its bound fits the budgets; refuse what never will."""
        asked = read_request(body)
        if asked is None or hdrs.CONTENT_ENCODING in request.headers:
            return refusal(NOT_PLAIN)
        agent = request.headers.get(AGENT, "")
        ticket = Ticket(client.attempt.budgets, 0, asked.max_tokens, wanted_tokens=client.wanted_tokens.get(agent, 0))
        ticket.least_tokens = min(ticket.least_tokens, asked.max_tokens)
        if asked.thinking_tokens is not None:
            ticket.least_tokens = min(ticket.max_tokens, 2 * LEAST_THINKING_TOKENS)
        known = client.bound(asked, request.headers.getall("anthropic-beta", []))
        exchange = Exchange(client, request, path, body, ticket, known)
        try:
            if not await self._bound(exchange, ticket, asked, known):
                return error_response(529, "overloaded_error", NO_COUNT)
            if not await self._admit(client, ticket):
                assert ticket.spent is not None
                client.attempt.refused(ticket.spent)
                return refusal(budget_is_spent(ticket))
            body = lowered(body, asked, ticket.output_tokens)
            return await self._forwarder.forward(Exchange(client, request, path, body, ticket, known))
        finally:
            self._settle(client, ticket)

    async def _bound(self, exchange: Exchange, ticket: Ticket, asked: Asked, known: InputBound) -> bool:
        """Bound the request's input; False where nothing bounds it, for the API does not count it."""
        client, body = exchange.client, exchange.body
        bounded, more = is_bounded(body), by_server_tools(asked.data)
        ticket.input_tokens = known.of(body) + more
        ticket.cost = client.cost_of(asked, ticket.input_tokens)
        if bounded and self._admission.has_room(ticket):
            return True
        exact = await self._count(exchange, asked)
        if exact is not None:
            ticket.input_tokens = exact + more if not bounded else min(exact + more, ticket.input_tokens)
            ticket.cost = client.cost_of(asked, ticket.input_tokens)
        return bounded or exact is not None

    async def _admit(self, client: Client, ticket: Ticket) -> bool:
        """Wait until the request may go; False: its budget is spent."""
        while await self._decide(client, ticket) is Verdict.GO:
            if ticket.hold is None or await client.attempt.reserve(ticket.hold):
                return True
            self._settle(client, ticket)  # other runs were first: the budgets know by now what they hold
            await asyncio.sleep(ASK_AGAIN_S)
        return False

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

    def _settle(self, client: Client, ticket: Ticket) -> None:
        hold = ticket.hold
        self._admission.settle(ticket)
        if hold is not None:
            client.attempt.settled(hold)

    async def _count(self, exchange: Exchange, asked: Asked) -> int | None:
        """The request's input tokens by the API's own count, which costs nothing; None where it does not answer."""
        body = {key: asked.data[key] for key in COUNTED_KEYS if key in asked.data}
        path = exchange.path.replace(MESSAGES, MESSAGES + "/count_tokens", 1)
        headers = forwarded_headers(exchange.request.headers)
        headers[hdrs.ACCEPT_ENCODING] = "identity"
        try:
            async with asyncio.timeout(COUNT_TIMEOUT_S):
                sending = self._upstream.send(exchange.client, "POST", path, headers, json.dumps(body).encode())
                async with sending as answer:
                    found = json.loads(await answer.content.read(1024 * 1024)) if answer.status == 200 else {}
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, RecursionError):
            return None
        tokens = found.get("input_tokens") if isinstance(found, dict) else None
        if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
            return None
        return tokens + tokens // 100 + 16  # its documentation: the count may differ by a small amount


def budget_is_spent(ticket: Ticket) -> str:
    """Why a request is refused whose budget is spent."""
    budget = ticket.spent
    assert budget is not None
    needs = f"{ticket.input_tokens:,} for its input and at least {ticket.least_tokens:,} for its answer"
    if ticket.cost is not None and budget.unit is Unit.USD:
        needs = f"{budget.unit.show(ticket.cost.bound(ticket.least_tokens))} (tokens: {needs})"
    return f"{budget.label} budget is spent: used {budget.figures()}; this request needs up to {needs}"
