"""How far a run with subagents passes its limit when the streams are the count.

    CLAUDE_BIN=claude python -m tests.benchmarks.stream_stop [ROUNDS] [PRODUCT ...]

Four instances of the real claude each have a subagent at work, whose responses no stream shows. The API on loopback
bills 20,000 tokens when a response begins. `over_percent` is what was billed beyond the limit. `begun_after` are the
responses that began once the limit was passed, and `last_ms` is how long after it the last of them began. The response
that passes the limit is known only when it ends, `RESPONSE_S` later. Each PRODUCT is a folder that has the package, to
compare two versions in one run, or options such as `--stop-margin=5%`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.stand_in import claude_env

INSTANCES, LIMIT, BILLED, RESPONSE_S = 4, 1_000_000, 20_000, 0.5
BEGIN, WORK = "BEGIN-A-SUBAGENT", "WORK-AS-A-SUBAGENT"


@dataclass
class Api:
    """Answers each conversation with another tool call, and notes when responses begin."""

    begun: list[float] = field(default_factory=list)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request of claude's, which may leave before the end."""
        with contextlib.suppress(ConnectionError):
            return await self._answer(request)
        return web.Response()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method != "POST" or not request.path.endswith("/v1/messages"):
            return web.json_response({"input_tokens": 1000})
        data = await request.json()
        self.begun.append(time.monotonic())
        number, (name, given) = len(self.begun), _call(data)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        usage = {"input_tokens": BILLED, "output_tokens": 1}
        message = {"id": f"m{number}", "type": "message", "role": "assistant", "model": data["model"], "content": []}
        await _event(response, type="message_start", message={**message, "stop_reason": None, "usage": usage})
        await asyncio.sleep(RESPONSE_S)
        block = {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": {}}
        await _event(response, type="content_block_start", index=0, content_block=block)
        piece = {"type": "input_json_delta", "partial_json": json.dumps(given)}
        await _event(response, type="content_block_delta", index=0, delta=piece)
        await _event(response, type="content_block_stop", index=0)
        await _event(response, type="message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 20})
        await _event(response, type="message_stop")
        await response.write_eof()
        return response


def _call(request: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """The tool that the model calls: an agent at first, then shell commands."""
    first = json.dumps(request["messages"][0])
    if BEGIN in first and WORK not in first and len(request["messages"]) < 3:
        agent = {"description": "work", "prompt": WORK, "subagent_type": "general-purpose"}
        return "Agent", agent
    return "Bash", {"command": "true", "description": "nothing"}


async def _event(response: web.StreamResponse, **data: object) -> None:
    await response.write(f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode())


async def one(claude: str, product: str, options: Sequence[str]) -> tuple[float, int, float]:
    """Percent over the limit, responses that began after it, and when the last of them began, in ms."""
    api = Api()
    runner = web.ServerRunner(web.Server(api.answer, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        instances = [
            {"name": f"i{n}", "command": BEGIN, "permission_mode": "bypassPermissions"} for n in range(INSTANCES)
        ]
        (folder / "runs.json").write_text(json.dumps({"instances": instances, "budget": {"overall_budget": LIMIT}}))
        argv = ["-m", "claude_orchestrator", "--config", str(folder / "runs.json"), "--claude-bin", claude]
        argv += ["--output-dir", str(folder / "out"), "--ledger", "off", "--quiet", "--meter", "stream"]
        argv += ["--budget-enforcement-mode", "block", *options]
        env = {**claude_env(folder, f"http://127.0.0.1:{port}"), "PYTHONPATH": product}
        quiet = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(
            sys.executable, *argv, env=env, cwd=folder, stdin=quiet, stdout=quiet, stderr=quiet
        )
        await process.wait()
    await runner.cleanup()
    passing = LIMIT // BILLED
    after = [begun - api.begun[passing] for begun in api.begun[passing + 1 :]]
    over = max(0, len(api.begun) * BILLED - LIMIT) / LIMIT * 100
    if len(api.begun) < passing:
        print(f"stopped at {len(api.begun) * BILLED:,}", file=sys.stderr)
    return over, len(after), max(after, default=0.0) * 1000


def main() -> None:
    """Print one JSON line for each product and option."""
    rounds, *variants = sys.argv[1:] or ["5"]
    results: dict[str, list[tuple[float, int, float]]] = {}
    for _ in range(int(rounds)):
        for variant in variants or ["."]:
            product, *options = variant.split()
            done = asyncio.run(one(os.environ["CLAUDE_BIN"], str(Path(product).resolve()), options))
            results.setdefault(variant, []).append(done)
    for variant, rows in results.items():
        over, begun, last_ms = zip(*rows, strict=True)
        figures = {
            "over_percent": [round(one, 1) for one in sorted(over)],
            "begun_after": list(begun),
            "last_ms": [round(one) for one in sorted(last_ms)],
            "median_over": round(statistics.median(over), 1),
        }
        print(json.dumps({"benchmark": "stream_stop", "product": variant, **figures}))


if __name__ == "__main__":
    main()
