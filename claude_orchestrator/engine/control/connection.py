"""One client of a run's control socket. See docs/live.md for the protocol."""

from __future__ import annotations

import asyncio
from typing import Any

from claude_orchestrator.engine.control.event_log import ENCODER, Gap
from claude_orchestrator.engine.control.methods import Params, call
from claude_orchestrator.engine.control.rpc import (
    MAX_LINE_BYTES,
    Code,
    RpcError,
    RpcRequest,
    error_line,
    notification_line,
    read_request,
    result_line,
)
from claude_orchestrator.engine.control.run_control import RunControl

VIA = "socket"


class Connection:
    """One client: its requests in their order, and the events that it asked for."""

    def __init__(self, control: RunControl, writer: asyncio.StreamWriter, user: str) -> None:
        self._control = control
        self._writer = writer
        self._user = user
        self._following: asyncio.Task[None] | None = None

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Answer until the client leaves, or sends a line that is too long."""
        while True:
            try:
                line = await reader.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                return
            except asyncio.LimitOverrunError:
                error = RpcError(Code.INVALID, f"a request has at most {MAX_LINE_BYTES:,} bytes")
                await self._write(error_line(error))
                return
            if line.strip():
                await self._answer(line)

    def close(self) -> None:
        """Send no more events."""
        if self._following is not None:
            self._following.cancel()

    async def _answer(self, line: bytes) -> None:
        try:
            request = read_request(line)
            result = self._call(request)
        except RpcError as error:
            await self._write(error_line(error))
            return
        if request.answered:
            await self._write(result_line(request.id, result))

    def _call(self, request: RpcRequest) -> Any:
        if request.method != "events":
            return call(self._control, request, VIA, self._user)
        params = Params(request)
        number, source = params.number("since"), params.text("source", "")
        self.close()
        self._following = asyncio.ensure_future(self._follow(number, source))
        return {"source": self._control.log.source}

    async def _follow(self, number: int, source: str) -> None:
        """Send events as notifications, and a snapshot where the client cannot continue otherwise."""
        control = self._control
        try:
            async for found in control.log.follow(number, source):
                if isinstance(found, Gap):
                    lines = notification_line("snapshot", ENCODER.encode(control.status()))
                else:
                    lines = b"".join(notification_line("event", one.text(control.describe)) for one in found)
                await self._write(lines)
        except OSError:
            pass  # the reader has left
        except Exception as error:
            control.complain(f"a reader of the control socket gets no more events: {type(error).__name__}: {error}")
            self._writer.close()

    async def _write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()
