"""Lets one request write a prefix of the prompt cache while the others with that prefix wait for its first byte.

What a response writes can be read as soon as the response begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from claude_orchestrator.gateway.board import Board
from claude_orchestrator.gateway.sharing.prefixes import LIFETIMES, Lifetimes, Prefix
from claude_orchestrator.gateway.sharing.writers import GIVEN_UP, READABLE, SHARED_PREFIXES, Writers

MAX_PREFIXES = 10_000


class Waits(Protocol):
    """Whose request waits; `waiting` is how many of its requests do."""

    waiting: int


class Flight:
    """A request on its way to the API, and the prefixes that it writes."""

    def __init__(self, flights: Flights, prefixes: tuple[Prefix, ...], sent_at: float) -> None:
        self._flights = flights
        self.prefixes = prefixes
        self.sent_at = sent_at
        self.until = sent_at + flights.wait_s
        self.told: tuple[Prefix, ...] = ()  # that other runs may wait for
        self.over = asyncio.Event()  # nobody needs to wait for it any more

    def begun(self) -> None:
        """The first byte of its response has come."""
        if not self.over.is_set():
            self._flights.begun(self)

    def end(self) -> None:
        """The request has ended. What no response has begun to write, another one has to."""
        if not self.over.is_set():
            self._flights.leave(self)


class Flights:
    """The requests of all instances. A request waits for `wait_s` at most; with 0 none waits.

    By `board` it also waits for requests of other runs.
    """

    def __init__(
        self,
        wait_s: float,
        clock: Callable[[], float],
        *,
        board: Board | None = None,
        lifetimes: Lifetimes = LIFETIMES,
    ) -> None:
        self.wait_s = wait_s
        self.lifetimes = lifetimes
        self._clock = clock
        self._others = None if board is None else Writers(board, wait_s)
        self._writers: dict[bytes, Flight] = {}
        self._readable_until: dict[bytes, float] = {}

    async def enter(self, prefixes: tuple[Prefix, ...], who: Waits) -> Flight:
        """Wait until nobody else is about to write a prefix of this request; then it may be sent."""
        until = self._clock() + self.wait_s
        who.waiting += 1
        try:
            while (writer := self._writer(prefixes)) is not None:
                left_s = min(until, writer.until) - self._clock()
                if left_s <= 0:
                    break
                try:
                    await asyncio.wait_for(writer.over.wait(), left_s)
                except TimeoutError:
                    break
            now = self._clock()
            flight = Flight(self, prefixes, now)
            for digest, *_ in prefixes:
                if digest not in self._writers and self._readable_until.get(digest, now) <= now:
                    self._writers[digest] = flight
            if self._others is not None:
                await self._ask_others(self._others, flight, until)
        finally:
            who.waiting -= 1
        return flight

    async def _ask_others(self, others: Writers, flight: Flight, until: float) -> None:
        """Wait while another run writes what this request would write."""
        for prefix in flight.prefixes[:SHARED_PREFIXES]:
            if self._writers.get(prefix.digest) is not flight:
                continue
            try:
                readable_s = await others.may_write(prefix, lambda: until - self._clock())
            except BaseException:
                flight.end()
                raise
            if readable_s is None:
                flight.told = (*flight.told, prefix)
            else:
                self._readable_until[prefix.digest] = self._clock() + readable_s
                self._pass_on(flight, prefix)

    def _pass_on(self, flight: Flight, prefix: Prefix) -> None:
        """The prefix can be read: nobody needs to wait for this request, unless it writes more."""
        del self._writers[prefix.digest]
        if not any(self._writers.get(digest) is flight for digest, *_ in flight.prefixes):
            flight.over.set()

    def readable_s(self, prefix: Prefix) -> float:
        """For how long a prefix can still be read; not positive if it cannot."""
        return self._readable_until.get(prefix.digest, 0.0) - self._clock()

    def begun(self, flight: Flight) -> None:
        """A response has begun: what its request had can be read from now on. The lifetime counts from the request."""
        for digest, lifetime_s, *_ in flight.prefixes:
            until = max(flight.sent_at + lifetime_s, self._readable_until.pop(digest, 0.0))
            self._readable_until[digest] = until
        while len(self._readable_until) > MAX_PREFIXES:
            del self._readable_until[next(iter(self._readable_until))]
        self._tell(flight, READABLE)
        self.leave(flight)

    def leave(self, flight: Flight) -> None:
        """A request writes nothing any more: let those go who wait for it."""
        for digest, *_ in flight.prefixes:
            if self._writers.get(digest) is flight:
                del self._writers[digest]
        self._tell(flight, GIVEN_UP)
        flight.over.set()

    def _tell(self, flight: Flight, text: str) -> None:
        if self._others is not None:
            self._others.tell(flight.told, text)
        flight.told = ()

    def _writer(self, prefixes: tuple[Prefix, ...]) -> Flight | None:
        """Who writes a prefix that cannot be read yet, and is waited for."""
        now = self._clock()
        for digest, *_ in prefixes:
            writer = self._writers.get(digest)
            if writer is not None and writer.until > now and self._readable_until.get(digest, now) <= now:
                return writer
        return None
