"""A stand-in for the Messages API on loopback that has rate limits, as Anthropic documents them.

Requests, uncached input tokens and output tokens are token buckets that refill continuously. `max_tokens` does not
count: output is drawn as it comes. Answers carry `anthropic-ratelimit-*` headers, in which tokens are rounded to
thousands and times to seconds; those of `tokens` are the sums of both kinds. A 429 carries `retry-after`, and draws
nothing. With `burst_s`, only so many requests at once are let through as come back in that time: the API may enforce
its limits over less than a minute.
Every quarter of a body's bytes is a token, and what a conversation repeats is read from the cache. A conversation of
fewer than `rounds` answers gets a tool call, which makes a real claude ask again.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

LIMIT_PERIOD_S = 60.0
FIRST_BYTE_S = 0.5
ANSWER_S = 0.5
OUTPUT_TOKENS = 20


@dataclass
class TokenBucket:
    """A limit per minute that refills continuously."""

    limit: int
    level: float
    at: float

    def at_moment(self, now: float) -> float:
        self.level = min(float(self.limit), self.level + (now - self.at) * self.limit / LIMIT_PERIOD_S)
        self.at = now
        return self.level

    def lacks_s(self, amount: float, now: float) -> float:
        """Seconds until so much is there."""
        return max(0.0, amount - self.at_moment(now)) * LIMIT_PERIOD_S / self.limit

    def whole_in_s(self, now: float) -> float:
        return (self.limit - max(0.0, self.at_moment(now))) * LIMIT_PERIOD_S / self.limit


def _headers(name: str, buckets: list[TokenBucket], now: float, rounded: int) -> dict[str, str]:
    """The headers of a limit; that of several buckets is their sum."""
    level = sum(max(0.0, bucket.at_moment(now)) for bucket in buckets)
    whole = datetime.now(UTC) + timedelta(seconds=max(bucket.whole_in_s(now) for bucket in buckets))
    return {
        f"anthropic-ratelimit-{name}-limit": str(sum(bucket.limit for bucket in buckets)),
        f"anthropic-ratelimit-{name}-remaining": str(round(level / rounded) * rounded if rounded > 1 else int(level)),
        f"anthropic-ratelimit-{name}-reset": whole.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


@dataclass
class LimitedApi:
    """A context with the stand-in at `url`; `refused` of `requests` were answered with 429."""

    requests_a_minute: int = 50
    tokens_a_minute: int = 200_000
    output_a_minute: int = 80_000
    burst_s: float = 0.0
    rounds: int = 1
    clock: Callable[[], float] = time.monotonic
    requests: int = 0
    refused: int = 0
    first_at: float = math.inf
    billed_tokens: int = 0
    url: str = ""
    seen: dict[str, int] = field(default_factory=dict)  # bytes of the last request of each conversation

    async def __aenter__(self) -> LimitedApi:
        now = self.clock()
        limits = (self.requests_a_minute, self.tokens_a_minute, self.output_a_minute)
        self._requests, self._tokens, self._output = (TokenBucket(limit, limit, now) for limit in limits)
        self._last: deque[float] = deque(maxlen=max(1, round(self.requests_a_minute * self.burst_s / LIMIT_PERIOD_S)))
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=1.0)
        await self._runner.setup()
        listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        await web.SockSite(self._runner, listening).start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        raw = await request.read()
        if request.method != "POST" or not request.path.endswith("/v1/messages"):
            return web.json_response({"input_tokens": len(raw) // 4})
        body = json.loads(raw)
        session = request.headers.get("x-claude-code-session-id") or str(body.get("metadata"))
        conversation = session + request.headers.get("x-claude-code-agent-id", "")
        tokens = max(1, len(raw) - self.seen.get(conversation, 0)) // 4
        self.requests += 1
        now = self.clock()
        self.first_at = min(self.first_at, now)
        wait_s = max(self._requests.lacks_s(1, now), self._tokens.lacks_s(tokens, now), self._output.lacks_s(1, now))
        if self.burst_s and len(self._last) == self._last.maxlen:
            wait_s = max(wait_s, self._last[0] + self.burst_s - now)
        if wait_s > 0:
            self.refused += 1
            error = {"type": "rate_limit_error", "message": "This request would exceed your rate limit."}
            headers = {**self._headers(now), "retry-after": str(math.ceil(wait_s))}
            return web.json_response({"type": "error", "error": error}, status=429, headers=headers)
        self.seen[conversation] = len(raw)
        self._last.append(now)
        self._requests.level -= 1
        self._tokens.level -= tokens
        self.billed_tokens += tokens
        await asyncio.sleep(FIRST_BYTE_S)
        return await self._answer(request, body, tokens, len(raw) // 4 - tokens)

    def _headers(self, now: float) -> dict[str, str]:
        return {
            **_headers("requests", [self._requests], now, 1),
            **_headers("input-tokens", [self._tokens], now, 1_000),
            **_headers("output-tokens", [self._output], now, 1_000),
            **_headers("tokens", [self._tokens, self._output], now, 1_000),
        }

    async def _answer(
        self, request: web.BaseRequest, body: dict[str, Any], tokens: int, cached: int
    ) -> web.StreamResponse:
        answered = sum(message["role"] == "assistant" for message in body["messages"])
        usage = {"input_tokens": tokens, "cache_read_input_tokens": cached, "output_tokens": OUTPUT_TOKENS}
        response = web.StreamResponse(headers={"content-type": "text/event-stream", **self._headers(self.clock())})
        await response.prepare(request)
        message = {"id": f"msg_{self.requests}", "type": "message", "role": "assistant", "model": body["model"]}
        start = {**message, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        await _event(response, {"type": "message_start", "message": start})
        await asyncio.sleep(ANSWER_S)
        self._output.at_moment(self.clock())
        self._output.level -= OUTPUT_TOKENS
        is_call = answered < self.rounds - 1
        block: dict[str, Any] = {"type": "text", "text": ""}
        delta = {"type": "text_delta", "text": "Done."}
        if is_call:
            block = {"type": "tool_use", "id": f"toolu_{self.requests}", "name": "Bash", "input": {}}
            call = {"command": f"printf %4000s {answered}", "description": "Print"}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(call)}
        await _event(response, {"type": "content_block_start", "index": 0, "content_block": block})
        await _event(response, {"type": "content_block_delta", "index": 0, "delta": delta})
        await _event(response, {"type": "content_block_stop", "index": 0})
        reason = {"stop_reason": "tool_use" if is_call else "end_turn", "stop_sequence": None}
        await _event(response, {"type": "message_delta", "delta": reason, "usage": usage})
        await _event(response, {"type": "message_stop"})
        await response.write_eof()
        return response


async def _event(response: web.StreamResponse, data: dict[str, Any]) -> None:
    await response.write(f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode())
