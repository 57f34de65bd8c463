"""Numbered events of a run for any number of readers, each at its own pace."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from itertools import islice
from typing import Any

from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.control.event_json import SILENT
from claude_orchestrator.engine.run_events import RunEvent
from token_budget.named_tuples import NamedTuple

MAX_EVENTS = 4_096
ENCODER = json.JSONEncoder(separators=(",", ":"), default=str)


class Entry:
    """One event. Its JSON text is made when the first reader takes it, and then kept for the others."""

    __slots__ = ("_text", "at", "event", "number")

    def __init__(self, number: int, at: float, event: RunEvent) -> None:
        self.number = number
        self.at = at
        self.event = event
        self._text: str | None = None

    def text(self, describe: Callable[[RunEvent], dict[str, Any]]) -> str:
        """The event as JSON, with its number and its Unix time."""
        if self._text is None:
            self._text = ENCODER.encode({"number": self.number, "at": round(self.at, 3), **describe(self.event)})
        return self._text


class Gap(NamedTuple):
    """A reader cannot continue where it was: it needs a snapshot, and continues after `number`."""

    number: int


class EventLog:
    """An observer that keeps the latest events. It observes nothing before the first reader comes.

    `source` names this orchestrator: numbers of another one mean nothing here.
    """

    def __init__(self, bus: Bus, source: str, wall: Callable[[], float] = time.time) -> None:
        self.source = source
        self.last_number = 0
        self._bus = bus
        self._wall = wall
        self._entries: deque[Entry] = deque(maxlen=MAX_EVENTS)
        self._waiting: set[asyncio.Event] = set()
        self._attached = False

    def observe(self, event: RunEvent) -> None:
        """Number an event and wake the readers."""
        if type(event) in SILENT:
            return
        self.last_number += 1
        self._entries.append(Entry(self.last_number, self._wall(), event))
        for waiting in self._waiting:
            waiting.set()

    def attach(self) -> None:
        """Start to keep events."""
        if not self._attached:
            self._attached = True
            self._bus.attach(self, optional=True)

    def after(self, number: int) -> list[Entry] | Gap:
        """The events after a number, or a Gap if some of them are not there any more."""
        oldest = self._entries[0].number if self._entries else self.last_number + 1
        if not oldest - 1 <= number <= self.last_number:
            return Gap(self.last_number)
        newest = list(islice(reversed(self._entries), self.last_number - number))
        newest.reverse()
        return newest

    async def follow(self, number: int, source: str | None = None) -> AsyncGenerator[list[Entry] | Gap, None]:
        """Yield what comes after a number, for ever, or until the reader leaves; at first a Gap if there is one."""
        self.attach()
        arrived = asyncio.Event()
        self._waiting.add(arrived)
        try:
            if source != self.source:
                number = -1
            while True:
                arrived.clear()
                found = self.after(number)
                if found:
                    number = found.number if isinstance(found, Gap) else found[-1].number
                    yield found
                else:
                    await arrived.wait()
        finally:
            self._waiting.discard(arrived)
