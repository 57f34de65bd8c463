"""A storm of clients on an API with rate limits: without pacing, and paced by the gateway, in the same run.

    python -m tests.benchmarks.pacing [CLIENTS, 32] [CLAUDE]
    python -m tests.benchmarks.pacing CLIENTS --runs RUNS

The stand-in allows 50 requests and 200,000 input tokens a minute, as token buckets. Each client makes four requests, of
which the first has 15,000 tokens and each later one 1,500 new ones. Clients do what Claude Code does after a 429: they
wait as long as `retry-after` says, and give up after ten retries. Then they do what the orchestrator does with such an
instance: they continue after a pause that doubles. With the path of a claude, the clients are real instances, and the
two storms come one after the other. With `--runs`, several runs use one key: their gateways learn of each other by the
API's headers alone, or by a ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.ledger_sync import LedgerSync
from claude_orchestrator.engine.retries import backoff_s
from claude_orchestrator.gateway.server import Gateway, GatewayOptions
from tests.limited_api import LimitedApi
from tests.metered import Metered
from tests.stand_in import claude_env
from token_budget.budget_manager import TokenBudgetManager
from token_budget.ledger.records import RunRecord
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.models import Weights

CLIENTS = 32
REQUESTS = 4
FIRST_BYTES, MORE_BYTES = 60_000, 6_000
RETRIES = 10


def body(client: int, round: int) -> dict[str, Any]:
    """The request of a conversation that has grown so far."""
    messages = [{"role": "user", "content": "x" * FIRST_BYTES}]
    for _ in range(round):
        messages += [{"role": "assistant", "content": "y"}, {"role": "user", "content": "x" * MORE_BYTES}]
    return {
        "model": "claude-opus-4-8",
        "max_tokens": 32_000,
        "stream": True,
        "metadata": {"user_id": f"client {client}"},
        "messages": messages,
    }


async def converse(session: aiohttp.ClientSession, url: str, client: int) -> int:
    """Make all requests of a client; returns how often it gave up."""
    gave_up = 0
    for round in range(REQUESTS):
        while not await answered(session, url, body(client, round)):
            gave_up += 1
            await asyncio.sleep(backoff_s(gave_up, random.random()))
    return gave_up


async def answered(session: aiohttp.ClientSession, url: str, request: dict[str, Any]) -> bool:
    """Whether a request got an answer within its retries."""
    for _ in range(RETRIES + 1):
        async with session.post(f"{url}/v1/messages", json=request, headers={"x-api-key": "k"}) as answer:
            await answer.read()
            if answer.status == 200:
                return True
        await asyncio.sleep(float(answer.headers["retry-after"]))
    return False


async def storm(api: LimitedApi, urls: list[str]) -> str:
    """All clients at once."""
    begun = time.monotonic()
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        done = await asyncio.gather(*(converse(session, url, client) for client, url in enumerate(urls)))
    return f"{figures(api, time.monotonic() - begun)}, clients gave up {sum(done)} times"


def figures(api: LimitedApi, seconds: float) -> str:
    """Time and refusals, beside the least time that the limits allow for what was done."""
    least_s = max(
        0.0,
        (api.requests - api.refused - api.requests_a_minute) / api.requests_a_minute * 60,
        (api.billed_tokens - api.tokens_a_minute) / api.tokens_a_minute * 60,
    )
    share = api.refused / api.requests
    return f"{seconds:6.1f} s (at best {least_s:.1f}), {api.refused} of {api.requests} requests refused ({share:.1%})"


async def direct(clients: int) -> str:
    """Without pacing."""
    async with LimitedApi() as api:
        return await storm(api, [api.url] * clients)


async def paced(clients: int) -> str:
    """By way of the gateway."""
    async with LimitedApi() as api, Gateway(TokenBudgetManager(), Weights(), upstream=api.url) as gateway:
        return await storm(api, [gateway.open(Metered()).url for _ in range(clients)])


async def together(clients: int, runs: int, folder: str | None) -> str:
    """The clients of several runs, each with a gateway of its own. With a folder, they share their pace by a ledger."""
    async with contextlib.AsyncExitStack() as stack:
        api = await stack.enter_async_context(LimitedApi())
        urls = []
        for run in range(runs):
            board = None if folder is None else await board_of(Path(folder) / "ledger.db", f"run-{run}", stack)
            options = GatewayOptions(board=board)
            made = Gateway(TokenBudgetManager(), Weights(), upstream=api.url, options=options)
            gateway = await stack.enter_async_context(made)
            urls += [gateway.open(Metered()).url for _ in range(clients // runs)]
        return await storm(api, urls)


async def board_of(path: Path, run: str, stack: contextlib.AsyncExitStack) -> LedgerSync:
    """What an orchestrator has of a ledger, as one run of it."""
    sync = LedgerSync(SqliteLedger(path), RunRecord(run, "here", 0), TokenBudgetManager(), Weights(), Bus())
    await sync.begin()
    stack.push_async_callback(sync.end, 0)
    return sync


async def several(clients: int, runs: int) -> None:
    """Several runs at once, without and with a ledger."""
    with tempfile.TemporaryDirectory() as folder:
        apart, shared = await asyncio.gather(together(clients, runs, None), together(clients, runs, folder))
    print(f"{runs} runs of {clients // runs} clients, {REQUESTS} requests each")
    print(f"by headers alone: {apart}\nby the ledger:    {shared}")


async def real(claude: str, clients: int, meter: str) -> str:
    """Real instances: `stream` leaves their requests alone, `api` paces them."""
    instances = [{"name": f"client-{client}", "prompt": f"Print, client {client}."} for client in range(clients)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        entries = [{**entry, "allowed_tools": ["Bash"]} for entry in instances]
        (folder / "runs.json").write_text(json.dumps({"instances": entries}))
        async with LimitedApi(rounds=REQUESTS) as api:
            words = [sys.executable, "-m", "claude_orchestrator", "--config", "runs.json", "--meter", meter]
            words += ["--max-parallel", str(clients), "--retries", "10", "--claude-bin", claude, "--ledger", "off"]
            begun = time.monotonic()
            run = await asyncio.create_subprocess_exec(
                *words, "--log-level", "warning", cwd=folder, env=claude_env(folder, api.url), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            out, _ = await run.communicate()
            again = out.count(b"failed, continues at")
            return f"{figures(api, time.monotonic() - begun)}, {again} attempts repeated, exit code {run.returncode}"


async def main(clients: int, claude: str | None) -> None:
    """Simulated storms at once, each with a stand-in of its own: nearly all of the time they wait."""
    if claude is None:
        without, with_pacing = await asyncio.gather(direct(clients), paced(clients))
    else:
        without, with_pacing = await real(claude, clients, "stream"), await real(claude, clients, "api")
    print(f"{clients} clients, {REQUESTS} requests each, 50 requests and 200,000 input tokens a minute")
    print(f"without pacing: {without}\npaced:          {with_pacing}")


if __name__ == "__main__" and "--runs" in sys.argv:
    asyncio.run(several(int(sys.argv[1]), int(sys.argv[sys.argv.index("--runs") + 1])))
elif __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else CLIENTS, sys.argv[2] if len(sys.argv) > 2 else None))
