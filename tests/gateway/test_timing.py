"""How long requests take: by a clock of the test, and over real sockets."""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp
import pytest

from claude_orchestrator.gateway.attempt import RequestTiming
from claude_orchestrator.gateway.forwarding import StopWatch
from tests.gateway.test_server import ASK, END, PIECE, START, Behave, answering, place, plain, saying, sse


async def hanging_up(upstream: object, writer: asyncio.StreamWriter) -> None:
    writer.close()


def test_the_first_byte_and_the_end_count_from_the_beginning() -> None:
    times = iter([10.0, 10.5, 14.0])
    watch = StopWatch(lambda: next(times))
    watch.answered(200)
    watch.came()
    watch.came()
    assert watch.ended() == RequestTiming(200, 0.5, 4.0)


def test_without_an_answer_there_is_only_the_end() -> None:
    times = iter([10.0, 10.25])
    assert StopWatch(lambda: next(times)).ended() == RequestTiming(None, None, 0.25)


@pytest.mark.parametrize(
    ("behave", "status", "has_body"),
    [
        (answering(sse(START), sse(PIECE), sse(END)), 200, True),
        (saying(plain(529, b'{"type": "error"}')), 529, True),
        (answering(sse(START), whole=False, reset=True), 200, True),
        (hanging_up, None, False),  # the API closes without a word
    ],
)
def test_each_billed_request_is_timed_once(behave: Behave, status: int | None, has_body: bool) -> None:
    async def main() -> None:
        async with place(behave, enforce=False) as here:
            with contextlib.suppress(aiohttp.ClientError):  # an answer that breaks off
                await here.post({**ASK, "model": "opus"})
            await here.post({"messages": []}, path="/v1/messages/count_tokens")
        ((model, timing),) = here.attempt.timings
        assert (model, timing.status) == ("opus", status)
        assert (timing.first_byte_s is not None) is has_body
        assert 0 < (timing.first_byte_s or 1e-9) <= timing.seconds < 30

    asyncio.run(main())
