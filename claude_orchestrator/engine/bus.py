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
        self._queue: deque[RunEvent] = deque()
        self._delivering = False

    def attach(self, observer: Observer, *, sync: Sync | None = None, optional: bool = False) -> None:
        """Deliver every later event to the observer.

        `sync` waits until what it has observed survives a crash of the machine. An optional observer that raises is
        detached with a warning. An error in any other observer ends the run.
        """
        self._observers.append((observer, optional))
        if sync is not None:
            self._syncs.append(sync)

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
