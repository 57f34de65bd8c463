"""Requests through the gateway share the prompt cache of a stand-in API."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import aiohttp
import pytest

from claude_orchestrator.gateway.server import Gateway, GatewayOptions
from tests.limits import HUNG_S
from tests.metered import Metered
from tests.prompt_cache import CachingApi
from token_budget import TokenBudgetManager
from token_budget.models import Weights

REQUESTS = 6
FIRST_BYTE_S = 0.3


def request(number: int) -> dict[str, Any]:
    marker = {"cache_control": {"type": "ephemeral"}}
    return {
        "model": "m",
        "max_tokens": 100,
        "stream": True,
        "tools": [{"name": "t", "description": "x" * 8_000}],
        "system": [{"type": "text", "text": "You are a test.", **marker}],
        "messages": [{"role": "user", "content": f"request {number}"}],
    }


def send_all(api: CachingApi, wait_s: float, limit: int | None = None, *, known: bool = False) -> TokenBudgetManager:
    """Send all requests at once. `known`: a request with another prefix has shown the API's rate limits before."""
    manager = TokenBudgetManager(limit, "warn" if limit is None else "block")

    async def main() -> None:
        environ = {"ANTHROPIC_BASE_URL": api.url}
        async with (
            asyncio.timeout(HUNG_S),
            Gateway(manager, Weights(), environ=environ, options=GatewayOptions(wait_s)) as gateway,
            aiohttp.ClientSession() as session,
        ):
            clients = [gateway.open(Metered(manager.budgets)) for _ in range(2)]

            async def send(number: int) -> None:
                url = f"{clients[number % 2].url}/v1/messages"
                own: dict[str, Any] = {} if number >= 0 else {"tools": []}
                async with session.post(url, json={**request(number), **own}, headers={"x-api-key": "k"}) as answer:
                    assert answer.status == 200 and await answer.read()

            if known:
                await send(-1)
            await asyncio.gather(*(send(number) for number in range(REQUESTS)))
            for client in clients:
                assert client.waiting == 0
                await gateway.close(client)

    asyncio.run(main())
    return manager


def test_only_one_request_writes_the_shared_prefix() -> None:
    with CachingApi(first_byte_s=FIRST_BYTE_S) as api:
        send_all(api, wait_s=20.0)
        first, *others = sorted(api.entries, key=lambda entry: entry.at)
        assert first.billed.cache_creation_input_tokens > 0
        assert {entry.billed.cache_creation_input_tokens for entry in others} == {0}
        assert all(entry.billed.cache_read_input_tokens for entry in others)
        assert min(entry.at for entry in others) >= api.begun_at[first.index]


class Simultaneous(CachingApi):
    """Responses begin when all requests have come, other than the first."""

    def __init__(self) -> None:
        super().__init__()
        self.barrier = threading.Barrier(REQUESTS)
        self.is_known = False

    def before_first_byte(self) -> None:
        if self.is_known:
            self.barrier.wait(20)
        self.is_known = True


def test_without_sharing_each_request_writes_its_own() -> None:
    with Simultaneous() as api:
        send_all(api, wait_s=0.0, known=True)
        assert all(entry.billed.cache_creation_input_tokens for entry in api.entries[1:])


@pytest.mark.parametrize("limit", [30_000, 1_000_000])
def test_requests_that_wait_keep_their_holds(limit: int) -> None:
    with CachingApi(first_byte_s=FIRST_BYTE_S) as api:
        manager = send_all(api, wait_s=20.0, limit=limit)
        assert manager.overall is not None and manager.overall.held == 0
        assert sum(api.cache.writes.values()) == 1
