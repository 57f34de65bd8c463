"""The door of a server: how many connections may show no secret yet, and for how long. Needs aiohttp."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestHandler

MAX_STRANGERS = 128  # connections that have not shown a secret, beside those that the server expects
STRANGERS_EACH = 16  # that one of the expected may open before a busy server has read their first header
SHOW_SECRET_S = 10.0  # programs and browsers send their first header within milliseconds
SERVER = "gateway"
SILENT = logging.Logger("door")
SILENT.addHandler(logging.NullHandler())
OwnerOf = Callable[[tuple[str, int], tuple[str, int]], int | None]


def any_user(peer: tuple[str, int], own: tuple[str, int]) -> int | None:
    """Lets every user of this machine connect: the browser of a user is not always his own process."""
    return None


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
    grows with those that the server expects, which may all connect at once.
    """

    def __init__(self, handler: Any, *, owner_of: OwnerOf, max_header_bytes: int, **options: Any) -> None:
        options |= {"max_line_size": max_header_bytes, "max_field_size": max_header_bytes}
        # nothing of a request may get into a log
        super().__init__(handler, handler_cancellation=True, access_log=None, logger=SILENT, **options)
        self._owner_of = owner_of
        self._strangers: dict[RequestHandler, asyncio.TimerHandle] = {}
        self._most = MAX_STRANGERS

    def expect(self, number: int) -> None:
        """From now on so many more may connect at once."""
        self._most = MAX_STRANGERS + STRANGERS_EACH * number

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
        """A connection has shown a secret."""
        timer = self._strangers.pop(handler, None)
        if timer is not None:
            timer.cancel()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Forget a connection."""
        self.admit(handler)
        super().connection_lost(handler, exc)
