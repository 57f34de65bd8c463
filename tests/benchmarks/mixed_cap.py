"""The hard cap where everything that changes a bill is mixed in, in tokens, in tokens by price, and in money.

    python -m tests.benchmarks.mixed_cap [--litellm PATH]

Requests ask at random for fast mode, inference in the US, a cache for an hour, web searches, fallback models, an
advisor, and compaction; answers have iterations. What has no bound or no room is refused, and the client asks again
without it. The simulated API keeps books of its own, by the price list in tests/engine/test_billing_real.py.

With the program `litellm` of LiteLLM's proxy, which is installed apart (`pip install 'litellm[proxy]'`), the same
clients also go through its budget for a deployment, without the features, beside the hard cap and a direct connection.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.claude.tally import UsageTally
from claude_orchestrator.engine.run_inputs import price_with
from claude_orchestrator.engine.usage_delta import AttemptCosts
from claude_orchestrator.gateway.server import Gateway
from tests.engine.test_billing_real import FAST, PER_TOKEN
from tests.metered import Metered
from token_budget.budget_manager import TokenBudgetManager
from token_budget.model_weights import TokenWeights
from token_budget.models import Hold, Scope, Unit, Usage, Weights
from token_budget.pricing import Prices, billing_weights

MODELS = ("claude-opus-5-5", "claude-haiku-4-5", "claude-sonnet-5")
MAX_TOKENS = 32_000
MEDIAN, SIGMA = 800, 1.2
TOKENS_PER_S = 40_000
NANO = 10**9
FEATURES: tuple[dict[str, Any], ...] = (
    {"speed": "fast"},
    {"inference_geo": "us"},
    {"inference_geo": "global"},
    {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 1}]},
)
UNBOUNDED: tuple[dict[str, Any], ...] = (
    {"fallbacks": [{"model": "claude-sonnet-5"}]},
    {"tools": [{"type": "advisor_20260301", "name": "advisor", "model": "claude-opus-5-5"}]},
    {"context_management": {"edits": [{"type": "compact_20260112"}]}},
)
LITELLM = """
model_list:
  - model_name: {model}
    litellm_params:
      {{model: anthropic/{model}, api_base: "{url}", api_key: dummy, max_budget: {usd}, budget_duration: 1d}}
general_settings: {{master_key: sk-local}}
"""


@dataclass
class MixedApi:
    """A Messages API with its own books: what it has billed in tokens, by price, and in nano-dollars."""

    dice: random.Random = field(default_factory=lambda: random.Random(7))
    tokens: int = 0
    by_price: float = 0.0
    nano_usd: float = 0.0
    requests: int = 0
    url: str = ""

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[MixedApi]:
        runner = web.ServerRunner(web.Server(self.answer, access_log=None))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    def book(self, data: dict[str, Any], model: str, usage: Usage, searches: int) -> None:
        first, output, short, long, read = PER_TOKEN[model]
        written = long if "1h" in json.dumps(data.get("cache_control")) else short
        counts = usage.counts
        price = float(sum(count * one for count, one in zip(counts, (first, output, written, read), strict=True)))
        price *= FAST if data.get("speed") == "fast" and "opus" in model else 1
        price *= 1.1 if data.get("inference_geo") == "us" else 1
        self.tokens += usage.total_tokens
        self.nano_usd += price + 10_000_000 * searches
        drawn = sum(count * one for count, one in zip(usage.counts, (first, output, short, read), strict=True))
        self.by_price += drawn / first

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        raw = await request.read()
        if request.path.endswith("/count_tokens"):
            return web.json_response({"input_tokens": len(raw) // 4 + 40})
        data, dice = json.loads(raw), self.dice
        self.requests += 1
        model, tokens = data["model"], len(raw) // 4
        needs = int(str(data["messages"][0]["content"]).split()[1])
        output = min(needs, data["max_tokens"])
        read, written = dice.choice(((0, 0), (tokens // 2, 0), (0, tokens), (tokens // 3, tokens // 3)))
        usage = Usage(tokens - read - written, output, written, read)
        searches = dice.choice((0, 1)) if "web_search" in json.dumps(data.get("tools") or []) else 0
        self.book(data, model, usage, searches)
        beside = self._beside(data)
        iterations = [*beside, *self._split(usage)] if beside or dice.random() < 0.3 else []
        stated = {**_stated(data, usage, searches), **({"iterations": iterations} if iterations else {})}
        stop = "max_tokens" if output < needs else "end_turn"
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        begun = {**_stated(data, usage._replace(output_tokens=1), 0), "server_tool_use": {}}
        message = {"id": f"msg_{self.requests}", "type": "message", "role": "assistant", "model": model, "content": []}
        await _event(response, {"type": "message_start", "message": {**message, "usage": begun}})
        block = {"type": "text", "text": ""}
        await _event(response, {"type": "content_block_start", "index": 0, "content_block": block})
        await asyncio.sleep(output / TOKENS_PER_S)
        delta = {"type": "text_delta", "text": "words"}
        await _event(response, {"type": "content_block_delta", "index": 0, "delta": delta})
        await _event(response, {"type": "content_block_stop", "index": 0})
        await _event(response, {"type": "message_delta", "delta": {"stop_reason": stop}, "usage": stated})
        await _event(response, {"type": "message_stop"})
        await response.write_eof()
        return response

    def _beside(self, data: dict[str, Any]) -> list[dict[str, Any]]:
        """What is billed beside the answer, if somebody has let such a request through."""
        found, text = [], json.dumps([data.get("tools"), data.get("context_management")])
        if "advisor_" in text:
            found.append(("advisor_message", "claude-opus-5-5", Usage(700, 90, 0, 100)))
        if "compact_" in text:
            found.append(("compaction", data["model"], Usage(18_000, 350, 0, 1_000)))
        for _, model, usage in found:
            self.book({}, model, usage, 0)
        return [{"type": kind, "model": model, **usage._asdict()} for kind, model, usage in found]

    def _split(self, usage: Usage) -> list[dict[str, Any]]:
        """The answer in two iterations, whose sum is the top level."""
        first = Usage(*(count // 2 for count in usage))
        return [{"type": "message", **part._asdict()} for part in (first, usage - first)]


def _stated(data: dict[str, Any], usage: Usage, searches: int) -> dict[str, Any]:
    written, for_1h = usage.cache_creation_input_tokens, "1h" in json.dumps(data.get("cache_control"))
    return {
        **usage._asdict(),
        "cache_creation": {
            "ephemeral_1h_input_tokens": written * for_1h,
            "ephemeral_5m_input_tokens": written * (not for_1h),
        },
        "server_tool_use": {"web_search_requests": searches},
        "speed": data.get("speed", "standard") if "opus" in data["model"] else "standard",
        "inference_geo": data.get("inference_geo", "global"),
    }


async def _event(response: web.StreamResponse, data: dict[str, Any]) -> None:
    await response.write(f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode())


@dataclass
class Charging(Metered):
    """An attempt that charges the budgets as a run does."""

    manager: TokenBudgetManager = field(default_factory=TokenBudgetManager)
    weights: TokenWeights = field(default_factory=Weights)

    def __post_init__(self) -> None:
        self.tally = UsageTally(metered=True)
        self.costs = AttemptCosts(self.tally)

    def used(self, usage: ApiUsage, hold: Hold | None) -> None:
        self.tally.feed(usage)
        if self.price is not None:
            self.costs.price(self.price, usage)
        delta = self.costs.take_delta(self.weights)
        if delta is not None:
            self.manager.record(None, delta.amount, None, hold)


@dataclass
class Load:
    """What the clients saw."""

    unbounded: int = 0
    first_ms: list[float] = field(default_factory=list)


async def client(number: int, url: str, session: aiohttp.ClientSession, load: Load, *, mixed: bool) -> None:
    """Ask until the budget refuses."""
    dice = random.Random(number)
    while True:
        needs = max(1, int(dice.lognormvariate(0, SIGMA) * MEDIAN))
        data: dict[str, Any] = {
            "model": dice.choice(MODELS) if mixed else MODELS[0],
            "max_tokens": MAX_TOKENS,
            "stream": True,
            "messages": [{"role": "user", "content": f"needs {needs} tokens {number} " + "x" * 1_600}],
        }
        plain = dict(data)
        if mixed and dice.random() < 0.6:
            data |= dice.choice(FEATURES)
        if mixed and dice.random() < 0.3:
            data |= {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
        if mixed and dice.random() < 0.1:
            data |= dice.choice(UNBOUNDED)
        status, text = await ask(session, url, data, load)
        if status == 400 and data != plain:
            load.unbounded += "cannot bound" in text
            status, text = await ask(session, url, plain, load)
        if status != 200:
            return


async def ask(session: aiohttp.ClientSession, url: str, data: dict[str, Any], load: Load) -> tuple[int, str]:
    """The status and the text of an answer."""
    begun = time.perf_counter()
    headers = {"x-api-key": "sk-local", "anthropic-version": "2023-06-01"}
    async with session.post(f"{url}/v1/messages", json=data, headers=headers) as answer:
        first = None
        pieces = []
        async for piece in answer.content.iter_any():
            first = first or time.perf_counter()
            pieces.append(piece)
        if answer.status == 200:
            load.first_ms.append(((first or begun) - begun) * 1000)
        return answer.status, b"".join(pieces).decode()


async def drive(urls: list[str], load: Load, *, mixed: bool) -> float:
    """All clients at once; returns the seconds that they took."""
    begun = time.perf_counter()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
        await asyncio.gather(*(client(n, url, session, load, mixed=mixed) for n, url in enumerate(urls)))
    return time.perf_counter() - begun


async def capped(clients: int, unit: Unit, limit: int, weights: TokenWeights, *, mixed: bool) -> dict[str, object]:
    """The hard cap with one limit."""
    manager, load = TokenBudgetManager(None, "block"), Load()
    manager.set_budget(Scope.OVERALL, limit, unit=unit)
    price = price_with(Prices(), lambda warning: None)
    api = MixedApi()
    async with api.serve(), Gateway(manager, weights, upstream=api.url) as gateway:
        attempts = [Charging(manager.budgets, {}, price, manager=manager, weights=weights) for _ in range(clients)]
        seconds = await drive([gateway.open(one).url for one in attempts], load, mixed=mixed)
    billed = api.nano_usd if unit is Unit.USD else api.tokens if isinstance(weights, Weights) else api.by_price
    return row("hard cap", clients, limit, billed, api, load, seconds)


def row(
    way: str, clients: int, limit: int, billed: float, api: MixedApi, load: Load, seconds: float
) -> dict[str, object]:
    """A line of the result."""
    load.first_ms.sort()
    return {
        "way": way,
        "clients": clients,
        "limit": limit,
        "beyond": max(0, round(billed) - limit),
        "used_percent": round(billed / limit * 100, 2),
        "requests": api.requests,
        "refused_without_bound": load.unbounded,
        "first_byte_p50_ms": round(statistics.median(load.first_ms), 1),
        "seconds": round(seconds, 1),
    }


async def litellm(program: str, clients: int, limit_nano: int) -> dict[str, object]:
    """LiteLLM's proxy with a budget for its one deployment."""
    api, load = MixedApi(), Load()
    async with api.serve(), proxy(program, api.url, limit_nano) as url:
        seconds = await drive([url] * clients, load, mixed=False)
        return row("LiteLLM", clients, limit_nano, api.nano_usd, api, load, seconds)


@contextlib.asynccontextmanager
async def proxy(program: str, url: str, limit_nano: int) -> AsyncIterator[str]:
    """LiteLLM's proxy, ready."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(LITELLM.format(model=MODELS[0], url=url, usd=limit_nano / NANO))
        env = {"PATH": f"{Path(program).parent}:/usr/bin:/bin", "HOME": folder, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        words = [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
        nothing = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(*words, env=env, stdout=nothing, stderr=nothing)
        try:
            async with aiohttp.ClientSession() as session:
                for _ in range(240):
                    with contextlib.suppress(aiohttp.ClientError):
                        async with session.get(f"http://127.0.0.1:{port}/health/liveliness") as answer:
                            if answer.status == 200:
                                break
                    await asyncio.sleep(0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            await process.wait()


async def latency(program: str, requests: int = 200) -> None:
    """The time to the first byte of one request after the other: direct, by the hard cap, and by LiteLLM."""
    api = MixedApi()
    manager = TokenBudgetManager(None, "block")
    manager.set_budget(Scope.OVERALL, 10**15, unit=Unit.USD)
    attempt = Charging(manager.budgets, {}, price_with(Prices(), lambda warning: None), manager=manager)
    data = {"model": MODELS[0], "max_tokens": 100, "stream": True}
    data |= {"messages": [{"role": "user", "content": "needs 1 token " + "x" * 1_600}]}
    async with (
        api.serve(),
        Gateway(manager, Weights(), upstream=api.url) as gateway,
        proxy(program, api.url, 10**15) as other,
        aiohttp.ClientSession() as session,
    ):
        ways = {"direct": api.url, "hard cap": gateway.open(attempt).url, "LiteLLM": other}
        loads = {way: Load() for way in ways}
        for _ in range(requests):
            for way, url in ways.items():
                status, text = await ask(session, url, data, loads[way])
                assert status == 200, text
    direct = statistics.median(loads["direct"].first_ms)
    for way, load in loads.items():
        load.first_ms.sort()
        p50, p99 = statistics.median(load.first_ms), load.first_ms[int(requests * 0.99)]
        print(
            json.dumps(
                {"way": way, "first_byte_ms": round(p50, 2), "p99": round(p99, 2), "added": round(p50 - direct, 2)}
            )
        )


async def main() -> None:
    """Print a JSON line for each run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--litellm")
    options = parser.parse_args()
    for clients in (1, 16, 64):
        for name, unit, limit, weights in (
            ("tokens", Unit.TOKENS, 400_000, Weights()),
            ("tokens by price", Unit.TOKENS, 1_500_000, billing_weights()),
            ("money", Unit.USD, 5 * NANO, Weights()),
        ):
            found = await capped(clients, unit, limit, weights, mixed=True)
            print(json.dumps({"mixed": name, **found}), flush=True)
    if options.litellm:
        for clients in (1, 16, 64):
            for limit in (1 * NANO, 5 * NANO):
                print(json.dumps(await capped(clients, Unit.USD, limit, Weights(), mixed=False)), flush=True)
                print(json.dumps(await litellm(options.litellm, clients, limit)), flush=True)
        await latency(options.litellm)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
