"""The gateway repeats the beginning of a request, which is admitted and counted like any other one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.gateway.server import Gateway, GatewayOptions
from claude_orchestrator.gateway.sharing.kept import KeptRequest
from tests.gateway.sharing.test_gateway import request
from tests.limits import HUNG_S
from tests.metered import Metered
from tests.prompt_cache import CachingApi
from token_budget import TokenBudgetManager
from token_budget.models import Amount, Hold, Usage, Weights


class Counted(Metered):
    """An attempt that charges its budgets what it has used."""

    def __init__(self, manager: TokenBudgetManager) -> None:
        super().__init__(manager.budgets)
        self.manager, self.seen = manager, dict[str, Usage]()

    def used(self, usage: ApiUsage, hold: Hold | None) -> None:
        more = usage.usage - self.seen.get(usage.id, Usage())
        self.seen[usage.id] = usage.usage
        self.manager.record(None, Amount(more.total_tokens), "a", hold)


Step = Callable[[Gateway, KeptRequest, Counted], Coroutine[Any, Any, None]]


def with_kept(api: CachingApi, step: Step) -> TokenBudgetManager:
    """Send a request through a gateway in block mode, and then what repeats it."""
    manager = TokenBudgetManager(1_000_000, "block")

    async def main() -> None:
        environ, options = {"ANTHROPIC_BASE_URL": api.url}, GatewayOptions(10.0, keeps_cache=True)
        async with (
            asyncio.timeout(HUNG_S),
            Gateway(manager, Weights(), environ=environ, options=options) as gateway,
            aiohttp.ClientSession() as session,
        ):
            first = gateway.open(Counted(manager))
            headers = {"x-api-key": "k"}
            for agent in ({"x-claude-code-agent-id": "a1"}, {}):
                assert gateway.kept_of(first) is None
                body = request(1)
                url = f"{first.url}/v1/messages"
                async with session.post(url, json=body, headers={**headers, **agent}) as answer:
                    assert answer.status == 200 and await answer.read()
            kept = gateway.kept_of(first)
            assert kept is not None and 290 < gateway.readable_s(kept) <= 300
            await gateway.close(first)
            await step(gateway, kept, Counted(manager))

    asyncio.run(main())
    return manager


def test_it_reads_the_entry_with_the_credentials_of_the_first_one() -> None:
    async def keep(gateway: Gateway, kept: KeptRequest, attempt: Counted) -> None:
        place = gateway.open(attempt)
        assert await gateway.keep(place, kept) == 200
        await gateway.close(place)

    with CachingApi() as api:
        seen: list[dict[str, Any]] = []
        api.on_request = seen.append
        manager = with_kept(api, keep)
        first, _, repeated = api.entries
        assert repeated.billed.cache_creation_input_tokens == 0 and repeated.billed.output_tokens == 1
        assert repeated.billed.cache_read_input_tokens == first.billed.cache_creation_input_tokens
        assert seen[-1]["max_tokens"] == 1
        assert manager.overall is not None and manager.overall.used == api.billed().total_tokens
        assert manager.overall.held == 0


def test_a_budget_that_cannot_pay_for_it_refuses_it() -> None:
    async def keep(gateway: Gateway, kept: KeptRequest, attempt: Counted) -> None:
        overall = attempt.manager.overall
        assert overall is not None
        overall.limit = overall.used + 100
        place = gateway.open(attempt)
        assert await gateway.keep(place, kept) == 400
        assert [refusal.budget for refusal in attempt.refusals] == [overall]

    with CachingApi() as api:
        manager = with_kept(api, keep)
        assert len(api.entries) == 2
        assert manager.overall is not None and manager.overall.used == api.billed().total_tokens


def test_an_api_that_is_gone_gives_no_answer() -> None:
    async def keep(gateway: Gateway, kept: KeptRequest, attempt: Counted) -> None:
        place = gateway.open(attempt)
        await gateway.close(place)
        assert await gateway.keep(place, kept) == 404  # no such place any more
        assert await gateway.keep(place, kept._replace(path="")) == 404

    with CachingApi() as api:
        with_kept(api, keep)
