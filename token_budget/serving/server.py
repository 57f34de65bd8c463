"""The server of a page: HTTP on one address, for one site. Needs the extra `web` (aiohttp)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping

from aiohttp import hdrs, web

from token_budget.serving.bodies import read_body
from token_budget.serving.checks import HEADERS, Access, Visitor, cookie_of, is_our_name, names_of, refusal
from token_budget.serving.door import Door, any_user
from token_budget.serving.site import (
    MAX_BODY_BYTES,
    WRONG_PASSWORD_S,
    HttpAnswer,
    Messages,
    Request,
    Site,
    answer,
    error_answer,
)

MAX_HEADER_BYTES = 8_190
MAX_PAGES = 64  # that follow a site at once
STUCK_S = 10.0  # a page that takes nothing for so long is dropped
CLOSE_S = 0.5
LAST_WORDS_S = 1.0  # for pages to take what was said last
BACKLOG = 64


class PageServer:
    """Serves a site on a socket while its context is open. `host` is the address that the socket is bound to."""

    def __init__(self, site: Site, listening: socket.socket, host: str) -> None:
        self._site = site
        self._listening = listening
        self._names = names_of(
            host, (socket.gethostname(), socket.getfqdn()) if host not in ("127.0.0.1", "::1") else ()
        )
        self._any_address = self._names > names_of("127.0.0.1")
        self._pages: set[asyncio.Task[object]] = set()
        self._closing = contextlib.AsyncExitStack()

    async def __aenter__(self) -> PageServer:
        self._door = Door(self._handle, owner_of=any_user, max_header_bytes=MAX_HEADER_BYTES)
        runner = web.ServerRunner(self._door, shutdown_timeout=CLOSE_S)
        await runner.setup()
        self._closing.push_async_callback(runner.cleanup)
        await web.SockSite(runner, self._listening, backlog=BACKLOG).start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._pages:
            await asyncio.wait(self._pages, timeout=LAST_WORDS_S)
        for task in self._pages:
            task.cancel()
        await self._closing.aclose()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = request.headers
        host = headers.get(hdrs.HOST, "")
        if not is_our_name(host, self._names, any_address=self._any_address):
            return _response(error_answer(421, "this server has another name"))
        route = self._site.routes.get((request.method, request.path))
        if route is None:
            return _response(error_answer(404, "no such page"))
        visitor = self._visitor(headers, host)
        if route.scraped and not visitor.signed_in and await self._is_scraper(headers):
            visitor = visitor._replace(signed_in=True)
        refused = refusal(route.access, visitor, read_only=self._site.read_only)
        if refused is not None:
            return _response(error_answer(refused.status, refused.text))
        if route.access is not Access.PUBLIC:
            self._door.admit(request.protocol)
        last_id = request.headers.get("Last-Event-ID") or request.query.get("last", "")
        messages = self._site.events(request.path, last_id)
        if messages is not None:
            return await self._events(request, messages)
        body = await read_body(request, MAX_BODY_BYTES)
        if body is None:
            return _response(error_answer(413, f"a request has at most {MAX_BODY_BYTES // 1024} KiB"))
        return _response(await answer(self._site, route, Request(request.query, body)))

    async def _is_scraper(self, headers: Mapping[str, str]) -> bool:
        """Whether a program that collects metrics has the password. A wrong one costs time."""
        scheme, _, password = headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        is_right = self._site.keys.opens(password.strip())
        if not is_right:
            await asyncio.sleep(WRONG_PASSWORD_S)
        return is_right

    def _visitor(self, headers: Mapping[str, str], host: str) -> Visitor:
        cookie = cookie_of(headers.get(hdrs.COOKIE, ""), self._site.cookie)
        return Visitor(
            host,
            headers.get(hdrs.ORIGIN),
            headers.get("Sec-Fetch-Site"),
            headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower(),
            self._site.keys.knows(cookie),
        )

    async def _events(self, request: web.BaseRequest, messages: Messages) -> web.StreamResponse:
        """Server-sent events, until the page leaves, is stuck, or there will be no more."""
        if len(self._pages) >= MAX_PAGES:
            return _response(error_answer(503, f"{MAX_PAGES} pages are open already"))
        response = web.StreamResponse(headers={**HEADERS, hdrs.CONTENT_TYPE: "text/event-stream"})
        task = asyncio.current_task()
        assert task is not None
        self._pages.add(task)
        try:
            await response.prepare(request)
            if request.transport is not None:
                request.transport.set_write_buffer_limits(high=64 * 1024)
            async with contextlib.aclosing(messages) as open_messages:
                async for data in open_messages:
                    async with asyncio.timeout(STUCK_S):
                        await response.write(data)
        except (TimeoutError, ConnectionError):
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._pages.discard(task)
        return response


def _response(made: HttpAnswer) -> web.Response:
    headers = {**HEADERS, **made.headers, hdrs.CONTENT_TYPE: made.content_type}
    response = web.Response(body=made.data, status=made.status, headers=headers)
    if made.status in (400, 413, 421):
        response.force_close()
    return response
