"""What the page's server answers: each route with its access, and what it does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from claude_orchestrator.engine.control.rpc import RpcError
from claude_orchestrator.ui.metrics import CONTENT_TYPE
from claude_orchestrator.ui.web.assets import assets
from claude_orchestrator.ui.web.checks import Access, sign_in_headers
from claude_orchestrator.ui.web.feed import Feed
from claude_orchestrator.ui.web.keys import Keys
from claude_orchestrator.ui.web.run_files import NoFileError, RunFiles
from claude_orchestrator.ui.web.sources import RunSource
from token_budget.named_tuples import NamedTuple

MAX_BODY_BYTES = 64 * 1024
WRONG_PASSWORD_S = 1.0
ACTIONS = frozenset({"stop", "stop_run", "pause", "resume", "set_limit", "set_max_parallel", "approve", "deny"})


class Request(NamedTuple):
    """A request that was admitted."""

    query: Mapping[str, str]
    body: bytes


class Answer(NamedTuple):
    """An answer: a status, bytes of a type, and further headers."""

    data: bytes
    content_type: str = "application/json"
    status: int = 200
    headers: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Site:
    """What the routes work with."""

    source: RunSource
    feed: Feed
    files: RunFiles
    keys: Keys
    cookie: str
    read_only: bool
    metrics: Callable[[], str] | None = None


Handler = Callable[[Site, Request], Awaitable[Answer]]


class Route(NamedTuple):
    """A route and who may use it."""

    access: Access
    handler: Handler


class RequestError(Exception):
    """A request that cannot be answered as it asks."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def error_answer(status: int, text: str) -> Answer:
    """An answer that says what is wrong."""
    return Answer(json.dumps({"error": text}).encode(), status=status)


async def _open(site: Site, request: Request) -> Answer:
    """Exchange a ticket for the cookie."""
    if not site.keys.redeem(request.query.get("ticket", "")):
        return Answer(b"", status=303, headers={"Location": "/?refused"})
    return Answer(b"", status=303, headers={"Location": "/", **sign_in_headers(site.cookie, site.keys.cookie())})


async def _sign_in(site: Site, request: Request) -> Answer:
    """Exchange the password for the cookie."""
    password = _params(request).get("password")
    if not isinstance(password, str) or not site.keys.opens(password):
        await asyncio.sleep(WRONG_PASSWORD_S)
        raise RequestError(403, "wrong password")
    return Answer(b"{}", headers=sign_in_headers(site.cookie, site.keys.cookie()))


async def _about(site: Site, request: Request) -> Answer:
    """What the page has to know before anybody has signed in."""
    return _json({"password": site.keys.needs_password, "read_only": site.read_only})


async def _snapshot(site: Site, request: Request) -> Answer:
    return _json(await site.feed.snapshot())


async def _approvals(site: Site, request: Request) -> Answer:
    return _json(await site.source.approvals())


async def _conversation(site: Site, request: Request) -> Answer:
    logs, attempt = await _logs(site, request)
    offset = max(0, _number(request, "from", 0))
    found = await asyncio.to_thread(site.files.conversation, logs[attempt - 1], offset)
    return _json({**found, "attempt": attempt, "attempts": len(logs)})


async def _log(site: Site, request: Request) -> Answer:
    logs, attempt = await _logs(site, request)
    part = await asyncio.to_thread(site.files.raw, logs[attempt - 1], _number(request, "from", 0))
    return _text(part.data, {"X-Next": str(part.next), "X-Size": str(part.size)})


async def _answer(site: Site, request: Request) -> Answer:
    part = await asyncio.to_thread(site.files.answer, await _row(site, request))
    return _text(part.data, {"X-Size": str(part.size)})


async def _patch(site: Site, request: Request) -> Answer:
    part = await asyncio.to_thread(site.files.patch, await _row(site, request))
    return _text(part.data, {"X-Size": str(part.size)})


async def _act(site: Site, request: Request) -> Answer:
    """Change the run."""
    params = _params(request)
    method, given = params.get("method"), params.get("params", {})
    if method not in ACTIONS or not isinstance(given, dict):
        raise RequestError(400, "expected a method of the run and its params")
    try:
        return _json({"result": await site.source.act(method, given)})
    except RpcError as error:
        raise RequestError(409, str(error)) from None


async def _metrics(site: Site, request: Request) -> Answer:
    if site.metrics is None:
        raise RequestError(404, "no such page")
    return Answer(site.metrics().encode(), CONTENT_TYPE)


async def _file(site: Site, request: Request) -> Answer:
    raise AssertionError("answered by its path")


EVENTS = "/api/events"
METRICS = "/metrics"
ROUTES: Mapping[tuple[str, str], Route] = {
    ("GET", "/open"): Route(Access.PUBLIC, _open),
    ("POST", "/api/sign-in"): Route(Access.PUBLIC, _sign_in),
    ("GET", "/api/about"): Route(Access.PUBLIC, _about),
    ("GET", EVENTS): Route(Access.READ, _snapshot),
    ("GET", "/api/snapshot"): Route(Access.READ, _snapshot),
    ("GET", "/api/conversation"): Route(Access.READ, _conversation),
    ("GET", "/api/log"): Route(Access.READ, _log),
    ("GET", "/api/answer"): Route(Access.READ, _answer),
    ("GET", "/api/patch"): Route(Access.READ, _patch),
    ("GET", "/api/approvals"): Route(Access.READ, _approvals),
    ("GET", METRICS): Route(Access.READ, _metrics),
    ("POST", "/api/act"): Route(Access.ACT, _act),
    **{("GET", path): Route(Access.PUBLIC, _file) for path in assets()},
}


async def answer(site: Site, method: str, path: str, request: Request) -> Answer:
    """Answer a request that its route admits."""
    if method == "GET" and path in assets():
        asset = assets()[path]
        return Answer(asset.data, asset.content_type, headers={"Cache-Control": "no-cache"})
    try:
        return await ROUTES[method, path].handler(site, request)
    except NoFileError as error:
        return error_answer(404, str(error))
    except RequestError as error:
        return error_answer(error.status, str(error))


def _json(data: object) -> Answer:
    return Answer(json.dumps(data, separators=(",", ":"), default=str).encode())


def _text(data: bytes, headers: Mapping[str, str]) -> Answer:
    """What an instance wrote: never more than text to a browser."""
    return Answer(data, "text/plain; charset=utf-8", headers=headers)


def _params(request: Request) -> dict[str, Any]:
    try:
        data = json.loads(request.body.decode())
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise RequestError(400, "expected a JSON object")
    return data


def _number(request: Request, name: str, default: int) -> int:
    text = request.query.get(name, "")
    if not text:
        return default
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 15):
        raise RequestError(400, f"{name}: expected a whole number")
    return int(text)


async def _logs(site: Site, request: Request) -> tuple[list[str], int]:
    """The logs of an instance, and which of its attempts is meant, from 1."""
    logs = site.files.attempts(await _row(site, request))
    attempt = _number(request, "attempt", len(logs))
    if not 1 <= attempt <= len(logs):
        raise NoFileError("no such attempt")
    return logs, attempt


async def _row(site: Site, request: Request) -> Mapping[str, Any]:
    name = request.query.get("instance", "")
    row = await site.source.instance(name)
    if row is None:
        raise RequestError(404, "no such instance")
    return row
