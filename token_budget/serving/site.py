"""What a page's server serves: its routes with their access, and what is alike in all sites."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Protocol

from token_budget.named_tuples import NamedTuple
from token_budget.serving.checks import Access, sign_in_headers
from token_budget.serving.keys import Keys

MAX_BODY_BYTES = 64 * 1024
WRONG_PASSWORD_S = 1.0


class Request(NamedTuple):
    """A request that was admitted."""

    query: Mapping[str, str]
    body: bytes


class HttpAnswer(NamedTuple):
    """An answer: a status, bytes of a type, and further headers."""

    data: bytes
    content_type: str = "application/json"
    status: int = 200
    headers: Mapping[str, str] = {}


class RequestError(Exception):
    """A request that cannot be answered as it asks."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Route(NamedTuple):
    """A route: who may use it, and what it answers. `scraped`: a program may show the password in a header."""

    access: Access
    handler: Callable[[Any, Request], Awaitable[HttpAnswer]]
    scraped: bool = False


Routes = Mapping[tuple[str, str], Route]
Messages = AsyncGenerator[bytes, None]


class Site(Protocol):
    """A page and what it shows. Handlers of its routes get the site itself."""

    @property
    def keys(self) -> Keys:
        """Who may sign in."""

    @property
    def cookie(self) -> str:
        """The name of its cookie."""

    @property
    def read_only(self) -> bool:
        """Whether the page changes nothing."""

    @property
    def routes(self) -> Routes:
        """Its routes by method and path."""

    def events(self, path: str, last_id: str) -> Messages | None:
        """Server-sent events after an id, if the path has such; None for any other path."""


async def answer(site: Site, route: Route, request: Request) -> HttpAnswer:
    """Answer a request that the route admits."""
    try:
        return await route.handler(site, request)
    except RequestError as error:
        return error_answer(error.status, str(error))


def error_answer(status: int, text: str) -> HttpAnswer:
    """An answer that says what is wrong."""
    return HttpAnswer(json.dumps({"error": text}).encode(), status=status)


def json_answer(data: object) -> HttpAnswer:
    """An answer with JSON data."""
    return HttpAnswer(json.dumps(data, separators=(",", ":"), default=str).encode())


def params_of(request: Request) -> dict[str, Any]:
    """The JSON object in a body. Raises RequestError."""
    try:
        data = json.loads(request.body.decode())
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise RequestError(400, "expected a JSON object")
    return data


def number_in(request: Request, name: str, default: int) -> int:
    """A whole number of the query. Raises RequestError."""
    text = request.query.get(name, "")
    if not text:
        return default
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 15):
        raise RequestError(400, f"{name}: expected a whole number")
    return int(text)


async def _open(site: Site, request: Request) -> HttpAnswer:
    """Exchange a ticket for the cookie."""
    if not site.keys.redeem(request.query.get("ticket", "")):
        return HttpAnswer(b"", status=303, headers={"Location": "/?refused"})
    return HttpAnswer(b"", status=303, headers={"Location": "/", **sign_in_headers(site.cookie, site.keys.cookie())})


async def _sign_in(site: Site, request: Request) -> HttpAnswer:
    """Exchange the password for the cookie."""
    password = params_of(request).get("password")
    if not isinstance(password, str) or not site.keys.opens(password):
        await asyncio.sleep(WRONG_PASSWORD_S)
        raise RequestError(403, "wrong password")
    return HttpAnswer(b"{}", headers=sign_in_headers(site.cookie, site.keys.cookie()))


async def _about(site: Site, request: Request) -> HttpAnswer:
    """What the page has to know before anybody has signed in."""
    return json_answer({"password": site.keys.needs_password, "read_only": site.read_only})


SIGNING_IN: Routes = {
    ("GET", "/open"): Route(Access.PUBLIC, _open),
    ("POST", "/api/sign-in"): Route(Access.PUBLIC, _sign_in),
    ("GET", "/api/about"): Route(Access.PUBLIC, _about),
}
