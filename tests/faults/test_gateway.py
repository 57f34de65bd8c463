"""Requests and answers that could lead past the hard cap, over real sockets and without claude."""

from __future__ import annotations

import asyncio

import pytest
from yarl import URL

from tests.gateway.test_server import ASK, place, plain, saying

BILLED = saying(plain(200, b'{"id": "c", "usage": {"input_tokens": 50000, "output_tokens": 900}}'))
UNKNOWN = {
    "another API of the same address": "/v1/chat/completions",
    "the same API below another path": "/anthropic/v1/messages",
    "a parameter of the path": "/v1/messages;v=1",
    "encoded twice": "/v1/%256dessages",
    "a backslash": "/v1\\messages",
    "a billed path that no client uses yet": "/v1/responses",
    "out of a free path": "/v1/files/../messages",
    "out of a free path, encoded": "/v1/files/%2e%2e/messages",
    "out of a free path, further down": "/v1/files/x/../../messages",
    "prefixed with a space": "/v1/messages%20",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_path_of_unknown_cost_is_refused_in_block_mode_and_inexact_in_warn_mode(name: str) -> None:
    async def main() -> None:
        async with place(BILLED, limit=3_000) as here:
            url = URL(here.client.url + UNKNOWN[name], encoded=True)
            async with here.session.post(url, json=ASK) as answer:
                assert answer.status in (400, 404) and not here.upstream.heads
                assert "claude-orchestrator: " in (await answer.json())["error"]["message"]
        async with place(BILLED, limit=3_000, enforce=False) as here:
            url = URL(here.client.url + UNKNOWN[name], encoded=True)
            async with here.session.post(url, json=ASK) as answer:
                assert answer.status == 200
            assert here.budget.used == 50_900 and not here.usages[-1].exact

    asyncio.run(main())


def test_a_reading_request_with_a_body_is_of_unknown_cost() -> None:
    async def main() -> None:
        async with place(BILLED) as here:
            async with here.session.get(here.client.url + "/v1/messages", json=ASK) as answer:
                assert answer.status in (400, 404) and not here.upstream.heads
            async with here.session.get(here.client.url + "/v1/models") as answer:
                assert answer.status == 200

    asyncio.run(main())


@pytest.mark.parametrize("path", ["/v1/messages/count_tokens", "/api/event_logging/v2/batch", "/v1/files?x=1"])
def test_what_costs_nothing_passes_uncounted_in_block_mode(path: str) -> None:
    async def main() -> None:
        async with place(saying(plain(200, b"{}")), limit=10) as here:
            assert (await here.post(path=path))[0] == 200
            assert here.upstream.heads and not here.usages

    asyncio.run(main())
