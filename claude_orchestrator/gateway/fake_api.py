"""A simulated API on loopback, so that a rehearsal goes through the real gateway. Needs the extra `gateway` (aiohttp).

Each character of a request's `system` is a token; what it is to answer stands in its `metadata`.
"""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from typing import Any

import aiohttp
from aiohttp import web

from claude_orchestrator.launch.simulated import MODEL, Refused, Response
from token_budget.serving.door import SILENT

MAX_TOKENS = 64_000
CLOSE_S = 1.0


class FakeApi:
    """A context with a simulated API at `url`, and `ask` to get responses from it by way of another address."""

    async def __aenter__(self) -> FakeApi:
        server = web.Server(self._answer, handler_cancellation=True, access_log=None, logger=SILENT)
        self._runner = web.ServerRunner(server, shutdown_timeout=CLOSE_S)
        await self._runner.setup()
        listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        await web.SockSite(self._runner, listening).start()
        no_limits = aiohttp.ClientTimeout(total=None)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=no_limits)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._session.close()
        await self._runner.cleanup()

    async def ask(self, url: str, response: Response) -> AsyncIterator[dict[str, Any]]:
        """The events of a response that is asked for at `url`. Raises Refused."""
        tokens = response.input_tokens + response.cache_write_tokens + response.cache_read_tokens
        body = {"model": MODEL, "max_tokens": MAX_TOKENS, "stream": True, "system": "x" * tokens, "messages": []}
        async with self._session.post(f"{url}/v1/messages", json={**body, "metadata": asdict(response)}) as answer:
            if answer.status != 200:
                raise Refused(f"{answer.status} {(await answer.json())['error']['message']}")
            async for line in answer.content:
                if line.startswith(b"data: "):
                    yield json.loads(line.removeprefix(b"data: "))

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = json.loads(await request.read())
        if request.path.endswith("/count_tokens"):
            return web.json_response({"input_tokens": len(asked["system"])})
        response = Response(**asked["metadata"])
        response = replace(response, output_tokens=min(response.output_tokens, asked["max_tokens"]))
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        async for event in response.events():
            await answer.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        await answer.write_eof()
        return answer
