"""Listens on a run's control socket. What serves a client is loaded when the first one connects."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from claude_orchestrator.engine.control.socket_place import listen, peer_uid, remove
from claude_orchestrator.launch.background import Tasks
from token_budget.folders import Folder
from token_budget.owned import is_trusted

if TYPE_CHECKING:
    from claude_orchestrator.engine.control.run_control import RunControl

MAX_CONNECTIONS = 64


class ControlOnDemand:
    """Makes the control of a run when somebody first asks for it: most runs need none."""

    def __init__(self, make: Callable[[], RunControl]) -> None:
        self._make = make
        self._made: RunControl | None = None
        self._ended = False

    def __call__(self) -> RunControl:
        """The control of the run."""
        if self._made is None:
            self._made = self._make()
            if self._ended:
                self._made.end()
        return self._made

    def end(self) -> None:
        """The run has ended. It can still be seen, but no longer changed."""
        self._ended = True
        if self._made is not None:
            self._made.end()


class ControlServer:
    """Listens until it is closed. A connection of another user is closed without an answer."""

    def __init__(self, control: ControlOnDemand, folder: Folder) -> None:
        self._control = control
        self._folder = folder
        self._listening: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._connections = Tasks()

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
                _refuse(connected)
                continue
            self._connections.start(self._serve(connected, _user(uid)))

    async def _serve(self, connected: socket.socket, user: str) -> None:
        from claude_orchestrator.engine.control.connection import Connection
        from claude_orchestrator.engine.control.rpc import MAX_LINE_BYTES

        reader, writer = await asyncio.open_unix_connection(sock=connected, limit=MAX_LINE_BYTES)
        connection = Connection(self._control(), writer, user)
        try:
            await connection.serve(reader)
        except (OSError, asyncio.CancelledError):
            pass  # the other side has left, or the run ends
        finally:
            connection.close()
            writer.close()


def _refuse(connected: socket.socket) -> None:
    from claude_orchestrator.engine.control.rpc import Code, RpcError, error_line

    full = RpcError(Code.REFUSED, f"{MAX_CONNECTIONS} connections are open already")
    with contextlib.suppress(OSError):
        connected.send(error_line(full))
    connected.close()


def _user(uid: int | None) -> str:
    if uid is None:
        return ""
    import pwd  # only where somebody connects

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
