"""The gateway's memory for each instance, whose conversation grows to a context of 0.9 MB in 24 requests.

    python -m tests.benchmarks.gateway_memory

Eight instances, one after the other, in one gateway process in block mode. Each has a conversation and a side call
with another model, as Claude Code does.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import aiohttp

from claude_orchestrator.gateway.server import Gateway
from tests.benchmarks.gateway import resident_mib
from tests.benchmarks.hard_cap import Counted
from tests.metered import Metered
from token_budget.budget_manager import TokenBudgetManager
from token_budget.models import Weights

INSTANCES, REQUESTS, CONTEXT_BYTES = 8, 24, 900_000


async def gateway_process(port: int) -> None:
    """Print the gateway's addresses; ends with its standard input."""
    manager = TokenBudgetManager(10**12, "block")
    async with Gateway(manager, Weights(), environ={"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{port}"}) as gateway:
        attempt = Metered(manager.budgets, on_usage=Counted(manager).take)
        print(json.dumps([gateway.open(attempt).url for _ in range(INSTANCES)]), flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def converse(session: aiohttp.ClientSession, url: str) -> None:
    """A conversation that grows by a tool result with each request, and a side call for each."""
    messages: list[dict[str, str]] = []
    for number in range(REQUESTS):
        messages.append({"role": "user", "content": f"{number} " + "result " * (CONTEXT_BYTES // REQUESTS // 7)})
        for model, sent in (("large", messages), ("small", messages[-1:])):
            body = {"model": model, "max_tokens": 1_000, "messages": sent, "metadata": {"needs": 20}, "stream": True}
            async with session.post(f"{url}/v1/messages", json=body) as answer:
                assert answer.status == 200, await answer.text()
                await answer.read()


async def measure(urls: list[str], pid: int) -> list[float]:
    """The process's memory before, and after each instance."""
    async with aiohttp.ClientSession() as session:
        found = [resident_mib(pid)]
        for url in urls:
            await converse(session, url)
            found.append(resident_mib(pid))
    return found


def main() -> None:
    """Print one JSON line."""
    if sys.argv[1:2] == ["--gateway"]:
        asyncio.run(gateway_process(int(sys.argv[2])))
        return
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    api = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.simulated_api"], **pipes)  # type: ignore[call-overload]
    own = [sys.executable, "-m", "tests.benchmarks.gateway_memory", "--gateway", str(int(api.stdout.readline()))]
    gateway = subprocess.Popen(own, **pipes)  # type: ignore[call-overload]
    found = asyncio.run(measure(json.loads(gateway.stdout.readline()), gateway.pid))
    for process in (gateway, api):
        process.stdin.close()
        process.wait()
    later = (found[-1] - found[1]) / (INSTANCES - 1)  # the first also warms the process up
    mib = {"before": found[0], "after_one": found[1], "after_all": found[-1], "for_each_further_instance": later}
    print(json.dumps({"benchmark": "gateway_memory", "mib": {name: round(value, 1) for name, value in mib.items()}}))


if __name__ == "__main__":
    main()
