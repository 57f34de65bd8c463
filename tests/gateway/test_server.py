"""The gateway over real sockets, without claude: what passes, what is counted, what is refused, and what is left."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import aiohttp
import pytest
from yarl import URL

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.gateway.address import ApiAddress
from claude_orchestrator.gateway.client import Client
from claude_orchestrator.gateway.refusals import BudgetRefusal
from claude_orchestrator.gateway.requests import lowered, read_request
from claude_orchestrator.gateway.server import Gateway, GatewayOptions
from claude_orchestrator.gateway.unanswered import ChargeUnanswered
from tests.benchmarks.hard_cap import Counted
from tests.limits import HUNG_S
from tests.metered import Metered
from token_budget import TokenBudgetManager
from token_budget.models import Budget, Hold, Scope, Unit, Usage, Weights

START = {"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 100, "output_tokens": 1}}}
PIECE = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word "}}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 50}}
ASK = {"max_tokens": 64_000, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
Behave = Callable[["Upstream", asyncio.StreamWriter], Awaitable[None]]


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


@dataclass
class Upstream:
    """An API that answers as a test says, on a raw socket; `heads` and `bodies` are what it was sent."""

    behave: Behave
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    count: int = 200

    @property
    def messages(self) -> list[str]:
        """The requests that are billed."""
        return [head for head in self.heads if "/count_tokens" not in head]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                sizes = [line.split(":")[1] for line in head.lower().split("\r\n") if "content-length:" in line]
                self.heads.append(head)
                self.bodies.append(await reader.readexactly(int(sizes[0]) if sizes else 0))
                if "/count_tokens" in head:
                    writer.write(plain(self.count, b'{"input_tokens": 100}'))
                    continue
                await self.behave(self, writer)
                if writer.is_closing():
                    break
        self.left.set()
        writer.close()


def plain(status: int, body: bytes, *headers: str, kind: str = "application/json") -> bytes:
    lines = (f"HTTP/1.1 {status} X", f"content-type: {kind}", f"content-length: {len(body)}", *headers)
    return "\r\n".join((*lines, "", "")).encode() + body


def answering(*parts: bytes, whole: bool = True, reset: bool = False) -> Behave:
    """A stream of these parts; not `whole`: the connection is closed in the middle."""

    async def behave(upstream: Upstream, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for part in parts:
            writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)
        if whole:
            writer.write(b"0\r\n\r\n")
        elif reset:
            writer.transport.abort()
        else:
            writer.close()

    return behave


def saying(data: bytes) -> Behave:
    async def behave(upstream: Upstream, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return behave


@dataclass
class Place:
    """A gateway before an upstream, a budget, and a session to ask with."""

    gateway: Gateway
    client: Client
    attempt: Metered
    manager: TokenBudgetManager
    session: aiohttp.ClientSession
    upstream: Upstream
    usages: list[ApiUsage]
    refused: list[BudgetRefusal]

    async def post(self, data: Any = ASK, path: str = "/v1/messages", **extra: Any) -> tuple[int, bytes]:
        async with self.session.post(self.client.url + path, json=data, **extra) as answer:
            return answer.status, await answer.read()

    @property
    def budget(self) -> Budget:
        assert self.manager.overall is not None
        return self.manager.overall


@contextlib.asynccontextmanager
async def place(
    behave: Behave, limit: int = 1_000_000, *, enforce: bool = True, unanswered: ChargeUnanswered | None = None
) -> AsyncIterator[Place]:
    upstream = Upstream(behave)
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    manager = TokenBudgetManager(limit, "block" if enforce else "warn")
    counted = Counted(manager)
    usages: list[ApiUsage] = []
    refused: list[BudgetRefusal] = []

    def on_usage(usage: ApiUsage, hold: Hold | None) -> None:
        usages.append(usage)
        counted.take(usage, hold)
        assert not enforce or manager.overall is None or manager.overall.used + manager.overall.held <= limit

    environ = {"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/base"}
    async with Gateway(manager, Weights(), environ=environ, options=GatewayOptions(unanswered=unanswered)) as gateway:
        attempt = Metered(manager.budgets, on_usage=on_usage, refusals=refused)
        client = gateway.open(attempt)
        async with aiohttp.ClientSession() as session:
            yield Place(gateway, client, attempt, manager, session, upstream, usages, refused)
        await gateway.close(client)
        assert manager.overall is not None and manager.overall.held == 0
        assert not gateway.admission.waiting and not gateway.admission.in_flight and not client.handlers
    server.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(HUNG_S):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_without_the_secret_nothing_passes_and_nothing_is_counted() -> None:
    async def main() -> None:
        async with place(answering(sse(START, PIECE, END))) as here:
            base = f"http://127.0.0.1:{here.gateway.port}"
            for path in (
                "/v1/messages",
                "/x/v1/messages",
                "/",
                "//v1/messages",
                f"/{here.client.url[-3:]}/v1/messages",
            ):
                async with here.session.post(base + path, json=ASK) as answer:
                    assert answer.status == 404 and await answer.read() == b""
            assert not here.upstream.heads and not here.usages
            assert (await here.post())[0] == 200
            await here.gateway.close(here.client)  # an instance that has ended has no place any more
            assert (await here.post())[0] == 404

    asyncio.run(main())


def test_it_listens_on_loopback_only() -> None:
    async def main() -> None:
        async with place(answering()) as here:
            (site,) = here.gateway._runner.sites
            assert site.name.startswith("http://127.0.0.1:")

    asyncio.run(main())


def test_a_request_and_its_answer_pass_unchanged() -> None:
    body = json.dumps({"odd": "ü  spaces", "max_tokens": 5}, ensure_ascii=False).encode()

    async def main() -> None:
        async with place(saying(plain(529, b'{"error": 1}', "retry-after: 7", "x-should-retry: true"))) as here:
            url = URL(here.client.url + "/v1/messages?beta=true&x=%2F", encoded=True)
            headers = {"x-api-key": "key", "anthropic-beta": "a,b", "content-type": "application/json"}
            async with here.session.post(url, data=body, headers=headers) as answer:
                assert answer.status == 529 and await answer.read() == b'{"error": 1}'
                assert answer.headers["retry-after"] == "7" and answer.headers["x-should-retry"] == "true"
            head = here.upstream.heads[-1].lower()
            assert head.startswith("post /base/v1/messages?beta=true&x=%2f http/1.1")
            assert "x-api-key: key\r\n" in head and "anthropic-beta: a,b\r\n" in head
            assert here.upstream.bodies[-1] == body and not here.usages

    asyncio.run(main())


def test_other_paths_and_methods_pass_and_are_not_counted() -> None:
    async def main() -> None:
        async with place(saying(plain(200, b'{"id": "m", "usage": {"input_tokens": 5}}'))) as here:
            async with here.session.get(here.client.url + "/v1/models?limit=5") as answer:
                assert answer.status == 200
            async with here.session.get(here.client.url) as answer:
                assert answer.status == 200
            assert (await here.post(path="/v1/messages/count_tokens"))[0] == 200
            assert here.upstream.heads[0].startswith("GET /base/v1/models?limit=5 ")
            assert here.upstream.heads[1].startswith("GET /base ") and not here.usages

        async with (
            place(saying(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n")) as here,
            here.session.head(here.client.url) as answer,
        ):
            assert answer.status == 200 and answer.headers["content-length"] == "50"

    asyncio.run(main())


@pytest.mark.slow
def test_streams_bodies_and_compressed_answers_are_counted() -> None:
    document = json.dumps(
        {"id": "msg_1", "usage": {"input_tokens": 100, "output_tokens": 50}, "stop_reason": "end_turn"}
    )
    packed = gzip.compress(sse(START, PIECE, END))
    answers = {
        "stream": answering(sse(START), sse(PIECE), sse(END)),
        "byte by byte": answering(*(bytes([byte]) for byte in sse(START, PIECE, END))),
        "document": saying(plain(200, document.encode())),
        "gzip": saying(plain(200, packed, "content-encoding: gzip", kind="text/event-stream")),
    }

    async def main() -> None:
        for name, behave in answers.items():
            async with place(behave) as here:
                status, _ = await here.post(headers={"accept-encoding": "gzip, br, zstd"})
                assert status == 200 and here.budget.used == 150, name
                assert here.usages[-1].whole and here.usages[-1].exact
                assert "accept-encoding: gzip\r\n" in here.upstream.heads[-1].lower()

    asyncio.run(main())


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize(("how", "output"), [(None, 64_000), ("bound", 64_000), ("input", 7), ("none", 7)])
def test_an_answer_that_breaks_off_is_charged_as_asked(reset: bool, how: str | None, output: int) -> None:
    """Its input is exact. The API may bill more output than had passed."""

    async def main() -> None:
        parts = (sse(START), sse(*[PIECE] * 7))
        unanswered = None if how is None else ChargeUnanswered(how)
        async with place(answering(*parts, whole=False, reset=reset), unanswered=unanswered) as here:
            with pytest.raises(aiohttp.ClientError):
                await here.post()
            await here.gateway.close(here.client)
            assert here.usages[-1].cut and here.budget.used == 100 + output

    asyncio.run(main())


MALFORMED = {
    "no JSON": (b"event: message_start\ndata: {message_start\n\n" + sse(PIECE)),
    "no usage": sse({"type": "message_start", "message": {"id": "m"}}),
    "nothing": b"",
    "NULs": b"\0" * 1000,
    "nested": b"data: {" + b'"message_start":[' * 20_000 + b"\n\n",
}


STRANGE = {
    "no id": (sse({**START, "message": {"usage": {"input_tokens": 100}}}, END), 150, True),
    "sorted keys": (sse(dict(sorted({**START, "a": "x" * 300}.items())), PIECE, dict(sorted(END.items()))), 150, True),
    "several lines of data": (
        sse(START) + b'data: {"type": "message_delta",\ndata: "usage": {"output_tokens": 50},\n'
        b'data:"delta": {"stop_reason": "end_turn"}}\n\n',
        150,
        True,
    ),
    "lines that end in CR LF": (sse(START, PIECE, END).replace(b"\n", b"\r\n"), 150, True),
    "lines that end in CR": (sse(START, PIECE, END).replace(b"\n", b"\r"), 150, True),
    "a byte order mark": (b"\xef\xbb\xbf" + sse(START, PIECE, END).partition(b"\n")[2], 150, True),
    "comments": (b": ping\n\n" + sse(START).replace(b"\n\n", b"\n: more\n\n") + sse(END), 150, True),
    "fields that mean nothing here": (b"retry: 10\nid: 3\ndatabase: {\nusage\n\n" + sse(START, END), 150, True),
    "an end that is no JSON": (sse(START, END) + b"data: [DONE]\n\n", 150, True),
    "two deltas": (sse(START, {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 2}}, END), 150, True),
}

# a message of 1,000 tokens was billed, and that is not to be read from it
UNREADABLE = {
    "counts of text": sse({**START, "message": {"id": "m", "usage": {"input_tokens": "5"}}}, END),
    "no usage at the end": sse(START, PIECE, {**END, "usage": None}),
    "no usage key at the end": sse(START, PIECE, {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}),
    "no beginning": sse(PIECE, END),
    "no usage at the beginning": sse({"type": "message_start", "message": {"id": "m", "usage": None}}, END),
    "negative": sse(START, {**END, "usage": {"output_tokens": -50}}),
    "broken JSON": sse(START, PIECE) + b'data: {"type":"message_delta","usage":{"output_tokens":50\n\n',
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_answers_are_counted_all_the_same(name: str) -> None:
    text, used, exact = STRANGE[name]

    async def main() -> None:
        async with place(answering(text)) as here:
            assert await here.post() == (200, text)
            assert here.budget.used == used and here.usages[-1].exact is exact

    asyncio.run(main())


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_counts_with_all_that_was_held(name: str) -> None:
    async def main() -> None:
        async with place(answering(UNREADABLE[name])) as here:
            assert (await here.post())[0] == 200
            assert here.budget.used >= 64_000 and not here.usages[-1].exact

    asyncio.run(main())


@pytest.mark.parametrize("body", [b'{"type":"error","error":{}}', b'{"id":"m","usage":{}}'])
def test_documents_without_counts(body: bytes) -> None:
    async def main() -> None:
        async with place(saying(plain(200, body))) as here:
            assert (await here.post())[0] == 200
            assert here.budget.used >= (0 if b"error" in body else 64_000)
            assert (here.budget.used == 0) is (b"error" in body) is here.usages[-1].exact

    asyncio.run(main())


def test_gzip_that_breaks_after_the_beginning_counts_with_all_that_was_held() -> None:
    packed = gzip.compress(sse(START, *[PIECE] * 3000, END))

    async def main() -> None:
        broken = packed[: len(packed) // 2] + b"\xff" * 50
        kind = {"kind": "text/event-stream"}
        async with place(saying(plain(200, broken, "content-encoding: gzip", **kind))) as here:
            async with aiohttp.ClientSession(auto_decompress=False) as session:
                url, headers = here.client.url + "/v1/messages", {"accept-encoding": "gzip"}
                async with session.post(url, json=ASK, headers=headers) as answer:
                    assert await answer.read() == broken
            assert here.budget.used >= 64_000 and not here.usages[-1].exact

    asyncio.run(main())


def test_an_error_in_a_stream_that_never_began_is_not_billed() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}

    async def main() -> None:
        async with place(answering(sse(error))) as here:
            for _ in range(3):
                assert (await here.post())[0] == 200
            assert here.budget.used == 0
        async with place(answering(sse(START, PIECE, error))) as here:
            assert (await here.post())[0] == 200
            assert here.budget.used == 101 and here.usages[-1].cut

    asyncio.run(main())


def test_two_answers_of_one_id_are_two_answers() -> None:
    async def main() -> None:
        async with place(answering(sse(START, PIECE, END))) as here:
            for _ in range(3):
                assert (await here.post())[0] == 200
            assert here.budget.used == 3 * 150 and here.usages[-1].exact
            assert len({usage.id for usage in here.usages}) == 3 and here.usages[0].id == "msg_1"

    asyncio.run(main())


def test_answers_of_one_id_at_once_are_so_many_answers() -> None:
    async def main() -> None:
        async with place(answering(sse(START), sse(PIECE), sse(END))) as here:
            assert [status for status, _ in await asyncio.gather(*[here.post() for _ in range(8)])] == [200] * 8
            assert here.budget.used == 8 * 150 and len({usage.id for usage in here.usages}) == 8

    asyncio.run(main())


OTHER_SPELLINGS = (
    "//v1/messages",
    "/v1//messages",
    "/v1/messages/",
    "/v1/%6dessages",
    "/V1/messages",
    "/v1/./messages",
)


@pytest.mark.parametrize("path", [*OTHER_SPELLINGS, "/v1/messages/batches", "/v1/complete"])
def test_no_other_way_to_be_billed_passes(path: str) -> None:
    async def main() -> None:
        async with place(answering(sse(START, END)), limit=1000) as here:
            async with here.session.post(URL(here.client.url + path, encoded=True), json=ASK) as answer:
                assert answer.status in (400, 404) and not here.upstream.heads
            async with here.session.put(here.client.url + "/v1/messages", json=ASK) as answer:
                assert answer.status == 404 and not here.upstream.heads
            async with here.session.get(here.client.url + "/v1/messages/batches") as answer:
                assert answer.status == 200

    asyncio.run(main())


def test_what_was_learned_of_one_model_or_setting_bounds_no_other() -> None:
    async def main() -> None:
        async with place(answering(sse(START, END)), limit=20_000) as here:
            long = {**ASK, "model": "a", "messages": [{"role": "user", "content": "x" * 15_000}]}
            here.upstream.count = 404  # bytes are all that there is
            assert (await here.post(long))[0] == 200 and here.budget.used == 150
            assert (await here.post(long))[0] == 200  # by what it had
            assert json.loads(here.upstream.bodies[-1])["max_tokens"] > 15_000
            others: list[dict[str, object]] = [{"model": "b"}, {"context_management": {"edits": []}}]
            for other in others:
                assert (await here.post({**long, **other}))[0] == 200
                assert json.loads(here.upstream.bodies[-1])["max_tokens"] < 5_000

    asyncio.run(main())


def test_a_request_that_waits_to_send_its_body_is_told_to() -> None:
    async def main() -> None:
        async with place(answering(sse(START, END))) as here:
            assert (await here.post(expect100=True, timeout=aiohttp.ClientTimeout(5)))[0] == 200
            assert "expect" not in here.upstream.heads[-1].lower()

    asyncio.run(main())


def test_headers_that_stand_twice_pass_twice_and_small_answers_go() -> None:
    async def main() -> None:
        async with place(answering(sse(START, END))) as here:
            headers = [("anthropic-beta", "one"), ("anthropic-beta", "two")]
            thinking = {"type": "enabled", "budget_tokens": 70_000}
            assert (await here.post({**ASK, "thinking": thinking}, headers=headers))[0] == 200
            assert here.upstream.heads[-1].count("anthropic-beta: ") == 2
            assert json.loads(here.upstream.bodies[-1])["thinking"] == thinking  # nothing was lowered
        async with place(answering(sse(START, END)), limit=2_000) as here:
            assert (await here.post({**ASK, "max_tokens": 1}))[0] == 200

    asyncio.run(main())


def test_an_answer_names_the_session_that_asked() -> None:
    """It may be that of a claude which a tool has started: an import must know that it was counted here."""

    async def main() -> None:
        async with place(answering(sse(START, PIECE, END))) as here:
            assert (await here.post(headers={"x-claude-code-session-id": "inner"}))[0] == 200
            assert {usage.session_id for usage in here.usages} == {"inner"}

    asyncio.run(main())


def test_an_instances_own_exceptions_from_proxies_stay() -> None:
    async def main() -> None:
        async with Gateway(
            TokenBudgetManager(None, "block"), Weights(), environ={"NO_PROXY": "all.example"}
        ) as gateway:
            everybody = gateway.open(Metered())
            environ = {"NO_PROXY": "own.example", "ANTHROPIC_BASE_URL": "http://own.example"}
            own = gateway.open(Metered(environ=environ))
            assert dict(everybody.env)["NO_PROXY"] == "all.example,127.0.0.1"
            assert dict(own.env)["NO_PROXY"] == "own.example,127.0.0.1" and own.address.url == "http://own.example"

    asyncio.run(main())


def test_behind_the_gateway_of_anthropics_api_claude_leaves_nothing_out() -> None:
    async def main() -> None:
        async with Gateway(TokenBudgetManager(None, "block"), Weights(), environ={}) as gateway:
            name, elsewhere = "_CLAUDE_CODE_ASSUME_FIRST_PARTY_BASE_URL", {"ANTHROPIC_BASE_URL": "http://own.example"}
            assert dict(gateway.open(Metered()).env)[name] == "1"
            assert name not in dict(gateway.open(Metered(environ={name: "0"})).env)  # the instance's own value stays
            assert name not in dict(gateway.open(Metered(environ=elsewhere)).env)

    asyncio.run(main())


def prices(model: str, usage: Usage, written_for_1h_tokens: int) -> int | None:
    """10 nano-dollars a token of input, 50 of output, twice as much for what is kept an hour."""
    inputs = usage.input_tokens + usage.cache_creation_input_tokens + written_for_1h_tokens
    return None if model == "unknown" else 10 * inputs + 50 * usage.output_tokens


def test_budgets_in_money_admit_too() -> None:
    """No request goes that could pass them; one whose model has no price is not held."""

    async def main() -> None:
        async with place(answering(sse(START, END))) as here:
            cost = Budget(200_000, scope=Scope.OVERALL, unit=Unit.USD)
            here.attempt.budgets, here.attempt.price = (*here.attempt.budgets, cost), prices
            ask = {**ASK, "model": "known"}
            assert (await here.post(ask))[0] == 200
            first = json.loads(here.upstream.bodies[-1])["max_tokens"]
            assert first * 50 <= 200_000 - cost.held and cost.held == 0
            cost.used = 190_000
            status, said = await here.post(ask)
            assert status == 400 and b"left of the overall cost budget ($0.0002)" in said
            assert [one.budget for one in here.refused] == [cost] and len(here.upstream.messages) == 1
            assert (await here.post({**ASK, "model": "unknown"}))[0] == 200
            cost.used, here.attempt.budgets = 0, (cost,)
            for model in ("known", "unknown"):
                assert (await here.post({**ASK, "model": model}))[0] == 200

    asyncio.run(main())


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "raw deflate", "two members"])
def test_compressed_answers_are_counted_however_they_are_packed(encoding: str) -> None:
    parts = sse(START), sse(PIECE, END)
    raw = zlib.compressobj(wbits=-15)
    packed = {
        "deflate": zlib.compress(b"".join(parts)),
        "raw deflate": raw.compress(b"".join(parts)) + raw.flush(),
        "two members": gzip.compress(parts[0]) + gzip.compress(parts[1]),
    }.get(encoding, gzip.compress(b"".join(parts)))
    name = {"raw deflate": "deflate", "two members": "gzip"}.get(encoding, encoding)

    async def main() -> None:
        answer = plain(200, packed, f"content-encoding: {name}", kind="text/event-stream")
        async with place(saying(answer)) as here, aiohttp.ClientSession(auto_decompress=False) as session:
            async with session.post(here.client.url + "/v1/messages", json=ASK) as got:
                assert got.status == 200 and await got.read() == packed
            assert here.budget.used == 150 and here.usages[-1].exact

    asyncio.run(main())


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_answers_pass_and_leave_no_hold(name: str) -> None:
    async def main() -> None:
        async with place(answering(MALFORMED[name] or b"\n")) as here:
            assert await here.post() == (200, MALFORMED[name] or b"\n")
            assert here.budget.used > 1000 and not here.usages[-1].exact  # what it was billed is not known

    asyncio.run(main())


def test_an_event_of_100_mb_passes_in_pieces() -> None:
    """It is not held: what is counted stands in other events."""
    huge = [b"event: content_block_start\ndata: {" + b"x" * 2**20, *[b"x" * 2**20] * 98, b"}\n\n"]

    async def main() -> None:
        async with place(answering(sse(START), *huge, sse(END))) as here:
            status, body = await here.post()
            assert status == 200 and len(body) > 99 * 2**20 and here.budget.used == 150

    asyncio.run(main())


def test_no_api_at_all_is_an_error_in_its_own_shape() -> None:
    async def main() -> None:
        async with place(answering()) as here:
            here.client.address = ApiAddress("http://127.0.0.1:1")
            status, body = await here.post()
            assert status == 502 and json.loads(body)["error"]["type"] == "api_error"
            assert b"no answer from the API" in body

    asyncio.run(main())


def test_a_client_that_vanishes_leaves_no_hold_and_ends_the_request_upstream() -> None:
    async def silent(upstream: Upstream, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        part = sse(START)
        writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        await asyncio.Event().wait()

    async def never(upstream: Upstream, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        for behave, used in ((silent, 100), (never, 0)):
            async with place(behave, unanswered=ChargeUnanswered.BOUND) as here:
                asking = asyncio.ensure_future(here.post())
                await until(partial(lambda here, used: here.upstream.heads and here.budget.used >= used, here, used))
                assert (held := here.budget.held) > 0
                asking.cancel()
                await until(lambda: not here.budget.held)
                assert here.budget.used == (used + 64_000 if behave is silent else held)

    asyncio.run(main())


def test_who_waits_goes_when_there_is_room_and_leaves_when_it_gives_up() -> None:
    gate = asyncio.Event()

    async def gated(upstream: Upstream, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await answering(sse(START, PIECE, END))(upstream, writer)

    async def main() -> None:
        async with place(gated, limit=5000) as here:
            asking = [asyncio.ensure_future(here.post()) for _ in range(4)]
            await until(lambda: len(here.gateway.admission.waiting) == 3)
            assert here.client.waiting == 3 and here.budget.held <= 5000
            asking.pop().cancel()
            await until(lambda: len(here.gateway.admission.waiting) == 2)
            gate.set()
            assert [status for status, _ in await asyncio.gather(*asking)] == [200] * 3
            assert sum("/count_tokens" not in head for head in here.upstream.heads) == 3

    asyncio.run(main())


def test_a_spent_budget_is_refused_in_the_apis_own_shape() -> None:
    async def main() -> None:
        async with place(answering(sse(START, PIECE, END)), limit=300) as here:
            async with here.session.post(here.client.url + "/v1/messages", json=ASK) as answer:
                error = (await answer.json())["error"]
                assert answer.status == 400 and answer.headers["x-should-retry"] == "false"
            assert error["type"] == "billing_error"  # the newest claude retries others of status 400 five times
            assert "300 are left of the overall budget (300). To continue: " in error["message"]
            assert [one.budget for one in here.refused] == [here.budget]
            assert all("count_tokens" in head for head in here.upstream.heads)

    asyncio.run(main())


def test_nearly_spent_lowers_max_tokens_and_warn_mode_changes_nothing() -> None:
    async def main() -> None:
        async with place(answering(sse(START, PIECE, END)), limit=1000) as here:
            assert (await here.post())[0] == 200
            assert json.loads(here.upstream.bodies[-1])["max_tokens"] <= 900
        async with place(answering(sse(START, PIECE, END)), limit=10, enforce=False) as here:
            body = json.dumps(ASK).encode()
            async with here.session.post(here.client.url + "/v1/messages", data=body) as answer:
                assert answer.status == 200
            assert here.upstream.bodies[-1] == body and here.budget.used == 150

    asyncio.run(main())


REFUSED = {
    "no JSON": (b"{", {}),
    "a float": (b'{"max_tokens":6e4}', {}),
    "none": (b"{}", {}),
    "negative": (b'{"max_tokens":-5}', {}),
    "compressed": (gzip.compress(json.dumps(ASK).encode()), {"content-encoding": "gzip"}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_bounded_is_not_sent(name: str) -> None:
    body, headers = REFUSED[name]

    async def main() -> None:
        async with place(answering(sse(START, PIECE, END))) as here:
            url = here.client.url + "/v1/messages"
            async with here.session.post(url, data=body, headers=headers) as answer:
                assert answer.status == 400 and "integer max_tokens" in (await answer.json())["error"]["message"]
            assert not here.upstream.heads and not here.refused

    asyncio.run(main())


def test_documents_wait_until_the_api_counts_them() -> None:
    document = [{"type": "document", "source": {"type": "base64", "data": "abcd"}}]
    body = {**ASK, "messages": [{"role": "user", "content": document}]}

    async def main() -> None:
        async with place(answering(sse(START, PIECE, END))) as here:
            here.upstream.count = 429
            status, text = await here.post(body)
            assert status == 529 and b"does not count" in text and not here.upstream.messages
            here.upstream.count = 200
            assert (await here.post(body))[0] == 200

    asyncio.run(main())


def test_tools_that_the_api_runs_have_their_allowance_on_top() -> None:
    body = {**ASK, "tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 8}]}

    async def main() -> None:
        async with place(answering(sse(START, PIECE, END)), limit=100_000) as here:
            assert (await here.post(body))[0] == 400 and not here.upstream.messages
        async with place(answering(sse(START, PIECE, END)), limit=300_000) as here:
            for _ in range(2):  # the second is known by the first
                assert (await here.post(body))[0] == 200
            assert json.loads(here.upstream.bodies[-1])["max_tokens"] < 300_000 - 160_000

    asyncio.run(main())


async def drops(upstream: Upstream, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


@pytest.mark.parametrize("enforce", [True, False])
@pytest.mark.parametrize("how", ["", "bound", "input", "none"])
def test_a_request_that_was_sent_and_not_answered_is_charged_as_asked(how: str, enforce: bool) -> None:
    async def main() -> None:
        unanswered = ChargeUnanswered(how) if how else None
        async with place(drops, enforce=enforce, unanswered=unanswered) as here:
            assert (await here.post())[0] == 502
            assert here.usages[-1].cut and not here.usages[-1].exact
            in_mode = how or ("bound" if enforce else "none")
            least, most = {"bound": (64_000, 65_000), "input": (100, 1_000), "none": (0, 0)}[in_mode]
            assert least <= here.budget.used <= most

    asyncio.run(main())


@pytest.mark.parametrize(("status", "is_charged"), [(504, True), (524, True), (500, False), (503, False), (529, False)])
def test_a_proxy_that_gave_up_waiting_leaves_a_request_unanswered(status: int, is_charged: bool) -> None:
    async def main() -> None:
        async with place(saying(plain(status, b"gave up", kind="text/html"))) as here:
            assert await here.post() == (status, b"gave up")
            assert (here.budget.used > 64_000) is is_charged is bool(here.usages)

    asyncio.run(main())


def test_a_request_that_was_never_sent_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API's machine does not accept the connection."""
    monkeypatch.setattr("claude_orchestrator.gateway.upstream.CONNECT_S", 0.3)

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf, contextlib.ExitStack() as others:
            for _ in range(3):  # its queue is full
                waiting = others.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(deaf.getsockname())
            async with place(drops) as here:
                here.client.address = ApiAddress(f"http://127.0.0.1:{deaf.getsockname()[1]}")
                status, body = await here.post()
                assert status == 502 and b"no connection within" in body
                assert not here.usages and not here.budget.used

    asyncio.run(main())


def test_what_nobody_can_bound_is_charged_nothing_in_warn_mode() -> None:
    async def main() -> None:
        async with place(drops, enforce=False, unanswered=ChargeUnanswered.BOUND) as here:
            assert (await here.post({"messages": []}))[0] == 502
            assert here.budget.used == 0 and not here.usages[-1].exact

    asyncio.run(main())


ERROR = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


@pytest.mark.parametrize(("events", "used"), [([ERROR], 0), ([{"type": "ping"}, ERROR], 0), ([START, ERROR], 101)])
def test_an_error_in_a_stream_charges_what_the_stream_stated(events: list[dict[str, Any]], used: int) -> None:
    """One that comes instead of an answer costs nothing, and the count is exact."""

    async def main() -> None:
        async with place(answering(sse(*events))) as here:
            assert (await here.post())[0] == 200
            assert here.budget.used == used and here.usages[-1].exact and here.usages[-1].cut is (used > 0)

    asyncio.run(main())


LOWERED = {
    "as it is": (b'{"max_tokens":100}', b'{"max_tokens":100}'),
    "lowered": (b'{"messages":[],"max_tokens":64000}', b'{"messages":[],"max_tokens":5000}'),
    "in a string": (rb'{"m":"\"max_tokens\":9","max_tokens":64000}', rb'{"m":"\"max_tokens\":9","max_tokens":5000}'),
    "thinking": (
        b'{"max_tokens":64000,"thinking":{"budget_tokens":31999}}',
        b'{"max_tokens":5000,"thinking":{"budget_tokens":2500}}',
    ),
    "a tool's": (
        b'{"input":{"max_tokens":7},"max_tokens":64000,"e":"\xc3\xbc"}',
        b'{"input":{"max_tokens":7},"max_tokens":5000,"e":"\\u00fc"}',
    ),
    "escaped": (
        b'{"max\\u005ftokens":64000,"metadata":{"max_tokens":10}}',
        b'{"max_tokens":5000,"metadata":{"max_tokens":10}}',
    ),
    "long": (b'{"max_tokens":9225000000000000}', b'{"max_tokens":5000}'),
    "half a pair": (b'{"max_tokens":90000,"a":"\\ud800"}', b'{"max_tokens":5000,"a":"\\ud800"}'),
    "a tool's budget": (
        b'{"input":{"budget_tokens":50000},"max_tokens":9000}',
        b'{"input":{"budget_tokens":50000},"max_tokens":5000}',
    ),
    "both budgets": (
        b'{"input":{"budget_tokens":5},"max_tokens":9000,"thinking":{"budget_tokens":8000}}',
        b'{"input":{"budget_tokens":5},"max_tokens":5000,"thinking":{"budget_tokens":2500}}',
    ),
}


@pytest.mark.parametrize("name", LOWERED)
def test_only_what_must_be_is_changed(name: str) -> None:
    before, after = LOWERED[name]
    asked = read_request(before)
    assert lowered(before, asked, 5000) == after
