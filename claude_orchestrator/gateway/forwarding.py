"""Passes a request on to the API and its answer back, piece by piece as it comes; a metered answer is counted."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.gateway.accounts import account_of
from claude_orchestrator.gateway.admission import LEAST_OUTPUT_TOKENS, MORE_AFTER_A_CUT, Admission, Ticket
from claude_orchestrator.gateway.attempt import RequestTiming
from claude_orchestrator.gateway.bounds import InputBound
from claude_orchestrator.gateway.client import Client
from claude_orchestrator.gateway.clouds import model_in
from claude_orchestrator.gateway.counting import AnswerCount
from claude_orchestrator.gateway.pacing.gate import Turn
from claude_orchestrator.gateway.requests import model_named
from claude_orchestrator.gateway.sender import Sender
from claude_orchestrator.gateway.sharing.flights import Flight, Flights
from claude_orchestrator.gateway.sharing.kept import kept_request
from claude_orchestrator.gateway.sharing.prefixes import prefixes_of
from claude_orchestrator.gateway.unanswered import ChargeUnanswered, Most, charged_unanswered, most_of
from claude_orchestrator.gateway.upstream import NotSent, UpstreamClient
from claude_orchestrator.gateway.usage_reader import DECODABLE
from token_budget.serving.door import SERVER

# headers that are between two neighbours only, and those that aiohttp sets itself
HOP_BY_HOP = frozenset(
    [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-length",
        "accept-encoding",
        "expect",
    ]
)
ANSWER_HOP_BY_HOP = HOP_BY_HOP - {"content-length"}
TIMEOUTS = (504, 524)  # something on the way gave up waiting: the API may have answered, and billed
NO_RETRY = {"x-should-retry": "false"}


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request of an instance on its way to the API.

    With a `ticket` its answer is metered, and `known` learns from it. `is_exact`: the answer's usage is all that the
    API bills for it. `turn` is its place within the API's rate limits.
    """

    client: Client
    request: web.BaseRequest
    path: str
    body: bytes
    ticket: Ticket | None = None
    known: InputBound | None = None
    is_exact: bool = True
    turn: Turn | None = None


class StopWatch:
    """Times one request, from now on."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._begun_at = clock()
        self._status: int | None = None
        self._first_byte_s: float | None = None

    def answered(self, status: int) -> None:
        """The head of an answer has come."""
        self._status = status

    def came(self) -> None:
        """Some of its body has come."""
        if self._first_byte_s is None:
            self._first_byte_s = self._clock() - self._begun_at

    def ended(self) -> RequestTiming:
        """What was measured until now."""
        return RequestTiming(self._status, self._first_byte_s, self._clock() - self._begun_at)


class Forwarder:
    """Sends exchanges to the API.

    A request whose prefix another one writes to the prompt cache waits with its hold, which is as large as before.
    `keeps`: each client remembers what keeps its first prefix in the prompt cache.
    """

    def __init__(
        self,
        upstream: UpstreamClient,
        admission: Admission,
        flights: Flights,
        unanswered: ChargeUnanswered,
        *,
        keeps: bool,
    ) -> None:
        self._keeps = keeps
        self._upstream = upstream
        self._admission = admission
        self._flights = flights
        self._unanswered = unanswered
        self._numbers = itertools.count(1)  # of answers

    async def forward(self, exchange: Exchange) -> web.StreamResponse:
        """Send the request and give its answer back."""
        if exchange.ticket is None or not self._flights.wait_s:
            return await self._forward(exchange)
        client, sent = exchange.client, exchange.request.headers
        account = f"{client.address.url} {model_in(exchange.path)} {account_of(sent)}"
        prefixes = prefixes_of(exchange.body, account, self._flights.lifetimes)
        flight = await self._flights.enter(prefixes, client)
        try:
            return await self._forward(exchange, flight)
        finally:
            flight.end()

    async def _forward(self, exchange: Exchange, flight: Flight | None = None) -> web.StreamResponse:
        client, request, ticket = exchange.client, exchange.request, exchange.ticket
        headers = forwarded_headers(request.headers)
        accepted = [item.strip() for item in request.headers.get(hdrs.ACCEPT_ENCODING, "").split(",")]
        decodable = [item for item in accepted if item.partition(";")[0] in DECODABLE] if ticket else accepted
        headers[hdrs.ACCEPT_ENCODING] = ", ".join(filter(None, decodable)) or "identity"
        answered = ticket is None
        watch = StopWatch(time.monotonic)
        left = None if exchange.turn is None else exchange.turn.left
        try:
            async with self._upstream.send(
                client.address, request.method, exchange.path, headers, exchange.body, left
            ) as answer:
                answered = ticket is None or answer.status not in TIMEOUTS
                watch.answered(answer.status)
                if exchange.turn is not None:
                    exchange.turn.answered(answer.status, answer.headers)
                return await self._pass_back(exchange, answer, flight, watch)
        except NotSent as error:
            answered = True
            return refusal(str(error))
        except aiohttp.ClientConnectorError as error:
            answered = True  # it was never sent
            return no_answer(error.os_error.strerror or type(error).__name__)
        except aiohttp.ConnectionTimeoutError:
            answered = True
            return no_answer("no connection within a minute")
        except (aiohttp.ClientError, OSError) as error:
            return no_answer((isinstance(error, OSError) and error.strerror) or type(error).__name__)
        finally:
            if ticket is not None:
                client.attempt.timed(ticket.model or model_named(exchange.path, exchange.body), watch.ended())
            if not answered:  # whether the API billed it is not known
                assert ticket is not None
                unknown = charged_unanswered(self._most(ticket), self._unanswered)
                client.attempt.used(unknown._replace(**Sender.of(request.headers)._asdict()), ticket.hold)

    async def _pass_back(
        self, exchange: Exchange, answer: aiohttp.ClientResponse, flight: Flight | None, watch: StopWatch
    ) -> web.StreamResponse:
        request = exchange.request
        response = web.StreamResponse(status=answer.status, reason=answer.reason)
        for name, value in answer.headers.items():
            if name.lower() not in ANSWER_HOP_BY_HOP:
                response.headers.add(name, value)
        response.headers.setdefault(hdrs.SERVER, SERVER)
        if request.method == "HEAD":
            await response.prepare(request)
            return response
        counting = self._counting(exchange, answer)
        last, whole = b"", False
        try:
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                watch.came()
                if flight is not None and answer.ok:
                    self._begun(exchange, flight)
                if counting is not None:
                    counting.feed(chunk)  # before the instance sees it: it never knows of more than was counted
                    last, chunk = (chunk, last) if counting.is_document else (b"", chunk)  # noqa: PLW2901
                await response.write(chunk)
            whole = True
        except (aiohttp.ClientError, OSError):
            if request.transport is not None:
                request.transport.abort()  # as the API dropped us
            last = b""
        finally:
            if counting is not None:
                usage = counting.close(whole=whole)
                self._learn(exchange, usage)
                if exchange.turn is not None:
                    exchange.turn.ended(usage)
        if last:
            await response.write(last)
        with contextlib.suppress(ConnectionError):
            await response.write_eof()
        return response

    def _begun(self, exchange: Exchange, flight: Flight) -> None:
        """The first byte of the answer has come."""
        flight.begun()
        client, headers = exchange.client, exchange.request.headers
        if self._keeps and client.kept is None and not Sender.of(headers).agent:
            client.kept = kept_request(exchange.path, forwarded_headers(headers), exchange.body, flight.prefixes)

    def _counting(self, exchange: Exchange, answer: aiohttp.ClientResponse) -> AnswerCount | None:
        if exchange.ticket is None or not answer.ok:
            return None
        ticket, how = exchange.ticket, self._unanswered
        most = self._most(ticket)
        return AnswerCount(exchange.client, ticket.hold, answer, most, is_exact=exchange.is_exact, unanswered=how)

    def _most(self, ticket: Ticket) -> Most:
        return most_of(ticket, self._admission.weights_of(ticket), f"unknown-{next(self._numbers)}")

    def _learn(self, exchange: Exchange, usage: ApiUsage | None) -> None:
        """Learn how long answers are and what this request had; one that our limit cut is given more next time."""
        client, ticket = exchange.client, exchange.ticket
        if usage is None or ticket is None:
            return
        agent = Sender.of(exchange.request.headers).agent
        if usage.stop_reason == "max_tokens" and ticket.output_tokens < ticket.max_tokens:
            client.wanted_tokens[agent] = MORE_AFTER_A_CUT * ticket.output_tokens
        elif usage.whole and ticket.max_tokens >= LEAST_OUTPUT_TOKENS:
            client.wanted_tokens.pop(agent, None)
            self._admission.learn(usage.usage.output_tokens)
        if exchange.known is not None and usage.whole and usage.exact:
            client.learn(exchange.known, exchange.body, usage.usage.total_tokens - usage.usage.output_tokens)


def forwarded_headers(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers that a request keeps on its way to the API."""
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP)


def error_response(status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer in the API's own shape for errors."""
    error = {"type": kind, "message": f"claude-orchestrator: {message}"}
    return web.json_response({"type": "error", "error": error}, status=status, headers=headers)


def refusal(why: str) -> web.Response:
    """A refusal that no retry helps.

    After any other type with status 400, claude 2.1.332 leaves parts of its request out and sends it six times. Both
    that version and 2.1.197 end at once after this one.
    """
    return error_response(400, "billing_error", why, NO_RETRY)


def no_answer(why: str) -> web.Response:
    """The API cannot be reached, or gave no answer."""
    return error_response(502, "api_error", f"no answer from the API: {why}")
