"""One request writes a prefix, and the others wait for its first byte."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from claude_orchestrator.gateway.sharing.flights import Flight, Flights
from claude_orchestrator.gateway.sharing.prefixes import LIFETIMES, Prefix
from tests.limits import HUNG_S

TOOLS, PROMPT, OTHER = Prefix(b"tools"), Prefix(b"prompt"), Prefix(b"other")


@dataclass
class Who:
    waiting: int = 0


class Traffic:
    """Flights on a clock that the test moves."""

    def __init__(self, wait_s: float = 30.0) -> None:
        self.now = 0.0
        self.flights = Flights(wait_s, lambda: self.now)
        self.who = Who()

    async def enter(self, *prefixes: Prefix) -> Flight:
        return await self.flights.enter(prefixes, self.who)

    async def asks(self, *prefixes: Prefix) -> asyncio.Task[Flight]:
        task = asyncio.create_task(self.enter(*prefixes))
        for _ in range(5):
            await asyncio.sleep(0)
        return task


def run(test: Callable[[Traffic], Awaitable[None]], wait_s: float = 30.0) -> None:
    async def main() -> None:
        async with asyncio.timeout(HUNG_S):
            await test(Traffic(wait_s))

    asyncio.run(main())


def test_the_others_wait_for_the_first_byte() -> None:
    async def test(traffic: Traffic) -> None:
        first = await traffic.enter(TOOLS, PROMPT)
        second, third = await traffic.asks(TOOLS, PROMPT), await traffic.asks(TOOLS)
        assert not second.done() and not third.done() and traffic.who.waiting == 2
        first.begun()
        await asyncio.gather(second, third)
        assert traffic.who.waiting == 0

    run(test)


def test_others_with_another_prefix_do_not_wait() -> None:
    async def test(traffic: Traffic) -> None:
        await traffic.enter(TOOLS)
        assert (await traffic.asks(OTHER)).done() and (await traffic.asks()).done()

    run(test)


def test_a_request_that_ends_without_a_response_lets_the_next_one_write() -> None:
    async def test(traffic: Traffic) -> None:
        first = await traffic.enter(TOOLS)
        second, third = await traffic.asks(TOOLS), await traffic.asks(TOOLS)
        first.end()
        flight = await second
        await asyncio.sleep(0)
        assert not third.done()
        flight.begun()
        await third

    run(test)


def test_a_request_that_is_given_up_waits_no_more() -> None:
    async def test(traffic: Traffic) -> None:
        await traffic.enter(TOOLS)
        second = await traffic.asks(TOOLS)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        assert traffic.who.waiting == 0

    run(test)


def test_the_wait_has_a_bound() -> None:
    async def test(traffic: Traffic) -> None:
        await traffic.enter(TOOLS)
        await traffic.enter(TOOLS)
        traffic.now = 1.0
        assert (await traffic.asks(TOOLS)).done(), "the first one has been waited for long enough"

    run(test, wait_s=0.05)


def test_what_was_read_within_its_lifetime_is_not_waited_for() -> None:
    async def test(traffic: Traffic) -> None:
        (await traffic.enter(TOOLS)).begun()
        traffic.now = LIFETIMES.short_s - 1
        (await traffic.enter(TOOLS)).begun()
        traffic.now += LIFETIMES.short_s - 1
        await traffic.enter(TOOLS)
        assert (await traffic.asks(TOOLS)).done()
        traffic.now += LIFETIMES.short_s
        await traffic.enter(TOOLS)
        assert not (await traffic.asks(TOOLS)).done()

    run(test)


def test_a_longer_prefix_is_waited_for_where_the_shorter_one_can_be_read() -> None:
    async def test(traffic: Traffic) -> None:
        (await traffic.enter(TOOLS)).begun()
        await traffic.enter(TOOLS, PROMPT)
        assert (await traffic.asks(TOOLS, OTHER)).done()
        assert not (await traffic.asks(TOOLS, PROMPT)).done()

    run(test)
