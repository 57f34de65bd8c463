"""Requests and answers that could lead past the hard cap, over real sockets and without claude."""

from __future__ import annotations

import asyncio
import base64
import json

import aiohttp
import pytest
from yarl import URL

from tests.gateway.test_server import (
    ASK,
    END,
    START,
    Behave,
    Upstream,
    answering,
    place,
    plain,
    prices,
    saying,
    sse,
    until,
)
from tests.metered import Metered
from token_budget.models import Budget, Scope, Unit

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
def test_free_requests_pass_uncounted_in_block_mode(path: str) -> None:
    async def main() -> None:
        async with place(saying(plain(200, b"{}")), limit=10) as here:
            assert (await here.post(path=path))[0] == 200
            assert here.upstream.heads and not here.usages

    asyncio.run(main())


UNBOUNDED: dict[str, dict[str, object]] = {
    "server compaction": {"context_management": {"edits": [{"type": "compact_20260112"}]}},
    "edits that are no list": {"context_management": {"edits": {"type": "compact_20260112"}}},
    "an unknown edit": {"context_management": {"edits": [{"type": "clear_thinking_20251015"}, {"type": "later"}]}},
    "MCP servers": {"mcp_servers": [{"type": "url", "url": "https://mcp.example", "name": "m"}]},
    "a container": {"container": "container_1"},
    "a fallback model": {"fallbacks": [{"model": "claude-opus-4-8"}]},
    "a thread that the API keeps": {"thread": {"id": "thread_1"}},
    "a response that the API keeps": {"resumption": {"id": "msg_1"}, "messages": []},
    "an advisor": {"tools": [{"type": "advisor_20260301", "name": "advisor", "model": "claude-opus-4-8"}]},
    "a key in capitals": {"Max_Tokens": 5},
}


@pytest.mark.parametrize("name", UNBOUNDED)
def test_requests_without_a_bound_are_refused_in_block_mode(name: str) -> None:
    async def main() -> None:
        async with place(answering(sse(START, END))) as here:
            status, text = await here.post({**ASK, **UNBOUNDED[name]})
            assert status == 400 and b"block mode cannot bound" in text and not here.upstream.heads
            shrinking = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
            assert (await here.post({**ASK, "context_management": shrinking, "mcp_servers": []}))[0] == 200
        async with place(answering(sse(START, END)), enforce=False) as here:
            assert (await here.post({**ASK, **UNBOUNDED[name]}))[0] == 200

    asyncio.run(main())


AMBIGUOUS = {
    "a key twice": b'{"max_tokens":64000,"max_tokens":300,"messages":[]}',
    "a key twice, once escaped": b'{"max\\u005ftokens":64000,"max_tokens":300,"messages":[]}',
    "a key twice, further down": b'{"max_tokens":300,"thinking":{"budget_tokens":1,"budget_tokens":9},"messages":[]}',
    "UTF-16": '{"max_tokens":300,"messages":[]}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"max_tokens":300,"messages":[]}',
    "no UTF-8": b'{"max_tokens":300,"messages":["\xff"]}',
    "no JSON number": b'{"max_tokens":300,"temperature":NaN,"messages":[]}',
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_a_body_that_two_readers_could_read_differently_is_refused_in_block_mode(name: str) -> None:
    async def main() -> None:
        async with place(answering(sse(START, END)), limit=5_000) as here:
            async with here.session.post(here.client.url + "/v1/messages", data=AMBIGUOUS[name]) as answer:
                assert answer.status == 400 and answer.headers["x-should-retry"] == "false"
            assert not here.upstream.heads

    asyncio.run(main())


def test_fields_that_the_api_does_not_count_are_bounded_by_their_size() -> None:
    schema = {
        "type": "object",
        "properties": {f"p{n}": {"type": "string", "description": "d" * 200} for n in range(60)},
    }

    async def main() -> None:
        async with place(answering(sse(START, END)), limit=5_000) as here:
            status, _ = await here.post({**ASK, "output_config": {"format": {"type": "json_schema", "schema": schema}}})
            assert status == 400 and not here.upstream.messages
            assert (await here.post({**ASK, "output_config": {"effort": "high"}}))[0] == 200

    asyncio.run(main())


@pytest.mark.parametrize("status", [404, 405, 403, 501])
def test_documents_that_an_api_never_counts_are_refused_for_good(status: int) -> None:
    document = [{"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "abcd"}}]

    async def main() -> None:
        async with place(answering(sse(START, END))) as here:
            here.upstream.count = status
            async with here.session.post(
                here.client.url + "/v1/messages", json={**ASK, "messages": [{"role": "user", "content": document}]}
            ) as answer:
                assert answer.status == 400 and answer.headers["x-should-retry"] == "false"
                assert f"status {status}" in (await answer.json())["error"]["message"]
            assert not here.upstream.messages
            assert (await here.post())[0] == 200

    asyncio.run(main())


@pytest.mark.parametrize("begun", [False, True])
def test_a_request_without_an_answer_counts_with_its_bound(begun: bool) -> None:
    """The client gives up before the first byte, or before the first event."""

    async def silent(upstream: Upstream, writer: asyncio.StreamWriter) -> None:
        if begun:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        await asyncio.Event().wait()

    async def main() -> None:
        async with place(silent, limit=3_000) as here:
            for _ in range(2):
                with pytest.raises(TimeoutError):
                    await here.post({**ASK, "max_tokens": 1_000}, timeout=aiohttp.ClientTimeout(0.3))
                await until(lambda: not here.budget.held)
            assert 2_000 < here.budget.used <= 3_000 and not here.usages[-1].exact
            assert (await here.post({**ASK, "max_tokens": 1_000}))[0] == 400

    asyncio.run(main())


def redirecting(status: int, location: str, then: bytes = b"", after: int = 1) -> Behave:
    """A redirect, then an answer."""

    async def behave(upstream: Upstream, writer: asyncio.StreamWriter) -> None:
        if len(upstream.messages) <= after:
            writer.write(plain(status, b"", f"location: {location}"))
        else:
            writer.write(plain(200, then or sse(START, END), kind="text/event-stream"))

    return behave


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_is_followed_under_the_same_admission(status: int) -> None:
    async def main() -> None:
        async with place(redirecting(status, "/v1/messages?beta=true"), limit=5_000) as here:
            assert (await here.post())[0] == 200
            assert [head.split()[1] for head in here.upstream.heads][-2:] == [
                "/base/v1/messages",
                "/v1/messages?beta=true",
            ]
            assert json.loads(here.upstream.bodies[-1])["max_tokens"] <= 5_000 and here.budget.used == 150

    asyncio.run(main())


NOT_FOLLOWED = {
    "into GET": (302, "/v1/messages"),
    "to another billed path": (307, "/v1/complete"),
    "to no address": (307, "ftp://x/v1/messages"),
    "nowhere": (308, ""),
    "for ever": (307, "/v1/messages"),
}


@pytest.mark.parametrize("name", NOT_FOLLOWED)
def test_a_redirect_that_the_gateway_does_not_follow_never_reaches_the_instance(name: str) -> None:
    status, location = NOT_FOLLOWED[name]

    async def main() -> None:
        async with place(redirecting(status, location, after=10**6)) as here:
            async with here.session.post(here.client.url + "/v1/messages", json=ASK, allow_redirects=False) as answer:
                assert answer.status == 400 and "location" not in answer.headers
                assert "the API redirects" in (await answer.json())["error"]["message"]
            assert here.budget.used == 0 and not here.usages

    asyncio.run(main())


def test_a_free_request_is_not_redirected_to_a_billed_one() -> None:
    async def main() -> None:
        async with place(redirecting(307, "/v1/messages")) as here:
            assert (await here.post(path="/v1/files"))[0] == 400 and len(here.upstream.heads) == 1

    asyncio.run(main())


def test_credentials_for_one_server_are_not_given_to_another() -> None:
    async def main() -> None:
        async with (
            place(answering(sse(START, END))) as other,
            place(redirecting(307, other.client.address.url + "/v1/messages")) as here,
        ):
            assert (await here.post(headers={"authorization": "Bearer secret", "x-api-key": "k"}))[0] == 200
            assert "Bearer secret" in here.upstream.heads[-1] and "Bearer" not in other.upstream.heads[-1]

    asyncio.run(main())


def test_each_instance_reaches_the_api_through_its_own_proxy() -> None:
    """The proxy asks for a password; the API's name is known to it alone."""

    async def main() -> None:
        async with place(answering(sse(START, END))) as here:
            _, _, base = here.client.address.url.partition("://")
            proxy = f"http://user:p%40ss@{base.partition('/')[0]}"
            environ = {"ANTHROPIC_BASE_URL": "http://llm.corp.invalid/path/", "HTTP_PROXY": proxy}
            client = here.gateway.open(Metered(here.manager.budgets, environ))
            async with here.session.post(client.url + "/v1/messages", json=ASK) as answer:
                assert answer.status == 200
            head = here.upstream.heads[-1]
            assert head.startswith("POST http://llm.corp.invalid/path/v1/messages ")
            assert f"Basic {base64.b64encode(b'user:p@ss').decode()}" in head
            await here.gateway.close(client)

    asyncio.run(main())


DEARER: dict[str, tuple[dict[str, object], int]] = {
    "fast mode": ({"speed": "fast", "inference_geo": "global"}, 6 * 50 * 1_000),
    "a speed that nobody knows": ({"speed": "ludicrous", "inference_geo": "global"}, 6 * 50 * 1_000),
    "the place of the workspace": ({}, 55 * 1_000),
    "web searches": ({"tools": [{"type": "web_search_20250305", "max_uses": 2}]}, 20_000_000),
}


@pytest.mark.parametrize("name", DEARER)
def test_the_dearest_that_a_request_allows_is_held_in_money(name: str) -> None:
    extra, least = DEARER[name]

    async def main() -> None:
        async with place(answering(sse(START, END))) as here:
            cost = Budget(least - 1, scope=Scope.OVERALL, unit=Unit.USD)
            here.attempt.budgets, here.attempt.price = (cost,), prices
            ask = {**ASK, "model": "m", "max_tokens": 1_000, **extra}
            status, _ = await here.post(ask)
            sent = [json.loads(body) for body in here.upstream.bodies if b"max_tokens" in body]
            assert status == 400 or sent[-1]["max_tokens"] < 1_000

    asyncio.run(main())


NOT_ADDING_UP: dict[str, dict[str, object]] = {
    "thinking that was left out before": {"type": "thinking", "thinking": "t" * 9_000, "signature": "s"},
    "a reference to a deferred tool": {"type": "tool_reference", "tool_name": "mcp__x__1"},
}


@pytest.mark.parametrize("name", NOT_ADDING_UP)
def test_an_earlier_request_bounds_a_later_one_only_if_the_counts_add_up(name: str) -> None:
    tools = [{"name": "mcp__x__1", "description": "d" * 9_000, "defer_loading": True, "input_schema": {}}]
    first = {**ASK, "max_tokens": 300, "tools": tools}
    said: list[object] = [{"role": "user", "content": "hi"}]
    part = {"role": "assistant", "content": [NOT_ADDING_UP[name]]}

    async def main() -> None:
        async with place(answering(sse(START, END)), limit=20_000) as here:
            assert (await here.post({**first, "messages": [*said, part, part]}))[0] == 200
            here.budget.used = 12_000
            here.upstream.count = 500  # then only the request itself bounds it
            status, _ = await here.post({**first, "messages": [*said, part]})
            assert status == 400 and len(here.upstream.messages) == 1

    asyncio.run(main())
