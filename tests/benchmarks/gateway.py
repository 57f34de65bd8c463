"""What the gateway adds to a request: latency at 200 and 1,000 requests a second, beside a direct connection in the
same run, the time to a stream's first byte, and memory over 100,000 requests.

    python -m tests.benchmarks.gateway [REQUESTS for the memory, 100000]

Three processes: the load, the gateway (metering and admitting, block mode), and the simulated API.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import aiohttp

from claude_orchestrator.gateway.server import Gateway
from tests.benchmarks.hard_cap import Counted
from tests.metered import Metered
from token_budget.budget_manager import TokenBudgetManager
from token_budget.models import Weights

SECONDS = 5.0
CLIENTS = 64
ROUNDS = 3
BODY = {
    "max_tokens": 1000,
    "messages": [{"role": "user", "content": "x" * 4000}],
    "metadata": {"needs": 20},
    "stream": True,
}


async def gateway_process(port: int) -> None:
    """Print the gateway's address; ends with its standard input."""
    manager = TokenBudgetManager(10**12, "block")
    environ = {"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{port}"}
    async with Gateway(manager, Weights(), environ=environ) as gateway:
        counted = Counted(manager)

        def take(usage: object, hold: object) -> None:
            counted.take(usage, hold)  # type: ignore[arg-type]
            if len(counted.seen) > 10_000:
                counted.seen.clear()

        for _ in range(CLIENTS - 1):  # as many may connect at once as so many instances would
            gateway.open(Metered(manager.budgets))
        place = gateway.open(Metered(manager.budgets, on_usage=take))
        print(place.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def ask(session: aiohttp.ClientSession, url: str) -> tuple[float, float]:
    """Milliseconds to the first byte and to the last."""
    begun = time.perf_counter()
    first = 0.0
    async with session.post(f"{url}/v1/messages", json=BODY) as answer:
        assert answer.status == 200, await answer.text()
        async for _ in answer.content.iter_any():
            first = first or time.perf_counter()
    return (first - begun) * 1000, (time.perf_counter() - begun) * 1000


async def load(url: str, per_second: int, seconds: float) -> tuple[list[float], list[float]]:
    """Requests at fixed moments, whether or not earlier ones have ended."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(ask(session, url) for _ in range(20)))  # connections are there
        loop, tasks = asyncio.get_running_loop(), []
        begin = loop.time()
        for number in range(int(per_second * seconds)):
            await asyncio.sleep(max(0.0, begin + number / per_second - loop.time()))
            tasks.append(asyncio.ensure_future(ask(session, url)))
        found = await asyncio.gather(*tasks)
    return [first for first, _ in found], [last for _, last in found]


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[int(len(values) * part)]


def resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


async def flood(url: str, count: int, pid: int) -> dict[int, float]:
    """The gateway's memory after a tenth, a half and all of so many requests, 32 at once."""
    memory = {}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        for part in range(10):
            left = iter(range(count // 10))

            async def worker(left: object = left) -> None:
                for _ in left:  # type: ignore[attr-defined]
                    await ask(session, url)

            await asyncio.gather(*(worker() for _ in range(32)))
            if part in (0, 4, 9):
                memory[(part + 1) * count // 10] = round(resident_mib(pid), 1)
    return memory


def main() -> None:
    """Print one JSON line."""
    if sys.argv[1:2] == ["--gateway"]:
        asyncio.run(gateway_process(int(sys.argv[2])))
        return
    count = int(sys.argv[1]) if sys.argv[1:] else 100_000
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    api = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.simulated_api"], **pipes)  # type: ignore[call-overload]
    port = int(api.stdout.readline())
    own = [sys.executable, "-m", "tests.benchmarks.gateway", "--gateway", str(port)]
    gateway = subprocess.Popen(own, **pipes)  # type: ignore[call-overload]
    urls = {"direct": f"http://127.0.0.1:{port}", "gateway": gateway.stdout.readline().strip()}
    rows: dict[int, dict[str, object]] = {}
    for per_second in (200, 1000):
        found: dict[str, list[list[float]]] = {name: [] for name in urls}
        for _ in range(ROUNDS):
            for name, url in urls.items():
                first, last = asyncio.run(load(url, per_second, SECONDS))
                parts = [percentile(first, 0.5), percentile(first, 0.99), percentile(last, 0.5), percentile(last, 0.99)]
                found[name].append(parts)
        keys = ("first_byte_p50_ms", "first_byte_p99_ms", "last_byte_p50_ms", "last_byte_p99_ms")
        medians = {
            name: dict(zip(keys, (round(statistics.median(v), 2) for v in zip(*rounds, strict=True)), strict=True))
            for name, rounds in found.items()
        }
        added = {key: round(medians["gateway"][key] - medians["direct"][key], 2) for key in keys}
        rows[per_second] = {**medians, "added": added}
    memory = asyncio.run(flood(urls["gateway"], count, gateway.pid))
    for process in (gateway, api):
        process.stdin.close()
        process.wait()
    print(json.dumps({"benchmark": "gateway", "per_second": rows, "gateway_mib_after_requests": memory}))


if __name__ == "__main__":
    main()
