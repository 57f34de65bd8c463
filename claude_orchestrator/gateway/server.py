"""The API gateway: a loopback server through which instances talk to the API.

It meters every response, and in block mode it sends no request that the budgets cannot pay for. Needs the extra
`gateway` (aiohttp).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import socket
import time
from collections.abc import Mapping

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict

from claude_orchestrator.gateway.address import ApiAddress
from claude_orchestrator.gateway.admission import Admission, Ticket
from claude_orchestrator.gateway.attempt import MeteredAttempt
from claude_orchestrator.gateway.board import Board
from claude_orchestrator.gateway.client import Client
from claude_orchestrator.gateway.deciding import Decider, LocalDecider
from claude_orchestrator.gateway.door import BATCH, owner_of_peer
from claude_orchestrator.gateway.forwarding import NO_RETRY, Exchange, Forwarder, error_response, refusal
from claude_orchestrator.gateway.gatekeeper import Gatekeeper
from claude_orchestrator.gateway.pacing.gate import Gate
from claude_orchestrator.gateway.pacing.waiting import WaitingRequests
from claude_orchestrator.gateway.requests import MESSAGES, RequestKind, kind_of, plain_path
from claude_orchestrator.gateway.sender import Sender
from claude_orchestrator.gateway.sharing.flights import Flights
from claude_orchestrator.gateway.sharing.kept import KeptRequest
from claude_orchestrator.gateway.sharing.prefixes import LIFETIMES, Lifetimes
from claude_orchestrator.gateway.unanswered import ChargeUnanswered, how_charged
from claude_orchestrator.gateway.upstream import MAX_HEADER_BYTES, NotSent, UpstreamClient
from token_budget.budget_manager import TokenBudgetManager
from token_budget.model_weights import TokenWeights
from token_budget.named_tuples import NamedTuple
from token_budget.serving.bodies import read_body
from token_budget.serving.door import Door

MAX_REQUEST_BYTES = 64 * 1024 * 1024  # the API itself takes 32
CLOSE_S = 1.0


class GatewayOptions(NamedTuple):
    """How a gateway treats requests, beside its budgets.

    A request waits for `share_cache_wait_s` at most while another one writes its prefix to the prompt cache.
    `unanswered` is what a request without a complete answer is charged: by default its bound in block mode, and nothing
    in warn mode. By `board`, runs share their pace and the prompt cache. `decider` decides on requests in place of the
    manager's budgets. `keeps_cache`: prefixes can be kept in the prompt cache, whose entries have these `lifetimes`.
    """

    share_cache_wait_s: float = 0.0
    unanswered: ChargeUnanswered | None = None
    board: Board | None = None
    decider: Decider | None = None
    keeps_cache: bool = False
    lifetimes: Lifetimes = LIFETIMES


NO_OPTIONS = GatewayOptions()


class Gateway:
    """A context in which instances reach the API through this server.

    In block mode it refuses what the manager's budgets cannot pay for. `upstream` is the API for all instances,
    whatever address they have of their own. `admission` replaces the policy over the manager's budgets.
    """

    def __init__(
        self,
        manager: TokenBudgetManager,
        weights: TokenWeights,
        *,
        environ: Mapping[str, str] = os.environ,
        upstream: str | None = None,
        admission: Admission | None = None,
        options: GatewayOptions = NO_OPTIONS,
    ) -> None:
        self.admission = admission or Admission(manager, weights)
        self._gate = Gate(board=options.board)
        self._api_url = upstream
        self._enforces = manager.enforcement_mode == "block"
        self._environ = environ
        self._clients: dict[bytes, Client] = {}
        self._upstream = UpstreamClient()
        self._unanswered = options.unanswered
        self._keeps_cache = options.keeps_cache
        how = how_charged(options.unanswered, enforces=self._enforces)
        self._flights = Flights(
            options.share_cache_wait_s, time.monotonic, board=options.board, lifetimes=options.lifetimes
        )
        self._forwarder = Forwarder(self._upstream, self.admission, self._flights, how, keeps=options.keeps_cache)
        decider = options.decider or LocalDecider(self.admission)
        self._gatekeeper = Gatekeeper(self._upstream, self._forwarder, decider, weights)
        self._closing = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Gateway:
        await self._closing.enter_async_context(self._upstream)
        self._door = Door(
            self._handle, owner_of=owner_of_peer, max_header_bytes=MAX_HEADER_BYTES, auto_decompress=False
        )
        self._runner = web.ServerRunner(self._door, shutdown_timeout=CLOSE_S)
        await self._runner.setup()
        self._closing.push_async_callback(self._runner.cleanup)
        listening = socket.create_server(("127.0.0.1", 0), backlog=BATCH)
        self.port: int = listening.getsockname()[1]
        await web.SockSite(self._runner, listening, backlog=BATCH).start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._closing.aclose()

    def open(self, attempt: MeteredAttempt, name: str = "") -> Client:
        """A place for one attempt at an instance: its `env` makes the instance use the gateway."""
        address = ApiAddress.of({**self._environ, **attempt.environ}, self._api_url)
        client = Client.with_secret(self.port, address, attempt)
        self.add(client)
        return client

    def add(self, client: Client) -> None:
        """Take requests of a client whose secret has its digest."""
        self._clients[client.digest] = client
        self._count_clients()

    def _count_clients(self) -> None:
        self.admission.expect(len(self._clients))
        self._door.expect(len(self._clients))

    async def close(self, client: Client) -> None:
        """The attempt has ended: its requests are broken off and counted by what had passed."""
        self._clients.pop(client.digest, None)
        self._count_clients()
        for handler in client.handlers:
            handler.cancel()
        if client.handlers:
            await asyncio.wait(client.handlers, timeout=CLOSE_S)
        self.recheck()

    def recheck(self) -> None:
        """Budgets have more room: let waiting requests proceed."""
        self.admission.recheck()

    @property
    def keeper(self) -> Gateway | None:
        """What keeps the prompt cache warm, if that is asked for."""
        return self if self._keeps_cache else None

    def readable_s(self, kept: KeptRequest) -> float:
        """For how long the API can still read the prefix of this request from its cache."""
        return self._flights.readable_s(kept.prefix)

    def kept_of(self, place: Client) -> KeptRequest | None:
        """What repeats the beginning of the client's first request; None if there is nothing to repeat."""
        return place.kept

    async def keep(self, place: Client, kept: KeptRequest) -> int:
        """Send the request through this gateway itself, so that it is treated as any other one.

        Returns the status of the answer, and 0 without one.
        """
        url, headers = ApiAddress(place.url), CIMultiDict(kept.headers)
        try:
            async with self._upstream.send(url, "POST", kept.path, headers, kept.body) as answer:
                async for _ in answer.content.iter_any():
                    pass
                return answer.status
        except (NotSent, aiohttp.ClientError, OSError):
            return 0

    @property
    def is_slow(self) -> bool:
        """Whether requests wait for the API's rate limits, so that more instances would only wait too."""
        return self._gate.is_slow

    def pace(self) -> str | None:
        """Why requests wait for the API's rate limits; None if they do not, or not for long."""
        waiting = self.waiting()
        return None if waiting is None else waiting.text

    def waiting(self) -> WaitingRequests | None:
        """The requests that wait for the API's rate limits; None if none waits, or not for long."""
        return self._gate.waiting()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        secret, _, path = request.raw_path.lstrip("/").partition("/")
        secret, mark, query = secret.partition("?")
        digest = hashlib.sha256(secret.encode("utf-8", "replace")).digest()
        client = self._clients.get(digest)
        if client is None or not hmac.compare_digest(client.digest, digest):
            return web.Response(status=404)
        self._door.admit(request.protocol)
        task = asyncio.current_task()
        assert task is not None
        client.handlers.add(task)
        try:
            if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue" and request.transport is not None:
                request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await read_body(request, MAX_REQUEST_BYTES)
            if body is None:
                return error_response(413, "request_too_large", "the request is larger than 64 MiB")
            return await self._route(client, request, f"/{path}" if path else mark + query, body)
        finally:
            client.handlers.discard(task)

    async def _route(self, client: Client, request: web.BaseRequest, path: str, body: bytes) -> web.StreamResponse:
        kind = kind_of(request.method, path, body)
        if kind is RequestKind.FREE:
            return await self._forwarder.forward(Exchange(client, request, path, body))
        budgets = await client.attempt.budgets_of(Sender.of(request.headers))
        enforced = self._enforces and bool(budgets)
        if enforced and kind is RequestKind.UNKNOWN:
            plain = plain_path(path)
            if plain == MESSAGES:  # some servers would take it as a message
                return error_response(404, "not_found_error", "no such path", NO_RETRY)
            return refusal(f"in block mode the gateway sends no {request.method} {plain}: its cost is unknown")
        client.attempt.requested()
        turn = await self._gate.turn(client, request.headers, path, body)
        try:
            if enforced:
                return await self._gatekeeper.send(Exchange(client, request, path, body, turn=turn))
            metered = Exchange(
                client, request, path, body, Ticket((), 0, 0), is_exact=kind is RequestKind.MESSAGE, turn=turn
            )
            if self._unanswered in (None, ChargeUnanswered.NONE):
                return await self._forwarder.forward(metered)
            return await self._gatekeeper.watch(metered)
        finally:
            turn.close()
