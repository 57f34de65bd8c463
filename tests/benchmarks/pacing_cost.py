"""What pacing costs a request: without a ledger, with one that nobody else uses, and with another run on the same key.

    python -m tests.benchmarks.pacing_cost [REQUESTS, 1000]

The limits have room for all requests, so none waits. CPU is that of the whole process, with the ledger's threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from pathlib import Path

from claude_orchestrator.gateway.address import ApiAddress
from claude_orchestrator.gateway.board import Board
from claude_orchestrator.gateway.client import Client
from claude_orchestrator.gateway.pacing.gate import Gate
from tests.benchmarks.pacing import board_of
from tests.metered import Metered

ROOM = {
    f"anthropic-ratelimit-{name}-{what}": str(count)
    for name, limit in (("requests", 10**7), ("input-tokens", 10**9), ("output-tokens", 10**9))
    for what, count in (("limit", limit), ("remaining", limit - 1))
}
FIRST = 50  # requests before the figures


async def send(gates: list[Gate], client: Client, count: int) -> None:
    """Requests by turns of several runs."""
    for number in range(count):
        turn = await gates[number % len(gates)].turn(client, {"x-api-key": "k"}, "/v1/messages", b'{"model":"m"}')
        turn.answered(200, ROOM)
        turn.close()


async def cost(name: str, boards: list[Board | None], count: int) -> None:
    """Print the CPU and the time of a request."""
    gates = [Gate(board=board) for board in boards]
    client = Client.with_secret(1, ApiAddress.of({}), Metered())
    await send(gates, client, FIRST)
    cpu, wall = time.process_time(), time.perf_counter()
    await send(gates, client, count)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"{name:30} CPU {cpu / count * 1e6:6.0f} µs, {wall / count * 1e6:6.0f} µs in all")


async def main(count: int) -> None:
    """Print all figures."""
    with tempfile.TemporaryDirectory() as folder:
        async with contextlib.AsyncExitStack() as stack:
            one, two = [await board_of(Path(folder) / "ledger.db", name, stack) for name in ("one", "two")]
            for _ in range(2):
                await cost("without a ledger", [None], count)
                await cost("alone with a ledger", [one], count)
            await cost("by turns with another run", [one, two], count)
            await cost("the same, with more posts", [one, two], 2 * count)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000))
