"""The gateway's door: who may connect, and for how long without the secret of an instance."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestHandler

MAX_STRANGERS = 64  # connections that have not shown a secret, beside those of the instances
STRANGERS_EACH = 2  # that an instance may open before the gateway has read their first header
SHOW_SECRET_S = 10.0  # claude sends its first header within milliseconds
BATCH = 64  # so many connections are accepted before the first of them is judged
FILES = MAX_STRANGERS + 2 * BATCH  # that the door may have open at once
SERVER = "gateway"
OwnerOf = Callable[[tuple[str, int], tuple[str, int]], int | None]

_DIAG, _BY_FAMILY, _REQUEST = 4, 20, 1  # sock_diag(7)
_HEADER, _UID_AT = 16, 16 + 4 + 48 + 12  # nlmsghdr; then inet_diag_msg up to idiag_uid


def owner_of_peer(peer: tuple[str, int], own: tuple[str, int]) -> int | None:
    """The user of the process at the other end of a connection on this machine; None where the system does not say."""
    if sys.platform != "linux":
        return None
    try:
        return _ask_kernel(peer, own)
    except (OSError, struct.error):
        return _look_up(peer, own)


def _ask_kernel(peer: tuple[str, int], own: tuple[str, int]) -> int | None:
    ends = (socket.inet_aton(end[0]) for end in (peer, own))
    connection = struct.pack("!HH4s12x4s12x", peer[1], own[1], *ends) + struct.pack("=III", 0, 2**32 - 1, 2**32 - 1)
    body = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 2**32 - 1) + connection
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _DIAG) as asking:
        asking.settimeout(0.1)
        asking.send(struct.pack("=IHHII", _HEADER + len(body), _BY_FAMILY, _REQUEST, 1, 0) + body)
        answer = asking.recv(4096)
    (kind,) = struct.unpack_from("=H", answer, 4)
    if kind != _BY_FAMILY:
        raise OSError(-struct.unpack_from("=i", answer, _HEADER)[0], "no such connection")
    uid: int = struct.unpack_from("=I", answer, _UID_AT)[0]
    return uid


def _look_up(peer: tuple[str, int], own: tuple[str, int]) -> int | None:
    """The same from the kernel's list of all connections."""
    wanted = [f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{port:04X}" for host, port in (peer, own)]
    try:
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    except OSError:
        return None
    rows = (line.split() for line in lines)
    return next((int(row[7]) for row in rows if row[1:3] == wanted), None)


class Handler(RequestHandler):
    """A connection. What aiohttp itself answers names no software and says no more than a status."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no request, or after an error."""
        response = web.Response(status=status, headers={hdrs.SERVER: SERVER})
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Any:
        """Send the answer, or what is left of it."""
        if not resp.prepared:
            resp.headers.setdefault(hdrs.SERVER, SERVER)
        return await super().finish_response(request, resp, start_time)


class Door(web.Server):
    """A server that drops connections of other users, and those that show no secret in time.

    Of connections without a secret it keeps the newest: whoever opens more closes his own oldest ones. Their number
    grows with the instances, which may all connect at once.
    """

    def __init__(self, handler: Any, *, owner_of: OwnerOf = owner_of_peer, **options: Any) -> None:
        super().__init__(handler, **options)
        self._owner_of = owner_of
        self._strangers: dict[RequestHandler, asyncio.TimerHandle] = {}
        self._most = MAX_STRANGERS

    def expect(self, instances: int) -> None:
        """From now on so many instances may connect."""
        self._most = MAX_STRANGERS + STRANGERS_EACH * instances

    def __call__(self) -> RequestHandler:
        """A handler for a new connection."""
        return Handler(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Judge a new connection."""
        super().connection_made(handler, transport)
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        if sys.platform != "win32" and self._owner_of(peer, own) not in (None, os.geteuid()):
            self._loop.call_soon(transport.abort)  # once its task runs: aiohttp expects that
            return
        self._strangers[handler] = self._loop.call_later(SHOW_SECRET_S, transport.abort)
        if len(self._strangers) > self._most:
            oldest = next(iter(self._strangers))
            self.admit(oldest)
            self._loop.call_soon(self._connections[oldest].abort)

    def admit(self, handler: RequestHandler) -> None:
        """A connection has shown the secret of an instance."""
        timer = self._strangers.pop(handler, None)
        if timer is not None:
            timer.cancel()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Forget a connection."""
        self.admit(handler)
        super().connection_lost(handler, exc)
