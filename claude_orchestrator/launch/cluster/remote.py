"""An instance on a node, as the driver sees it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from claude_orchestrator.claude.stream import LineBatch
from claude_orchestrator.launch.base import Exit
from claude_orchestrator.launch.cluster.wire import CloseInput, Command, Send, Stop

KILLED = -9


class RemoteRunning:
    """A Running whose process is on a node. `tell` sends a command to the node's agent.

    `read` is called with the bytes of output that the run has taken.
    """

    def __init__(self, id: int, tell: Callable[[Command], None], read: Callable[[int], None]) -> None:
        self._id = id
        self._tell = tell
        self._read = read
        self._batches: deque[LineBatch] = deque()
        self._arrived = asyncio.Event()
        self._stream_ended = False
        self._exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    # -- called by the link --

    def feed(self, batch: LineBatch) -> None:
        """Take what it has printed."""
        self._batches.append(batch)
        self._arrived.set()

    def end_output(self) -> None:
        """It prints no more."""
        self._stream_ended = True
        self._arrived.set()

    def ended(self, exit: Exit) -> None:
        """It has ended, and everything that it started."""
        self.end_output()
        if not self._exit.done():
            self._exit.set_result(exit)

    # -- Running --

    async def output(self) -> AsyncIterator[LineBatch]:
        """Yield what arrives, in whole lines, until the stream ends or the node is lost."""
        while True:
            while self._batches:
                batch = self._batches.popleft()
                self._read(len(batch.raw))
                yield batch
            if self._stream_ended:
                return
            self._arrived.clear()
            await self._arrived.wait()

    def send(self, message: Mapping[str, Any]) -> None:
        """Write a JSON message to its standard input."""
        self._ask(Send(self._id, message))

    def close_input(self) -> None:
        """Close its standard input."""
        self._ask(CloseInput(self._id))

    def stop(self, grace_s: float) -> None:
        """Start to stop it."""
        self._ask(Stop(self._id, grace_s))

    def _ask(self, command: Command) -> None:
        if not self._exit.done():
            self._tell(command)

    async def wait(self) -> Exit:
        """Wait until it has ended. If its node is lost, that is when nothing of it can run any more."""
        return await asyncio.shield(self._exit)
