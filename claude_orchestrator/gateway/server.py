"""The meter and the hard cap at the API: a loopback server through which instances talk to it.

It forwards what comes, streamed through and unchanged but for `max_tokens` where a budget has less left, and reads
each answer's usage as it passes. What decides on a request is in `admission.py`. Needs the extra `gateway` (aiohttp).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import itertools
import json
import logging
import os
import posixpath
import re
import secrets
import socket
import ssl
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeGuard
from urllib.parse import unquote, urlsplit

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict
from yarl import URL

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.gateway.admission import (
    LEAST_THINKING_TOKENS,
    MORE_AFTER_A_CUT,
    Admission,
    Cost,
    InputBound,
    Ticket,
    Verdict,
    by_server_tools,
    is_bounded,
)
from claude_orchestrator.gateway.attempt import MeteredAttempt
from claude_orchestrator.gateway.usage_reader import DECODABLE, answer_meter
from token_budget.budget_manager import TokenBudgetManager
from token_budget.models import Unit, Usage, Weights

PUBLIC_API = "https://api.anthropic.com"
MAX_REQUEST_BYTES = 64 * 1024 * 1024  # the API itself takes 32
MAX_HEADER_BYTES = 64 * 1024
CLOSE_S = 1.0
COUNT_TIMEOUT_S = 10.0
ASK_AGAIN_S = 0.2
MESSAGES = "/v1/messages"
READING = ("GET", "HEAD", "OPTIONS")
UNMETERED = ("/v1/messages/batches", "/v1/complete")  # what is billed and cannot be held to a budget
AGENT = "x-claude-code-agent-id"
SESSION = "x-claude-code-session-id"
MOST_BOUNDS = 4
REMEMBERED_IDS = 4_096
COUNTED_KEYS = ("messages", "model", "system", "thinking", "tool_choice", "tools")  # what count_tokens takes
TEXT_KEYS = ("messages", "system", "tools", "max_tokens", "stream", "metadata")
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
SILENT = logging.Logger("gateway")  # nothing of a request may get into a log
SILENT.addHandler(logging.NullHandler())
NO_RETRY = {"x-should-retry": "false"}
UNCOUNTED = "claude-orchestrator: the API does not count this request's documents now, and nothing else bounds them"
ANSWER_HOP_BY_HOP = HOP_BY_HOP - {"content-length"}
# they begin with fixed text, which is found fast in a body of megabytes
_MAX_TOKENS = re.compile(rb'"max_tokens"\s*:\s*(\d*)')
_THINKING = re.compile(rb'"budget_tokens"\s*:\s*(\d*)')


@dataclass(slots=True, eq=False)
class Client:
    """One attempt at an instance, and what is to be called when it asks and when it is answered."""

    url: str
    upstream: str
    attempt: MeteredAttempt
    no_proxy: str | None = None
    bounds: dict[str, InputBound] = field(default_factory=dict)
    ids: dict[str, None] = field(default_factory=dict)
    wanted_tokens: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    handlers: set[asyncio.Task[object]] = field(default_factory=set)
    digest: bytes = b""
    proxy: str | None = None

    def bound(self, request: web.BaseRequest, asked: Asked) -> InputBound:
        """What earlier requests tell about this one: those with the same model and all else but the text."""
        rest = {key: value for key, value in asked.data.items() if key not in TEXT_KEYS}
        key = json.dumps([rest, request.headers.getall("anthropic-beta", [])], sort_keys=True)
        found = self.bounds.pop(key, None) or InputBound()
        self.bounds[key] = found
        if len(self.bounds) > MOST_BOUNDS:
            del self.bounds[next(iter(self.bounds))]
        return found

    def cost_of(self, asked: Asked, input_tokens: int) -> Cost | None:
        """The most that a request can cost: all its input written to the cache for an hour; None without a price."""
        model = asked.data.get("model")
        in_money = any(budget.unit is Unit.USD for budget in self.attempt.budgets)
        if not in_money or self.attempt.price is None or not isinstance(model, str):
            return None
        most = Usage(cache_creation_input_tokens=input_tokens)
        nano = self.attempt.price(model, most, input_tokens)
        more = self.attempt.price(model, most + Usage(output_tokens=1000), input_tokens)
        return None if nano is None or more is None else Cost(nano, more - nano)

    @property
    def env(self) -> tuple[tuple[str, str], ...]:
        """The variables that make an instance use the gateway, and no proxy on the way to it."""
        none = ",".join(filter(None, (self.no_proxy, "127.0.0.1")))
        return (("ANTHROPIC_BASE_URL", self.url), ("NO_PROXY", none), ("no_proxy", none))


class Gateway:
    """A context in which instances reach the API through this server. In block mode it refuses what the manager's
    budgets cannot pay for. `upstream`: the API for all instances, whatever address they have of their own."""

    def __init__(
        self,
        manager: TokenBudgetManager,
        weights: Weights,
        *,
        environ: Mapping[str, str] = os.environ,
        upstream: str | None = None,
    ) -> None:
        self._upstream = upstream
        self.admission = Admission(manager, weights)
        self._enforces = manager.enforcement_mode == "block"
        self._numbers = itertools.count(1)  # of answers
        self._environ = environ
        self._clients: dict[bytes, Client] = {}

    async def __aenter__(self) -> Gateway:
        connector = aiohttp.TCPConnector(limit=0, ssl=_ssl_context(self._environ))
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=60),
            skip_auto_headers=(hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE),
            read_bufsize=256 * 1024,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )
        server = web.Server(
            self._handle,
            handler_cancellation=True,
            access_log=None,
            logger=SILENT,
            auto_decompress=False,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=CLOSE_S)
        await self._runner.setup()
        listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = listening.getsockname()[1]
        await web.SockSite(self._runner, listening).start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()
        await self._session.close()

    def open(self, attempt: MeteredAttempt) -> Client:
        """A place for one attempt at an instance: its `env` makes the instance use the gateway."""
        secret = secrets.token_urlsafe(24)
        own = {**self._environ, **attempt.environ}
        target = (self._upstream or own.get("ANTHROPIC_BASE_URL") or PUBLIC_API).rstrip("/")
        url = f"http://127.0.0.1:{self.port}/{secret}"
        client = Client(
            url,
            target,
            attempt,
            no_proxy=own.get("NO_PROXY") or own.get("no_proxy"),
            digest=hashlib.sha256(secret.encode()).digest(),
            proxy=_proxy_for(target),
        )
        self._clients[client.digest] = client
        self.admission.places = len(self._clients)
        return client

    async def close(self, client: Client) -> None:
        """The attempt has ended: its requests are broken off, counted by what had passed."""
        self._clients.pop(client.digest, None)
        self.admission.places = max(1, len(self._clients))
        for handler in client.handlers:
            handler.cancel()
        if client.handlers:
            await asyncio.wait(client.handlers, timeout=CLOSE_S)
        self.recheck()

    def recheck(self) -> None:
        """Budgets have more room: let waiting requests proceed."""
        self.admission.recheck()

    # -- requests --

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        secret, _, path = request.raw_path.lstrip("/").partition("/")
        secret, mark, query = secret.partition("?")
        digest = hashlib.sha256(secret.encode("utf-8", "replace")).digest()
        client = self._clients.get(digest)
        if client is None or not hmac.compare_digest(client.digest, digest):
            return web.Response(status=404)
        task = asyncio.current_task()
        assert task is not None
        client.handlers.add(task)
        try:
            if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue" and request.transport is not None:
                request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await _read(request)
            if body is None:
                return _error(413, "request_too_large", "the request is larger than 64 MiB")
            path = f"/{path}" if path else mark + query
            plain = _plain(path)
            if request.method == "POST" and path.partition("?")[0] == MESSAGES:
                return await self._message(client, request, path, body)
            if request.method in READING or plain not in (MESSAGES, *UNMETERED):
                return await self._forward(client, request, path, body, None)
            if plain == MESSAGES:  # some servers would take it as a message
                return _error(404, "not_found_error", "claude-orchestrator: no such path", NO_RETRY)
            if self._enforces and client.attempt.budgets:
                said = f"claude-orchestrator: {plain} cannot be held to a budget"
                return _error(400, "invalid_request_error", said, NO_RETRY)
            return await self._forward(client, request, path, body, None)
        finally:
            client.handlers.discard(task)

    async def _message(self, client: Client, request: web.BaseRequest, path: str, body: bytes) -> web.StreamResponse:
        """A request that will be billed: admitted first where budgets are enforced, and metered."""
        client.attempt.requested()
        if not client.attempt.budgets or not self._enforces:
            return await self._forward(client, request, path, body, Ticket((), 0, 0))
        asked = read_request(body)
        if asked is None or hdrs.CONTENT_ENCODING in request.headers:
            said = "claude-orchestrator: a request in block mode is plain JSON with an integer max_tokens"
            return _error(400, "invalid_request_error", said, NO_RETRY)
        agent = request.headers.get(AGENT, "")
        ticket = Ticket(client.attempt.budgets, 0, asked.max_tokens, wanted_tokens=client.wanted_tokens.get(agent, 0))
        ticket.least_tokens = min(ticket.least_tokens, asked.max_tokens)
        if asked.thinking_tokens is not None:
            ticket.least_tokens = min(ticket.max_tokens, 2 * LEAST_THINKING_TOKENS)
        known = client.bound(request, asked)
        try:
            if not await self._bound(client, request, path, body, asked, ticket, known):
                return _error(529, "overloaded_error", UNCOUNTED)
            if not await self._admit(client, ticket):
                assert ticket.spent is not None
                client.attempt.refused(ticket.spent)
                return _error(400, "invalid_request_error", refusal(ticket), NO_RETRY)
            return await self._forward(client, request, path, lowered(body, asked, ticket.output_tokens), ticket, known)
        finally:
            self._settle(client, ticket)

    async def _bound(
        self,
        client: Client,
        request: web.BaseRequest,
        path: str,
        body: bytes,
        asked: Asked,
        ticket: Ticket,
        known: InputBound,
    ) -> bool:
        """Bound the request's input; False where nothing bounds it, for the API does not count it."""
        bounded, more = is_bounded(body), by_server_tools(asked.data)
        ticket.input_tokens = known.of(body) + more
        ticket.cost = client.cost_of(asked, ticket.input_tokens)
        if bounded and self.admission.has_room(ticket):
            return True
        exact = await self._count(client, request, path, asked)
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
        verdict = self.admission.ask(ticket)
        if verdict is Verdict.WAIT:
            client.waiting += 1
            try:
                verdict = await answered
            except asyncio.CancelledError:
                self.admission.leave(ticket)
                raise
            finally:
                client.waiting -= 1
        return verdict

    def _settle(self, client: Client, ticket: Ticket) -> None:
        hold = ticket.hold
        self.admission.settle(ticket)
        if hold is not None:
            client.attempt.settled(hold)

    async def _count(self, client: Client, request: web.BaseRequest, path: str, asked_for: Asked) -> int | None:
        """The request's input tokens by the API's own count, which costs nothing; None where it does not tell."""
        try:
            asked = {key: asked_for.data[key] for key in COUNTED_KEYS if key in asked_for.data}
            where = path.replace(MESSAGES, MESSAGES + "/count_tokens", 1)
            headers = _headers(request.headers)
            headers[hdrs.ACCEPT_ENCODING] = "identity"
            async with asyncio.timeout(COUNT_TIMEOUT_S):
                async with self._send(client, "POST", where, headers, json.dumps(asked).encode()) as answer:
                    found = json.loads(await answer.content.read(1024 * 1024)) if answer.status == 200 else {}
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, RecursionError):
            return None
        tokens = found.get("input_tokens") if isinstance(found, dict) else None
        if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
            return None
        return tokens + tokens // 100 + 16  # "may differ by a small amount", says its documentation

    def _send(
        self, client: Client, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> aiohttp.client._RequestContextManager:
        return self._session.request(
            method,
            URL(client.upstream + path, encoded=True),
            headers=headers,
            data=body or None,
            allow_redirects=False,
            proxy=client.proxy,
        )

    async def _forward(
        self,
        client: Client,
        request: web.BaseRequest,
        path: str,
        body: bytes,
        ticket: Ticket | None,
        known: InputBound | None = None,
    ) -> web.StreamResponse:
        """Pass the request on and its answer back, piece by piece as it comes; with a ticket it is metered."""
        headers = _headers(request.headers)
        accepted = [item.strip() for item in request.headers.get(hdrs.ACCEPT_ENCODING, "").split(",")]
        decodable = [item for item in accepted if item.partition(";")[0] in DECODABLE] if ticket else accepted
        headers[hdrs.ACCEPT_ENCODING] = ", ".join(filter(None, decodable)) or "identity"
        answered = ticket is None
        try:
            async with self._send(client, request.method, path, headers, body) as answer:
                answered = True
                return await self._answer(client, request, answer, body, ticket, known)
        except aiohttp.ClientConnectorError as error:
            answered = True  # it was never sent
            why = error.os_error.strerror or type(error).__name__
            return _error(502, "api_error", f"claude-orchestrator: no answer from the API: {why}")
        except (aiohttp.ClientError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            return _error(502, "api_error", f"claude-orchestrator: no answer from the API: {why}")
        finally:
            if not answered:  # whether it was billed is not known
                client.attempt.used(ApiUsage(f"unknown-{next(self._numbers)}", Usage(), False, cut=True), None)

    async def _answer(
        self,
        client: Client,
        request: web.BaseRequest,
        answer: aiohttp.ClientResponse,
        body: bytes,
        ticket: Ticket | None,
        known: InputBound | None,
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, reason=answer.reason)
        for name, value in answer.headers.items():
            if name.lower() not in ANSWER_HOP_BY_HOP:
                response.headers.add(name, value)
        if request.method == "HEAD":
            await response.prepare(request)
            return response
        metered = ticket is not None and answer.status == 200
        counting = _Counting(client, ticket, answer, next(self._numbers)) if ticket is not None and metered else None
        last, whole = b"", False
        try:
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
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
                self._learn(client, ticket, usage, request.headers.get(AGENT, ""))
                if usage is not None and known is not None and usage.whole and usage.exact:
                    known.learn(body, usage.usage.total_tokens - usage.usage.output_tokens)
        if last:
            await response.write(last)
        with contextlib.suppress(ConnectionError):
            await response.write_eof()
        return response

    def _learn(self, client: Client, ticket: Ticket | None, usage: ApiUsage | None, agent: str) -> None:
        """How long answers are; one that our own limit cut short is given more next time."""
        if usage is None or ticket is None:
            return
        if usage.stop_reason == "max_tokens" and ticket.output_tokens < ticket.max_tokens:
            client.wanted_tokens[agent] = MORE_AFTER_A_CUT * ticket.output_tokens
        elif usage.whole:
            client.wanted_tokens.pop(agent, None)
            self.admission.learn(usage.usage.output_tokens)


class _Counting:
    """Counts one answer as it passes; `number` is no other answer's."""

    def __init__(self, client: Client, ticket: Ticket, answer: aiohttp.ClientResponse, number: int) -> None:
        self._client = client
        self._ticket = ticket
        self._number = number
        self._own = self._name = ""
        self._session_id = answer.request_info.headers.get(SESSION)
        kind = answer.headers.get(hdrs.CONTENT_TYPE, "")
        self.is_document = "event-stream" not in kind
        self._meter = answer_meter(kind, answer.headers.get(hdrs.CONTENT_ENCODING, "").strip().lower())

    def feed(self, chunk: bytes) -> None:
        self._take(self._meter.feed(chunk))

    def close(self, *, whole: bool) -> ApiUsage | None:
        """The answer has ended, `whole` or not.

        One that ended by itself and does not tell its usage counts with all that was held for it: it was billed
        something.
        """
        usage, ticket, name = self._meter.close(), self._ticket, f"unknown-{self._number}"
        held = whole and ticket.hold is not None
        most = Usage(ticket.input_tokens, ticket.output_tokens) if held else Usage()
        if usage is None:
            self._client.attempt.used(ApiUsage(name, most, whole, exact=False), ticket.hold)
            return None
        usage = replace(usage, id=usage.id or name)
        if not usage.told and usage.usage.total_tokens < most.total_tokens:
            usage = replace(usage, usage=most | usage.usage)
        self._take(usage)
        return usage

    def _take(self, usage: ApiUsage | None) -> None:
        if usage is None or not usage.id:
            return
        if usage.id != self._own:
            self._own = usage.id
            # another answer of the same id is another answer
            self._name = f"{usage.id}#{self._number}" if usage.id in self._client.ids else usage.id
            self._client.ids[usage.id] = None
            if len(self._client.ids) > REMEMBERED_IDS:
                del self._client.ids[next(iter(self._client.ids))]
        self._client.attempt.used(replace(usage, id=self._name, session_id=self._session_id), self._ticket.hold)


def refusal(ticket: Ticket) -> str:
    """What an instance is told when its budget is spent."""
    budget = ticket.spent
    assert budget is not None
    needs = f"{ticket.input_tokens:,} for its input and at least {ticket.least_tokens:,} for its answer"
    if ticket.cost is not None and budget.unit is Unit.USD:
        needs = f"{budget.unit.show(ticket.cost.bound(ticket.least_tokens))} (tokens: {needs})"
    spent = f"claude-orchestrator: {budget.label} budget is spent: used {budget.figures()}"
    return f"{spent}; this request needs up to {needs}"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for: its `max_tokens` and thinking budget. `data` is the whole of it."""

    data: dict[str, object]
    max_tokens: int
    thinking_tokens: int | None = None


def read_request(body: bytes) -> Asked | None:
    """What a request asks for; None where it is none that the API would take, or nobody could say what it costs."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or not _is_count(data.get("max_tokens")):
        return None
    thinking = data.get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    return Asked(data, data["max_tokens"], budget if _is_count(budget) else None)


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def lowered(body: bytes, asked: Asked, output_tokens: int) -> bytes:
    """The body with `max_tokens` of at most so many, and a thinking budget below it; otherwise unchanged."""
    wanted = dict(asked.data)
    spliced = body
    is_lowered = asked.max_tokens > output_tokens
    if is_lowered:
        wanted["max_tokens"] = output_tokens
        spliced = _spliced(_MAX_TOKENS, spliced, output_tokens)
    if is_lowered and asked.thinking_tokens is not None and asked.thinking_tokens >= output_tokens:
        least = max(LEAST_THINKING_TOKENS, output_tokens // 2)
        thinking = wanted["thinking"]
        assert isinstance(thinking, dict)
        wanted["thinking"] = {**thinking, "budget_tokens": least}
        spliced = _spliced(_THINKING, spliced, least)
    if len(_MAX_TOKENS.findall(body)) == 1 and (spliced is body or json.loads(spliced) == wanted):
        return spliced
    return json.dumps(wanted, separators=(",", ":")).encode()  # the names stand more than once: said in one way only


def _spliced(pattern: re.Pattern[bytes], body: bytes, tokens: int) -> bytes:
    """The number after the first such name replaced; whether that was the right one is for the caller to see."""
    match = pattern.search(body)
    return body if match is None else body[: match.start(1)] + b"%d" % tokens + body[match.end(1) :]


async def _read(request: web.BaseRequest) -> bytes | None:
    parts, size_bytes = [], 0
    async for chunk in request.content.iter_any():
        size_bytes += len(chunk)
        if size_bytes > MAX_REQUEST_BYTES:
            return None
        parts.append(chunk)
    return b"".join(parts)


def _plain(path: str) -> str:
    """A path as servers may take it: `//v1/./messages/` is `/v1/messages`."""
    path = unquote(re.split("[?#]", path, maxsplit=1)[0])
    return posixpath.normpath("/" + path.lstrip("/")).lower()


def _headers(headers: Mapping[str, str]) -> CIMultiDict[str]:
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP)


def _error(status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer in the API's own shape for errors."""
    data = {"type": "error", "error": {"type": kind, "message": message}}
    return web.json_response(data, status=status, headers=headers)


def _proxy_for(url: str) -> str | None:
    """The proxy that the environment names for this address, as other programs take it."""
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def _ssl_context(environ: Mapping[str, str]) -> ssl.SSLContext:
    """The system's certificates, and those that claude itself is told to trust."""
    context = ssl.create_default_context()
    extra = environ.get("NODE_EXTRA_CA_CERTS")
    if extra:
        with contextlib.suppress(OSError):
            context.load_verify_locations(extra)
    return context
