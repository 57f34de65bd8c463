"""A model of the API at its most expensive, for tests of the hard cap: it bills whatever a request allows.

It takes the dearest reading of a body, bills answers that nobody received, and lets its own tools read all they may.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from token_budget.api_usage import PriceTerms
from token_budget.model_weights import TokenWeights, draw
from token_budget.models import Usage
from token_budget.pricing import of_tools, with_terms
from token_budget.serving.door import SILENT

SEARCH_TOKENS, SEARCHES = 20_000, 8
UNBOUNDED_TOKENS = 5_000_000  # what a compaction, an advisor or a fallback costs here
DOCUMENT_TOKENS = 9_000
NANO = (3_000, 15_000, 6_000, 300)  # a token of input, output, a cache write for an hour, a cache read


def price(model: str, usage: Usage, written_for_1h: int) -> int:
    """List prices in nano-dollars; a cache write for five minutes costs less."""
    less = 2_250 * (usage.cache_creation_input_tokens - written_for_1h)
    return sum(count * nano for count, nano in zip(usage, NANO, strict=True)) - less


def dearest_reading(body: bytes) -> dict[str, Any]:
    """What a lenient server could read in a body: the first or the last of two keys, in any case, whichever is more."""
    readings: list[dict[str, Any]] = []
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        for joined in (_first, _last):
            with contextlib.suppress(ValueError, RecursionError):
                data = json.loads(body.decode(encoding), object_pairs_hook=joined)
                if isinstance(data, dict):
                    readings.append(data)
    return max(readings, key=lambda data: _number(data.get("max_tokens")), default={})


def _last(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key.lower(): value for key, value in pairs}


def _first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return _last(pairs[::-1])


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


Answer = web.StreamResponse


class HostileApi:
    """The API: `rows` are the bills. `behave` chooses what happens to a request, and `dice` the rest."""

    def __init__(self, dice: random.Random, weights: TokenWeights) -> None:
        self.dice = dice
        self.weights = weights
        self.by_model: dict[str, Usage] = {}
        self.beside, self.nano_usd = 0, 0
        self.factor = dice.choice((0.2, 0.5, 1.0))
        self.counts = dice.random() < 0.8
        self.runner: web.ServerRunner | None = None
        self.number = 0
        self.is_gone = False  # for new requests: nobody is there to send them

    async def __aenter__(self) -> HostileApi:
        server = web.Server(self._handle, handler_cancellation=True, logger=SILENT)
        self.runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self.runner is not None
        await self.runner.cleanup()

    # -- what it bills --

    @property
    def tokens(self) -> int:
        """All that it has billed, weighted."""
        return draw(self.weights, sum(self.by_model.values(), Usage()), self.by_model) + self.beside

    def input_of(self, data: dict[str, Any]) -> int:
        """The tokens of a request's input: each of its parts has at most a token for each byte."""
        text = json.dumps(data.get("messages"))
        tools = data.get("tools") or []
        shown = [tool for tool in tools if not (isinstance(tool, dict) and tool.get("defer_loading"))]
        if "tool_reference" in text:
            shown = tools
        messages = data.get("messages") or []
        if messages and isinstance(messages[-1], dict) and messages[-1].get("content") == "plain":
            messages = [one for one in messages if "thinking" not in json.dumps(one)]  # a new turn drops the thinking
        parts = (messages, data.get("system"), shown, data.get("output_config"))
        size = sum(len(json.dumps(part, ensure_ascii=False).encode()) for part in parts if part)
        images, documents = text.count('"image"'), text.count('"document"')
        return int(size * self.factor) + 4_784 * images + DOCUMENT_TOKENS * documents + 346 * bool(tools)

    def bill(self, data: dict[str, Any], usage: Usage, terms: PriceTerms) -> None:
        """Book what a request costs."""
        nano = with_terms(price("m", usage, usage.cache_creation_input_tokens), "m", terms) + of_tools(terms)
        model = str(data.get("model"))
        self.by_model[model] = self.by_model.get(model, Usage()) + usage
        self.nano_usd += nano
        kinds = [str(tool.get("type")) for tool in data.get("tools") or [] if isinstance(tool, dict)]
        edits = json.dumps(data.get("context_management") or {})
        unbounded = ("mcp_servers", "container", "fallbacks", "thread", "resumption", "compaction")
        if any(map(data.get, unbounded)) or "compact_" in edits or any(kind.startswith("advisor_") for kind in kinds):
            self.beside += UNBOUNDED_TOKENS

    # -- what it does --

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body, path = await request.read(), request.path
        if "count_tokens" in path:
            if not self.counts:
                return web.json_response({}, status=self.dice.choice((404, 500)))
            data = json.loads(body)
            assert set(data) <= {"messages", "model", "system", "thinking", "tool_choice", "tools"}
            return web.json_response({"input_tokens": self.input_of(data)})
        if request.method != "POST" or ("messages" not in path.lower() and "chat" not in path):
            return web.json_response({})
        if "batches" in path or "chat" in path:
            self.beside += UNBOUNDED_TOKENS
        return await self._answer(request, dearest_reading(body))

    async def _answer(self, request: web.BaseRequest, data: dict[str, Any]) -> web.StreamResponse:
        dice, most = self.dice, _number(data.get("max_tokens"))
        self.number += 1
        searches = SEARCHES if "web_search_" in json.dumps(data.get("tools") or []) else 0
        tokens = self.input_of(data) + dice.choice((0, SEARCH_TOKENS * searches))
        output = dice.choice((most, most // 2, min(most, 40)))
        stated = Usage(*self._spread(tokens, output))
        terms = PriceTerms(
            speed="fast" if data.get("speed") == "fast" else "",
            inference_geo="global" if data.get("inference_geo") == "global" else "us",
            server_tools=(("web_search_requests", searches),) if searches else (),
        )
        how: Callable[[web.BaseRequest, Usage, PriceTerms, str], Awaitable[web.StreamResponse]]
        how = dice.choice((self._stream, self._stream, self._document, self._breaks, self._drops, self._redirects))
        billed = stated._replace(output_tokens=most) if how in (self._breaks, self._drops) else stated
        if how != self._redirects:
            self.bill(data, billed, terms)
        try:
            return await how(request, stated, terms, str(data.get("model")))
        except (ConnectionError, asyncio.CancelledError):
            # the client hung up: the API may have written, and billed, all that was asked for
            if how != self._redirects:
                more = Usage(output_tokens=most - billed.output_tokens)
                self.bill({"model": data.get("model")}, more, terms._replace(server_tools=()))
            raise

    def _spread(self, tokens: int, output: int) -> tuple[int, int, int, int]:
        read, written = self.dice.choice(((0, 0), (tokens // 2, 0), (0, tokens), (tokens // 3, tokens // 3)))
        return tokens - read - written, output, written, read

    def _usage(self, usage: Usage, terms: PriceTerms) -> dict[str, object]:
        written = usage.cache_creation_input_tokens
        return {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": usage.cache_read_input_tokens,
            "cache_creation": {"ephemeral_1h_input_tokens": written, "ephemeral_5m_input_tokens": 0},
            "server_tool_use": dict(terms.server_tools),
            "speed": terms.speed or "standard",
            "inference_geo": terms.inference_geo,
        }

    async def _begin(self, request: web.BaseRequest, usage: Usage, terms: PriceTerms, model: str) -> Answer:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        begun = {**self._usage(usage._replace(output_tokens=1), terms), "server_tool_use": {}}
        message = {"id": self.dice.choice(("same", f"m{self.number}")), "model": model, "usage": begun}
        await response.write(_sse("message_start", {"message": message}))
        delta: dict[str, object] = {"delta": {"type": "text_delta", "text": "word"}}
        await response.write(_sse("content_block_delta", delta))
        await asyncio.sleep(0.002)
        return response

    async def _stream(
        self, request: web.BaseRequest, usage: Usage, terms: PriceTerms, model: str
    ) -> web.StreamResponse:
        response = await self._begin(request, usage, terms, model)
        end = {"delta": {"stop_reason": "end_turn"}, "usage": self._usage(usage, terms)}
        await response.write(_sse("message_delta", end) + _sse("message_stop", {}))
        await response.write_eof()
        return response

    async def _document(
        self, request: web.BaseRequest, usage: Usage, terms: PriceTerms, model: str
    ) -> web.StreamResponse:
        stated: object = self._usage(usage, terms)
        if self.dice.random() < 0.2:
            stated = self.dice.choice(({"input_tokens": usage.input_tokens}, {}, "none"))
        return web.json_response({"id": f"m{self.number}", "model": model, "stop_reason": "end_turn", "usage": stated})

    async def _breaks(
        self, request: web.BaseRequest, usage: Usage, terms: PriceTerms, model: str
    ) -> web.StreamResponse:
        response = await self._begin(request, usage, terms, model)
        assert request.transport is not None
        request.transport.abort()
        return response

    async def _drops(self, request: web.BaseRequest, usage: Usage, terms: PriceTerms, model: str) -> Answer:
        await asyncio.sleep(self.dice.choice((0, 0.005)))
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def _redirects(
        self, request: web.BaseRequest, usage: Usage, terms: PriceTerms, model: str
    ) -> web.StreamResponse:
        target = self.dice.choice(("/v1/messages?again", "/v1/messages/batches", "http://127.0.0.1:1/v1/messages"))
        return web.Response(status=self.dice.choice((302, 307, 308)), headers={"location": target})


def _sse(kind: str, data: dict[str, object]) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()
