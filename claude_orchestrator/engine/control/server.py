"""Serves the control protocol on a run's socket. See docs/live.md for the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from claude_orchestrator.engine.control.event_log import ENCODER, Gap
from claude_orchestrator.engine.control.methods import Params, call
from claude_orchestrator.engine.control.rpc import (
    MAX_LINE_BYTES,
    Code,
    Request,
    RpcError,
    error_line,
    notification_line,
    read_request,
    result_line,
)
from claude_orchestrator.engine.control.run_control import RunControl
from claude_orchestrator.engine.control.socket_place import listen, peer_uid, remove
from token_budget.folders import Folder
from token_budget.owned import is_trusted

MAX_CONNECTIONS = 64
VIA = "socket"


class ControlServer:
    """Listens while its context is open. A connection of another user is closed without a word."""

    def __init__(self, control: RunControl, folder: Folder) -> None:
        self._control = control
        self._folder = folder
        self._listening: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._connections: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Listen. Raises OSError."""
        self._listening = listen(self._folder)
        self._accepting = asyncio.ensure_future(self._accept(self._listening))

    async def close(self) -> None:
        """Send what is due, and close all connections."""
        if self._listening is None or self._accepting is None:
            return
        for task in (self._accepting, *self._connections):
            task.cancel()
        await asyncio.wait([self._accepting, *self._connections])
        self._listening.close()
        with contextlib.suppress(OSError):
            remove(self._folder)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connected, _ = await loop.sock_accept(listening)
            except OSError:  # no more files
                await asyncio.sleep(0.1)
                continue
            uid = peer_uid(connected)
            if uid is not None and not is_trusted(uid):
                connected.close()
                continue
            if len(self._connections) >= MAX_CONNECTIONS:
                full = RpcError(Code.REFUSED, f"{MAX_CONNECTIONS} connections are open already")
                with contextlib.suppress(OSError):
                    connected.send(error_line(full))
                connected.close()
                continue
            task = asyncio.ensure_future(self._serve(connected, _user(uid)))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    async def _serve(self, connected: socket.socket, user: str) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=connected, limit=MAX_LINE_BYTES)
        connection = _Connection(self._control, writer, user)
        try:
            await connection.serve(reader)
        except (OSError, asyncio.CancelledError):
            pass  # the other side has left, or the run ends
        finally:
            connection.close()
            writer.close()


class _Connection:
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

    def _call(self, request: Request) -> Any:
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


def _user(uid: int | None) -> str:
    if uid is None:
        return ""
    import pwd  # only where somebody connects

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
