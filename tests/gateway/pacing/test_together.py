"""Two runs with one key and one ledger before an API with rate limits."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

from claude_orchestrator.engine.ledger_sync import LedgerSync
from claude_orchestrator.gateway.server import Gateway, GatewayOptions
from tests.benchmarks.pacing import board_of
from tests.gateway.pacing.test_gate import ask
from tests.gateway.test_server import until
from tests.limited_api import LimitedApi
from tests.metered import Metered
from token_budget.budget_manager import TokenBudgetManager
from token_budget.models import Weights


def test_a_second_run_sends_nothing_that_the_first_has_left_no_room_for(tmp_path: Path) -> None:
    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            api = await stack.enter_async_context(LimitedApi(requests_a_minute=3, tokens_a_minute=10**9))
            clients = []
            for name in ("one", "two"):
                board = await board_of(tmp_path / "ledger.db", name, stack)
                options = GatewayOptions(board=board)
                made = Gateway(TokenBudgetManager(), Weights(), upstream=api.url, options=options)
                clients.append((await stack.enter_async_context(made)).open(Metered()))
            first, second = clients
            assert await ask(first.url) == 200 and await ask(first.url) == 200
            waiting = asyncio.ensure_future(ask(second.url))
            await until(lambda: second.waiting > 0)
            await asyncio.sleep(0.2)
            assert not waiting.done() and (api.requests, api.refused) == (2, 0)
            waiting.cancel()

    asyncio.run(main())


def test_a_ledger_that_another_program_has_locked_holds_no_request_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            board = await board_of(tmp_path / "ledger.db", "one", stack)
            assert await posted(board) == (1, [])
            other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            async with asyncio.timeout(5):
                assert await posted(board) is None and await posted(board) is None
            other.close()
            await until(lambda: board._posting is None)
            assert await posted(board) == (3, [])  # the one that was late is there, too

    asyncio.run(main())


async def posted(board: LedgerSync) -> object:
    return await board.post("topic", "text", 60.0, 0)
