"""A simulated Messages API for the benchmarks: bills a quarter of a body's bytes and as much output as it is told to.

python -m tests.benchmarks.simulated_api        (prints its port; ends with its standard input)
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web

TOKENS_PER_S = 20_000  # of a simulated answer: quick, so that a benchmark is short


@dataclass
class SimulatedApi:
    """What was billed, and how many answers were in progress at once."""

    billed: int = 0
    requests: int = 0
    at_once: int = 0
    peak: int = 0
    port: int = 0
    tokens_per_s: float = TOKENS_PER_S
    runner: web.ServerRunner | None = field(default=None, repr=False)

    async def start(self) -> None:
        self.runner = web.ServerRunner(web.Server(self.answer, access_log=None))
        await self.runner.setup()
        listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.port = listening.getsockname()[1]
        await web.SockSite(self.runner, listening).start()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        tokens = len(body) // 4
        if request.path.endswith("/count_tokens"):
            return web.json_response({"input_tokens": tokens + 40})  # the body is a little shorter there
        data = json.loads(body)
        self.requests += 1
        self.at_once += 1
        self.peak = max(self.peak, self.at_once)
        output = min(data["metadata"]["needs"], data["max_tokens"])
        stop = "max_tokens" if output < data["metadata"]["needs"] else "end_turn"
        usage = {"input_tokens": tokens, "output_tokens": 1}
        self.billed += tokens + 1
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        try:
            await response.prepare(request)
            message = {"id": f"msg_{self.requests}", "usage": usage}
            await _event(response, {"type": "message_start", "message": message})
            for piece in range(4):
                await asyncio.sleep(output / self.tokens_per_s / 4 if self.tokens_per_s else 0)
                delta = {"type": "text_delta", "text": f"piece {piece} "}
                await _event(response, {"type": "content_block_delta", "index": 0, "delta": delta})
            self.billed += output - 1
            end = {"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": output}}
            await _event(response, end)
            await response.write_eof()
        finally:
            self.at_once -= 1
        return response


async def _event(response: web.StreamResponse, data: Mapping[str, object]) -> None:
    await response.write(f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode())


async def main() -> None:
    api = SimulatedApi(tokens_per_s=0)
    await api.start()
    print(api.port, flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
