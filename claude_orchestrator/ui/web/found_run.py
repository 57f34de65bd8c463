"""A run of another process, or one that is over, as the source of a page."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from claude_orchestrator.engine.control.client import AnsweredError, ControlClient, Notification
from claude_orchestrator.engine.control.event_log import Gap
from claude_orchestrator.engine.control.rpc import Code, RpcError
from claude_orchestrator.engine.control.runs import FoundRun, connect, status_of
from claude_orchestrator.ui.web.frames import LATEST, Key, Numbered

AGAIN_S = 1.0  # between looks for an orchestrator that resumes the run
MAX_WAITING = 20_000  # events that the server has not taken yet
PAST = "past"


class FoundRunSource:
    """A run by its directory: through its socket while an orchestrator has it, else from its journal."""

    def __init__(self, run: FoundRun) -> None:
        self._run = run
        self._name = PAST
        self._past: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """The orchestrator of the run; `past` where there is none."""
        return self._name

    async def snapshot(self) -> Mapping[str, Any]:
        """The whole run."""
        found = await asyncio.to_thread(status_of, self._run)
        return self._known({"number": 0, "source": PAST, **found})

    async def brief(self) -> Mapping[str, Any]:
        """The run without its instances."""
        if self._past is not None and self._name == PAST:
            return self._past
        return self._known(
            {"number": 0, "source": PAST, **await asyncio.to_thread(partial(status_of, self._run, brief=True))}
        )

    def _known(self, found: Mapping[str, Any]) -> Mapping[str, Any]:
        self._name = found["source"]
        self._past = found if self._name == PAST else None
        return found

    async def instance(self, name: str) -> Mapping[str, Any] | None:
        """The row of one instance."""
        rows = (await self.snapshot())["instances"] if self._past is None else self._past["instances"]
        return next((row for row in rows if row["name"] == name), None)

    async def approvals(self) -> Sequence[Mapping[str, Any]]:
        """The tools that wait for a person."""
        found: Sequence[Mapping[str, Any]] = await self.act("approvals", {})
        return found

    async def act(self, method: str, params: Mapping[str, Any]) -> Any:
        """Change the run."""
        try:
            return await asyncio.to_thread(self._call, method, params)
        except AnsweredError as error:
            raise RpcError(Code.REFUSED, str(error)) from None
        except OSError as error:
            raise RpcError(Code.REFUSED, f"the run cannot be reached: {error.strerror or error}") from None

    def _call(self, method: str, params: Mapping[str, Any]) -> Any:
        client = connect(self._run)
        if client is None:
            raise AnsweredError(Code.REFUSED, f"run {self._run.id} has ended")
        with client:
            return client.call(method, **params)

    async def follow(self, number: int) -> AsyncGenerator[Sequence[Numbered] | Gap, None]:
        """What comes after a number; a Gap where another orchestrator has the run, or none any more."""
        while True:
            client = await asyncio.to_thread(connect, self._run, None)
            if client is None:
                yield Gap(0)
                while client is None:
                    await asyncio.sleep(AGAIN_S)
                    client = await asyncio.to_thread(connect, self._run, None)
            with client:
                async with contextlib.aclosing(_numbered_events(client)) as messages:
                    async for found in messages:
                        if isinstance(found, Gap):
                            self._past = None
                        yield found


async def _numbered_events(client: ControlClient) -> AsyncGenerator[Sequence[Numbered] | Gap, None]:
    """What an orchestrator tells, until it leaves. A thread reads, because the client blocks."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[Notification | None]()
    room = threading.Semaphore(MAX_WAITING)

    def read() -> None:
        with contextlib.suppress(OSError, ValueError, RuntimeError, AnsweredError):
            for notification in client.follow():
                room.acquire()
                loop.call_soon_threadsafe(queue.put_nowait, notification)
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(queue.put_nowait, None)

    threading.Thread(target=read, daemon=True).start()
    try:
        while (notification := await queue.get()) is not None:
            room.release()
            yield _numbered(notification)
    finally:
        client.shut()
        room.release(MAX_WAITING)


def _numbered(notification: Notification) -> Sequence[Numbered] | Gap:
    data = notification.data
    if notification.kind == "snapshot":
        return Gap(data["number"])
    kind, number = data["kind"], data["number"]
    key: Key = (kind, data["instance"]) if kind in LATEST else number
    return [Numbered(number, data["at"], key, _constant(data))]


def _constant(data: Mapping[str, Any]) -> Callable[[], Mapping[str, Any]]:
    return lambda: data
