"""One hard cap over the gateways of four nodes, with wires that take time, with a simulated API that bills."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import aiohttp
import pytest

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.gateway.nodes.messages import MeterBegin, NodePace
from claude_orchestrator.gateway.pacing.waiting import WaitingRequests
from claude_orchestrator.gateway.sender import Sender
from claude_orchestrator.gateway.unanswered import ChargeUnanswered
from claude_orchestrator.launch.simulated import Refused, Response
from tests.benchmarks.hard_cap import Counted, Outcome, client
from tests.benchmarks.simulated_api import SimulatedApi
from tests.gateway.nodes.wires import Sites, sites
from tests.gateway.test_server import until
from tests.limits import HUNG_S
from tests.metered import Metered
from token_budget.budget_manager import TokenBudgetManager
from token_budget.models import Amount, Budget, Hold, Scope, Unit, Usage, Weights
from token_budget.text import NANO

pytestmark = pytest.mark.processes  # servers and clients


def begin(manager: TokenBudgetManager, **more: Any) -> MeterBegin:
    return MeterBegin(manager.enforcement_mode == "block", Weights(), **more)


async def ask(session: aiohttp.ClientSession, url: str, **body: object) -> tuple[int, str]:
    """A request; returns the status and what came."""
    message = {"max_tokens": 1000, "messages": [{"role": "user", "content": "x"}], "metadata": {"needs": 10}, **body}
    async with session.post(f"{url}/v1/messages", json=message) as answer:
        return answer.status, await answer.text()


def keep(used: list[int], usage: ApiUsage, hold: Hold | None) -> None:
    used.append(usage.usage.total_tokens)


@pytest.mark.parametrize("own", [{}, {"ANTHROPIC_BASE_URL": "http://127.0.0.1:1"}, {"CLAUDE_CODE_USE_BEDROCK": "1"}])
def test_a_rehearsal_never_leaves_its_node_and_the_driver_decides(own: Mapping[str, str]) -> None:
    async def work() -> None:
        manager, used = TokenBudgetManager(1000, "block"), list[int]()
        response = Response("msg_1", 10, 20, 30, 40, 0.01)
        async with sites(2, manager, begin(manager, rehearses=True), own) as found:
            for number in (0, 1):
                attempt = Metered(manager.budgets, on_usage=partial(keep, used), environ=own)
                place = found.driver.open(attempt, f"{number}/one")
                await asyncio.sleep(0.05)
                ask = found.nodes[number].meter.ask
                assert ask is not None
                events = [event async for event in ask(dict(place.env)["ANTHROPIC_BASE_URL"], response)]
                assert events[-1]["usage"]["output_tokens"] == 40
                with pytest.raises(Refused, match="the overall budget"):
                    _ = [event async for event in ask(place.client.url, replace(response, input_tokens=9999))]
                await found.driver.close(place)
            assert max(used) == 100 and not manager.budgets[0].held

    asyncio.run(work())


class Unlimited(Metered):
    """Its instance has budgets that limit none of its requests: those of subagents, or in money without prices."""

    async def budgets_of(self, sender: Sender) -> tuple[Budget, ...]:
        return ()


def test_a_request_that_no_budget_of_its_instance_limits_counts_exactly() -> None:
    async def work() -> None:
        manager, used = TokenBudgetManager(1000, "block"), list[ApiUsage]()
        response = Response("msg_1", 10, 20, 30, 40, 0.01)
        async with sites(1, manager, begin(manager, rehearses=True), {}) as found:
            attempt = Unlimited(manager.budgets, on_usage=lambda usage, hold: used.append(usage))
            place = found.driver.open(attempt, "0/one")
            await asyncio.sleep(0.05)
            ask = found.nodes[0].meter.ask
            assert ask is not None
            _ = [event async for event in ask(dict(place.env)["ANTHROPIC_BASE_URL"], response)]
            await found.driver.close(place)
        assert used[-1].usage.total_tokens == 100
        assert {usage.id for usage in used} == {used[-1].id} and used[-1].exact

    asyncio.run(work())


async def api_started() -> tuple[SimulatedApi, Mapping[str, str]]:
    api = SimulatedApi()
    await api.start()
    return api, {"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{api.port}"}


async def api_ended(api: SimulatedApi) -> None:
    assert api.runner is not None
    await api.runner.cleanup()


@pytest.mark.parametrize(
    ("clients", "limit", "lose"),
    [
        pytest.param(64, 500_000, False, marks=pytest.mark.slow),
        pytest.param(64, 500_000, True, marks=pytest.mark.slow),
        (16, 60_000, False),
    ],
)
def test_no_token_is_billed_beyond_the_limit_and_nearly_all_can_be_used(clients: int, limit: int, lose: bool) -> None:
    """With `lose`, two nodes are cut off in the middle. What they had sent goes on being billed."""

    async def work() -> None:
        api, environ = await api_started()
        manager = TokenBudgetManager(limit, "block")
        outcome = Outcome(0, 0.0, 0, 0, 0, 0.0)
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            sites(4, manager, begin(manager), environ) as found,
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session,
        ):
            attempts = [Metered(manager.budgets, on_usage=Counted(manager).take) for _ in range(clients)]
            places = [found.driver.open(attempt, f"{n % 4}/i{n}") for n, attempt in enumerate(attempts)]
            await asyncio.sleep(0.1)  # until the gateways know them
            rounds = max(2, 4 * limit // (clients * 1800))
            tasks = [
                asyncio.ensure_future(client(n, place.client.url, session, outcome, rounds))
                for n, place in enumerate(places)
            ]
            if lose:
                await lose_nodes(found, tasks, api)
            await asyncio.gather(*tasks, return_exceptions=True)
            for place in places:
                await found.driver.close(place)
        assert api.billed <= limit
        assert manager.budgets[0].held == 0 and manager.budgets[0].used >= api.billed
        if not lose:
            assert manager.budgets[0].used == api.billed
            assert api.billed >= 0.95 * limit
        await api_ended(api)

    asyncio.run(asyncio.wait_for(work(), HUNG_S))


async def lose_nodes(found: Sites, tasks: list[asyncio.Task[None]], api: SimulatedApi) -> None:
    await until(lambda: api.requests >= 100)
    for node in found.nodes[:2]:
        node.cut()
    await asyncio.sleep(0.3)  # what they had sent ends meanwhile
    for number, task in enumerate(tasks):
        if number % 4 < 2:
            task.cancel()
    await asyncio.sleep(0.2)
    for node in found.nodes[:2]:
        found.driver.lost(node.number)


def test_a_refusal_names_the_budget_and_is_told_to_the_attempt() -> None:
    async def work() -> None:
        api, environ = await api_started()
        manager = TokenBudgetManager(300, "block")
        attempt = Metered(manager.budgets)
        async with sites(1, manager, begin(manager), environ) as found, aiohttp.ClientSession() as session:
            place = found.driver.open(attempt, "0/one")
            await asyncio.sleep(0.05)
            status, text = await ask(session, place.client.url)
            assert status == 400 and "overall budget" in text and json.loads(text)["error"]["type"] == "billing_error"
            assert len(attempt.refusals) == 1 and api.requests == 0
            assert (await ask(session, place.client.url.replace("127.0.0.1", "localhost") + "x"))[0] == 404
            await found.driver.close(place)
            assert (await ask(session, place.client.url))[0] == 404
        await api_ended(api)

    asyncio.run(asyncio.wait_for(work(), HUNG_S))


def test_without_budgets_the_use_is_counted_and_a_watched_request_is_recorded() -> None:
    async def work() -> None:
        api, environ = await api_started()
        for unanswered in (None, ChargeUnanswered.BOUND):
            manager = TokenBudgetManager(enforcement_mode="warn")
            used: list[int] = []
            attempt = Metered(manager.budgets, on_usage=partial(keep, used))
            async with (
                sites(1, manager, begin(manager, unanswered=unanswered), environ) as found,
                aiohttp.ClientSession() as session,
            ):
                place = found.driver.open(attempt, "0/one")
                await asyncio.sleep(0.05)
                before = api.billed
                assert (await ask(session, place.client.url))[0] == 200
                await found.driver.close(place)
                assert used[-1] == api.billed - before and place.waiting == 0
                assert len(attempt.timings) == 1
        await api_ended(api)

    asyncio.run(asyncio.wait_for(work(), HUNG_S))


def test_a_lost_node_makes_the_count_inexact_even_if_nothing_is_known_to_be_on_its_way() -> None:
    async def work() -> None:
        manager = TokenBudgetManager(enforcement_mode="warn")
        used: list[ApiUsage] = []
        attempt = Metered(manager.budgets, on_usage=lambda usage, hold: used.append(usage))
        async with sites(1, manager, begin(manager), {}) as found:
            place = found.driver.open(attempt, "0/one")
            found.driver.lost(found.nodes[0].number)
            await found.driver.close(place)
        assert [(usage.usage.total_tokens, usage.exact) for usage in used] == [(0, False)]

    asyncio.run(asyncio.wait_for(work(), HUNG_S))


def test_requests_that_wait_for_rate_limits_count_over_all_nodes() -> None:
    async def work() -> None:
        manager = TokenBudgetManager(enforcement_mode="warn")
        async with sites(2, manager, begin(manager), {}) as found:
            first, second = (node.number for node in found.nodes)
            found.driver.take(first, NodePace(False, WaitingRequests(1, "")))
            found.driver.take(second, NodePace(True, WaitingRequests(3, "50 requests a minute")))
            assert found.driver.is_slow
            assert found.driver.pace() == "4 requests wait for the API's rate limit (50 requests a minute)"
            found.driver.lost(second)
            assert not found.driver.is_slow and found.driver.pace() == "1 request waits for the API's rate limit"

    asyncio.run(asyncio.wait_for(work(), HUNG_S))


def test_a_request_that_is_given_up_while_it_waits_leaves_no_hold() -> None:
    async def work() -> None:
        api, environ = await api_started()
        manager = TokenBudgetManager(5_000, "block")
        attempt = Metered(manager.budgets, on_usage=Counted(manager).take)
        async with sites(2, manager, begin(manager), environ) as found, aiohttp.ClientSession() as session:
            places = [found.driver.open(attempt, f"{n}/i") for n in range(2)]
            await asyncio.sleep(0.05)
            hold = manager.hold(manager.budgets, Amount(4_000))
            waiting = asyncio.ensure_future(ask(session, places[0].client.url, max_tokens=4_000))
            await until(lambda: places[0].waiting > 0)
            waiting.cancel()
            await until(lambda: not places[0].waiting)
            manager.release(hold)
            found.driver.recheck()
            assert (await ask(session, places[1].client.url))[0] == 200
            for place in places:
                await found.driver.close(place)
        assert manager.budgets[0].held == 0 and manager.budgets[0].used == api.billed
        assert not found.driver.is_slow and found.driver.pace() is None
        await api_ended(api)

    asyncio.run(asyncio.wait_for(work(), HUNG_S))


def test_a_budget_in_money_holds_over_nodes_too() -> None:
    """A token costs a thousandth of a dollar."""

    async def work() -> None:
        api, environ = await api_started()
        manager = TokenBudgetManager(enforcement_mode="block")
        manager.set_budget(Scope.OVERALL, 5 * NANO, unit=Unit.USD)

        def price(model: str, usage: Usage, context: int) -> int:
            return usage.total_tokens * NANO // 1000

        spent: dict[str, int] = {}

        def take(usage: Any, hold: Any) -> None:
            tokens = usage.usage.total_tokens - spent.get(usage.id, 0)
            spent[usage.id] = usage.usage.total_tokens
            manager.record(None, Amount(tokens, tokens * NANO // 1000), None, hold)

        attempt = Metered(manager.budgets, price=price, on_usage=take)
        async with sites(2, manager, begin(manager), environ) as found, aiohttp.ClientSession() as session:
            places = [found.driver.open(attempt, f"{n}/i") for n in range(2)]
            await asyncio.sleep(0.05)
            for turn in range(200):
                status, _ = await ask(session, places[turn % 2].client.url, model="claude-x", metadata={"needs": 300})
                if status != 200:
                    break
            assert status == 400 and api.requests > 3
            for place in places:
                await found.driver.close(place)
        assert api.billed <= 5_000 and len(attempt.refusals) == 1
        await api_ended(api)

    asyncio.run(asyncio.wait_for(work(), HUNG_S))
