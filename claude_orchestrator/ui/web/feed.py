"""Turns the events of a run into messages that all pages share, at a pace that costs the run little."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any

from claude_orchestrator.engine.control.event_log import Gap
from claude_orchestrator.ui.web.frames import ENCODER, Frame, Pending, sse
from claude_orchestrator.ui.web.sources import RunSource
from claude_orchestrator.ui.web.timeline import Timeline

COLLECT_EVERY_S = 0.4
EVERY_S = 0.3
SLOW_S = 3.0  # where the run itself does too little for more
LEAST_SHARE = 50  # times what a message took is what the rest of the process has done since the one before
LEAST_PAUSE = 25  # times what the last message took to make: at most 4 % of a processor
BYTES_PER_S = 40_000  # to one page, on average
MAX_FRAMES = 64
MAX_FRAME_BYTES = 8 * 1024 * 1024  # of all that are kept
FRESH_S = 1.0  # pages that open together share a snapshot
QUIET_S = 15.0  # then a page gets a sign of life
SAMPLE_S = 2.0


class Feed:
    """Reads a run while somebody looks, and keeps its latest messages for pages that come back."""

    def __init__(
        self, source: RunSource, timeline: Timeline | None = None, wall: Callable[[], float] = time.time
    ) -> None:
        self._source = source
        self._wall = wall
        self._frames: deque[tuple[Frame, bytes]] = deque()
        self._kept_bytes = 0
        self._number = -1
        self._pages = 0
        self._pending = Pending()
        self._has_events = asyncio.Event()
        self._arrived = asyncio.Condition()
        self._reading: asyncio.Task[None] | None = None
        self._sampling: asyncio.Task[None] | None = None
        self._ended = False
        self._last = b""
        self._made = float("-inf"), b"", -1  # when a snapshot was made, and it
        self.timeline = timeline or Timeline()

    def start(self) -> None:
        """Take samples from now on."""
        self._sampling = asyncio.ensure_future(self._sample())

    async def close(self) -> None:
        """Stop reading. Pages get the run as it is now, and then the end."""
        if self._pages:
            self._last = (await self._snapshot())[0]
        self._ended = True
        for task in (self._reading, self._sampling):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        async with self._arrived:
            self._arrived.notify_all()

    async def page(self, last_id: str) -> AsyncGenerator[bytes, None]:
        """The messages of one page, which has seen those up to `last_id`; first a snapshot where it needs one."""
        self._pages += 1
        self._read()
        number = self._number_of(last_id)
        number = -1 if number > self._number else number  # from before a restart, which may count anew
        try:
            while not self._ended:
                found = self._after(number)
                if found is None:
                    data, number = await self._snapshot(FRESH_S)
                    yield data
                elif found:
                    number = found[-1][0].number
                    yield b"".join(data for _, data in found)
                elif not await self._wait():
                    yield b": quiet\n\n"
            yield self._last + sse("bye", "{}")
        finally:
            self._pages -= 1
            if self._pages == 0 and self._reading is not None:
                self._reading.cancel()
                self._reading = None

    async def snapshot(self) -> dict[str, Any]:
        """The run as a page needs it first."""
        data = dict(await self._source.snapshot())
        self.timeline.take(self._wall(), data)
        return {**data, "timeline": self.timeline.data(), "at": self._wall()}

    async def _snapshot(self, fresh_s: float = 0.0) -> tuple[bytes, int]:
        """A snapshot as a message, and its number. One that is not older than `fresh_s` will do if frames join it."""
        made_at, data, number = self._made
        if time.monotonic() - made_at > fresh_s or self._after(number) is None:
            found = await self.snapshot()
            number = int(found["number"])
            data = sse("snapshot", ENCODER.encode(found), self._id(number))
            self._made = time.monotonic(), data, number
        return data, number

    def _id(self, number: int) -> str:
        return f"{number}@{self._source.name}"

    def _number_of(self, last_id: str) -> int:
        """The number in an id of this orchestrator; -1, which nothing follows, for any other."""
        text, _, name = last_id.partition("@")
        return int(text) if name == self._source.name and text.isascii() and text.isdigit() else -1

    def _after(self, number: int) -> list[tuple[Frame, bytes]] | None:
        """The messages after a number; None if they do not join it."""
        if number < 0:
            return None
        newer = [kept for kept in self._frames if kept[0].number > number]
        if not newer:
            return [] if number >= self._number else None
        return newer if newer[0][0].since <= number else None

    async def _wait(self) -> bool:
        """Wait for a message; False if none has come for a while."""
        try:
            async with asyncio.timeout(QUIET_S), self._arrived:
                await self._arrived.wait()
        except TimeoutError:
            return False
        return True

    def _read(self) -> None:
        if self._reading is None:
            self._forget()
            self._number = -1
            self._reading = asyncio.ensure_future(self._follow())

    def _forget(self) -> None:
        self._pending.clear()
        self._frames.clear()
        self._kept_bytes = 0

    async def _follow(self) -> None:
        """Make messages while somebody looks."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._collect())
            group.create_task(self._emit())

    async def _collect(self) -> None:
        async with contextlib.aclosing(self._source.follow(-1)) as batches:
            async for found in batches:
                if isinstance(found, Gap):
                    self._forget()
                    self._number = found.number
                    await self._notify()
                    continue
                self._pending.add(found)
                self._has_events.set()
                await asyncio.sleep(COLLECT_EVERY_S)

    async def _emit(self) -> None:
        ended_at = time.process_time()
        while True:
            await self._has_events.wait()
            self._has_events.clear()
            if not self._pending:
                continue
            begun_at = time.process_time()
            others_s = begun_at - ended_at
            brief = await self._source.brief()
            self.timeline.take(self._wall(), brief)
            made = self._pending.take(self._number, brief)
            self._number = made.number
            self._keep(made)
            await self._notify()
            if self._pending:  # more than one message takes
                self._has_events.set()
            ended_at = time.process_time()
            took_s = ended_at - begun_at
            every_s = EVERY_S if others_s >= LEAST_SHARE * took_s else SLOW_S
            await asyncio.sleep(max(every_s, LEAST_PAUSE * took_s, len(made.data) / BYTES_PER_S))

    def _keep(self, made: Frame) -> None:
        data = sse("frame", made.data, self._id(made.number))
        self._frames.append((made, data))
        self._kept_bytes += len(data)
        while len(self._frames) > MAX_FRAMES or self._kept_bytes > MAX_FRAME_BYTES:
            self._kept_bytes -= len(self._frames.popleft()[1])

    async def _notify(self) -> None:
        async with self._arrived:
            self._arrived.notify_all()

    async def _sample(self) -> None:
        while True:
            if self._reading is None and self.timeline.due(self._wall()):  # else messages take them
                self.timeline.take(self._wall(), await self._source.brief())
            await asyncio.sleep(SAMPLE_S)
