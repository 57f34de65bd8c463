"""Requests of all instances before an API with rate limits."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from claude_orchestrator.gateway.address import ApiAddress
from claude_orchestrator.gateway.pacing.elsewhere import Elsewhere
from claude_orchestrator.gateway.pacing.gate import Lane
from claude_orchestrator.gateway.pacing.limits import Reading, Resource
from claude_orchestrator.gateway.server import Gateway
from claude_orchestrator.gateway.upstream import UpstreamClient
from tests.benchmarks.pacing import body
from tests.gateway.test_server import until
from tests.limited_api import LimitedApi
from tests.metered import Metered
from token_budget.budget_manager import TokenBudgetManager
from token_budget.models import Weights


def gateway_to(api: LimitedApi) -> Gateway:
    return Gateway(TokenBudgetManager(), Weights(), upstream=api.url)


async def ask(url: str, key: str = "k", client: int = 0) -> int:
    asking = aiohttp.request("POST", f"{url}/v1/messages", json=body(client, 0), headers={"x-api-key": key})
    async with asking as answer:
        await answer.read()
        return answer.status


@pytest.mark.slow
def test_a_fleet_is_held_back_before_the_api_refuses_it() -> None:
    async def main() -> None:
        async with LimitedApi(requests_a_minute=600, tokens_a_minute=300_000) as api, gateway_to(api) as gateway:
            clients = [gateway.open(Metered()) for _ in range(24)]
            asking = [asyncio.ensure_future(ask(one.url, client=place)) for place, one in enumerate(clients)]
            await until(lambda: gateway.is_slow)
            assert "requests wait for the API's rate limit (300,000 input tokens a minute)" in (gateway.pace() or "")
            assert sum(client.waiting for client in clients) >= 1
            assert await asyncio.gather(*asking) == [200] * 24
            assert gateway.pace() is None and not any(client.waiting for client in clients)
        assert api.refused == 0

    asyncio.run(main())


def test_the_reason_is_the_tightest_limit_or_what_the_api_has_done() -> None:
    lane = Lane(Elsewhere(None, "topic", float))
    assert lane.reason(0.0) == ""
    readings = [Reading(Resource.REQUESTS, 50, 40), Reading(Resource.INPUT, 20_000, 2_000)]
    lane.pacer.answered(lane.pacer.send({}, 0.0), readings, 0.0)
    assert lane.reason(0.0) == "20,000 input tokens a minute"
    lane.pacer.is_even = True
    assert lane.reason(0.0) == "50 requests a minute, one by one"
    lane.pacer.refused(lane.pacer.send({}, 0.0), readings, 5.0, 0.0)
    assert lane.reason(0.0) == "it has refused requests"


def test_the_time_counts_at_which_a_request_has_left() -> None:
    async def main() -> None:
        async with LimitedApi() as api, UpstreamClient() as upstream:
            came_before: list[int] = []
            asked = json.dumps(body(0, 0)).encode()
            sending = upstream.send(
                ApiAddress(api.url), "POST", "/v1/messages", {}, asked, lambda: came_before.append(api.requests)
            )
            async with sending as answer:
                assert answer.status == 200
            assert came_before == [0]

    asyncio.run(main())


def test_each_key_has_limits_of_its_own_and_who_leaves_makes_room() -> None:
    async def main() -> None:
        async with LimitedApi(requests_a_minute=2, tokens_a_minute=10**9) as api, gateway_to(api) as gateway:
            client = gateway.open(Metered())
            assert await ask(client.url, "a") == 200
            waiting = asyncio.ensure_future(ask(client.url, "a"))
            await until(lambda: client.waiting > 0)
            assert await ask(client.url, "b") == 200  # the stand-in has one limit for all keys
            assert not waiting.done()
            waiting.cancel()
            await until(lambda: client.waiting == 0)

    asyncio.run(main())
