"""A storm of clients on an API with rate limits: without pacing, and paced by the gateway, in the same run.

    python -m tests.benchmarks.pacing [--clients 32] [--burst SECONDS]
    python -m tests.benchmarks.pacing --runs 4
    python -m tests.benchmarks.pacing --claude PATH [--rounds 4] [--times 3] [--burst SECONDS]

The stand-in allows 50 requests and 200,000 input tokens a minute, as token buckets. Each client makes four requests, of
which the first has 15,000 tokens and each later one 1,500 new ones. After a 429, clients do what Claude Code 2.1.332
does: they wait as long as `retry-after` says, or longer with each refusal, and give up after ten retries. Then they do
what the orchestrator does with such an instance: they continue after a pause that doubles. With `--claude`, the clients
are real instances, and the two storms come one after the other, several times. With `--runs`, several runs use one key:
their gateways learn of each other by the API's headers alone, or by a ledger. With `--burst`, the stand-in lets through
only as many requests at once as come back in that time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
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
from token_budget.named_tuples import NamedTuple

CLIENTS = 32
REQUESTS = 4
FIRST_BYTES, MORE_BYTES = 60_000, 6_000
RETRIES, FIRST_PAUSE_S, LONGEST_PAUSE_S = 10, 0.5, 32.0


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
    for retry in range(RETRIES + 1):
        async with session.post(f"{url}/v1/messages", json=request, headers={"x-api-key": "k"}) as answer:
            await answer.read()
            if answer.status == 200:
                return True
        pause_s = max(float(answer.headers["retry-after"]), min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**retry))
        await asyncio.sleep(pause_s * random.uniform(1, 1.25))
    return False


async def storm(api: LimitedApi, urls: list[str]) -> str:
    """All clients at once."""
    begun = time.monotonic()
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        done = await asyncio.gather(*(converse(session, url, client) for client, url in enumerate(urls)))
    return f"{figures(api, time.monotonic() - begun)}, clients gave up {sum(done)} times"


def least_s(api: LimitedApi) -> float:
    """The least time that the limits allow for what was done: what was there at the beginning is used, and the rest
    comes back at the rate of the tightest limit."""
    done, at_once = api.requests - api.refused, max(1, round(api.requests_a_minute * api.burst_s / 60))
    return max(
        (done - at_once) * api.burst_s / at_once,
        (done - api.requests_a_minute) / api.requests_a_minute * 60,
        (api.billed_tokens - api.tokens_a_minute) / api.tokens_a_minute * 60,
    )


def figures(api: LimitedApi, seconds: float) -> str:
    """Time and refusals, beside the least time."""
    share = api.refused / api.requests
    return (
        f"{seconds:6.1f} s (at best {least_s(api):.1f}), {api.refused} of {api.requests} requests refused ({share:.1%})"
    )


async def direct(clients: int, burst_s: float) -> str:
    """Without pacing."""
    async with LimitedApi(burst_s=burst_s) as api:
        return await storm(api, [api.url] * clients)


async def paced(clients: int, burst_s: float) -> str:
    """By way of the gateway."""
    async with (
        LimitedApi(burst_s=burst_s) as api,
        Gateway(TokenBudgetManager(), Weights(), upstream=api.url) as gateway,
    ):
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


class Storm(NamedTuple):
    """What real instances did, and the load average of the machine before it."""

    seconds: float
    least_s: float
    first_s: float
    refused: int
    requests: int
    again: int
    code: int | None
    load: float

    def __str__(self) -> str:
        share = f"{self.refused} of {self.requests} requests refused ({self.refused / self.requests:.1%})"
        ended = f"{self.again} attempts repeated, exit code {self.code}, load {self.load:.1f}"
        took = f"{self.seconds:6.1f} s (at best {self.least_s:.1f}), first request at {self.first_s:.1f} s"
        return f"{took}, {share}, {ended}"


async def real(claude: str, clients: int, rounds: int, burst_s: float, *options: str) -> Storm:
    """Real instances, one run."""
    load = os.getloadavg()[0]
    instances = [{"name": f"client-{client}", "prompt": f"Print, client {client}."} for client in range(clients)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        entries = [{**entry, "allowed_tools": ["Bash"]} for entry in instances]
        (folder / "runs.json").write_text(json.dumps({"instances": entries}))
        async with LimitedApi(rounds=rounds, burst_s=burst_s) as api:
            words = [sys.executable, "-m", "claude_orchestrator", "--config", "runs.json", *options]
            words += ["--max-parallel", str(clients), "--retries", "10", "--claude-bin", claude, "--ledger", "off"]
            begun = time.monotonic()
            run = await asyncio.create_subprocess_exec(
                *words, "--log-level", "warning", cwd=folder, env=claude_env(folder, api.url), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            out, _ = await run.communicate()
            seconds, again = time.monotonic() - begun, out.count(b"failed, continues at")
            first_s = api.first_at - begun
            return Storm(seconds, least_s(api), first_s, api.refused, api.requests, again, run.returncode, load)


async def compare(claude: str, clients: int, rounds: int, times: int, burst_s: float) -> None:
    """Real storms: without pacing and paced, by turns; then the medians."""
    found: dict[str, list[Storm]] = {"stream": [], "api": []}
    for _ in range(times):
        for meter, storms in found.items():
            storms.append(await real(claude, clients, rounds, burst_s, "--meter", meter))
            print(f"{meter:6}: {storms[-1]}", flush=True)
    for meter, storms in found.items():
        seconds = statistics.median(one.seconds for one in storms)
        worst = max(one.refused / one.requests for one in storms)
        print(f"{meter:6}: median {seconds:.1f} s, at most {worst:.1%} refused")


async def simulated(clients: int, burst_s: float) -> None:
    """Simulated storms at once, each with a stand-in of its own: nearly all of the time they wait."""
    without, with_pacing = await asyncio.gather(direct(clients, burst_s), paced(clients, burst_s))
    print(f"without pacing: {without}\npaced:          {with_pacing}")


def main() -> None:
    """Read the options and print what they ask for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--runs", type=int)
    parser.add_argument("--burst", type=float, default=0.0)
    parser.add_argument("--claude")
    parser.add_argument("--rounds", type=int, default=REQUESTS)
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    if given.runs is not None:
        asyncio.run(several(given.clients, given.runs))
        return
    print(f"{given.clients} clients, {given.rounds} requests each, 50 requests and 200,000 input tokens a minute")
    if given.claude is None:
        asyncio.run(simulated(given.clients, given.burst))
    else:
        asyncio.run(compare(given.claude, given.clients, given.rounds, given.times, given.burst))


if __name__ == "__main__":
    main()
