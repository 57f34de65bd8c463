"""The bus of a run: every event goes to every observer, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from claude_orchestrator.engine.run_events import Level, Message, RunEvent

Sync = Callable[[], Awaitable[None]]


class Observer(Protocol):
    """Receives every event of a run, in order. It returns immediately, and does slow work elsewhere."""

    def observe(self, event: RunEvent) -> None:
        """Take one event."""


class Bus:
    """Delivers each event before `publish` returns. An event that an observer publishes follows the present one."""

    def __init__(self) -> None:
        self._observers: list[tuple[Observer, bool]] = []
        self._syncs: list[Sync] = []
        self._subscriptions: list[Subscription] = []
        self._queue: deque[RunEvent] = deque()
        self._delivering = False
        self._count = 0

    def attach(self, observer: Observer, *, sync: Sync | None = None, optional: bool = False) -> None:
        """Deliver every later event to the observer.

        `sync` waits until what it has observed survives a crash of the machine. An optional observer that raises is
        detached with a warning. An error in any other observer ends the run.
        """
        self._observers.append((observer, optional))
        if sync is not None:
            self._syncs.append(sync)

    def subscribe(self, max_events: int = 1_000) -> Subscription:
        """A bounded queue of events for an observer that takes its time."""
        subscription = Subscription(self._count, max_events, self._subscriptions.remove)
        self._subscriptions.append(subscription)
        return subscription

    def publish(self, event: RunEvent) -> None:
        """Deliver an event to all observers."""
        self._queue.append(event)
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._queue:
                self._deliver(self._queue.popleft())
        finally:
            self._delivering = False

    def warn(self, text: str) -> None:
        """Publish a message of level WARNING."""
        self.publish(Message(Level.WARNING, text))

    async def sync(self) -> None:
        """Wait until everything published so far survives a crash of the machine, as far as observers promise that."""
        await asyncio.gather(*(sync() for sync in self._syncs))

    def _deliver(self, event: RunEvent) -> None:
        self._count += 1
        for entry in tuple(self._observers):
            observer, optional = entry
            try:
                observer.observe(event)
            except Exception as error:
                if not optional:
                    raise
                self._observers.remove(entry)
                name, why = type(observer).__name__, f"{type(error).__name__}: {error}"
                self._queue.append(Message(Level.WARNING, f"{name} receives no more events because it failed: {why}"))
        for subscription in self._subscriptions:
            subscription.put(self._count, event)


class Subscription:
    """Numbered events for a reader that may be slower than the run. A full queue drops the oldest events.

    `missed` counts the dropped events, after which the reader has to start from a snapshot.
    """

    def __init__(self, last_number: int, max_events: int, close: Callable[[Subscription], None]) -> None:
        self.missed = 0
        self.last_number = last_number
        self._events: deque[tuple[int, RunEvent]] = deque(maxlen=max_events)
        self._arrived = asyncio.Event()
        self._close = close

    def put(self, number: int, event: RunEvent) -> None:
        """Add an event."""
        self.missed += len(self._events) == self._events.maxlen
        self._events.append((number, event))
        self._arrived.set()

    async def get(self) -> tuple[int, RunEvent]:
        """Wait for the next event; returns it with its number."""
        while not self._events:
            self._arrived.clear()
            await self._arrived.wait()
        self.last_number, event = self._events.popleft()
        return self.last_number, event

    def close(self) -> None:
        """End the subscription."""
        self._close(self)
