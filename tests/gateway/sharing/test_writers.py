"""Of several runs with one key, one writes a prefix, and the requests of the others wait for its first byte."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from claude_orchestrator.gateway.sharing.flights import Flight, Flights
from claude_orchestrator.gateway.sharing.prefixes import LIFETIMES, Prefix
from tests.gateway.sharing.test_flights import OTHER, PROMPT, TOOLS, Who
from tests.limits import HUNG_S
from tests.posts import Clock, Wall

WAIT_S = 30.0


class Runs:
    """Two runs on one clock that the test moves."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.wall = Wall(self.clock)
        self.who = Who()
        self.flights = {name: self.of(name) for name in ("one", "two")}

    def of(self, name: str) -> Flights:
        return Flights(WAIT_S, self.clock, board=self.wall.of(name))

    async def asks(self, run: str, *prefixes: Prefix) -> asyncio.Task[Flight]:
        task = asyncio.create_task(self.flights[run].enter(prefixes, self.who))
        await asyncio.sleep(0.01)
        return task


def run(test: Callable[[Runs], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(HUNG_S):
            await test(Runs())

    asyncio.run(main())


def test_a_run_waits_for_the_first_byte_of_another_run() -> None:
    async def test(runs: Runs) -> None:
        first = await (await runs.asks("one", TOOLS, PROMPT, OTHER))
        second = await runs.asks("two", TOOLS, PROMPT)
        assert not second.done() and runs.who.waiting == 1
        first.begun()
        flight = await second
        assert runs.who.waiting == 0
        flight.end()
        assert (await runs.asks("two", TOOLS)).done()  # it is known to be readable

    run(test)


def test_what_follows_the_common_beginning_is_not_waited_for() -> None:
    async def test(runs: Runs) -> None:
        await (await runs.asks("one", TOOLS, PROMPT, OTHER))
        assert (await runs.asks("two", OTHER)).done()

    run(test)


def test_a_writer_that_gives_up_leaves_it_to_the_other_run() -> None:
    async def test(runs: Runs) -> None:
        first = await (await runs.asks("one", TOOLS))
        second, third = await runs.asks("two", TOOLS), await runs.asks("two", TOOLS)
        assert not second.done() and not third.done()
        first.end()
        flight = await second
        assert not third.done()  # now this run writes
        again = await runs.asks("one", TOOLS)
        assert not again.done()
        flight.begun()
        await asyncio.gather(third, again)

    run(test)


def test_a_run_that_dies_is_waited_for_no_longer_than_the_bound() -> None:
    async def test(runs: Runs) -> None:
        await (await runs.asks("one", TOOLS))
        second = await runs.asks("two", TOOLS)
        assert not second.done()
        runs.clock.now = WAIT_S + 0.1
        await second

    run(test)


def test_after_its_lifetime_it_has_to_be_written_again() -> None:
    async def test(runs: Runs) -> None:
        (await (await runs.asks("one", TOOLS))).begun()
        await asyncio.sleep(0.01)
        runs.clock.now = LIFETIMES.short_s - 1
        (await (await runs.asks("two", TOOLS))).end()
        runs.clock.now = LIFETIMES.short_s + 1
        writer = await (await runs.asks("two", TOOLS))
        other = await runs.asks("one", TOOLS)
        assert not other.done()
        writer.begun()
        await other

    run(test)


def test_who_leaves_while_it_waits_for_another_run_holds_nobody_back() -> None:
    async def test(runs: Runs) -> None:
        await (await runs.asks("one", TOOLS))
        second, third = await runs.asks("two", TOOLS), await runs.asks("two", TOOLS)
        second.cancel()
        await asyncio.wait([second])
        await asyncio.sleep(0.01)
        assert not third.done() and runs.who.waiting == 1
        third.cancel()
        await asyncio.wait([third])
        assert runs.who.waiting == 0

    run(test)
