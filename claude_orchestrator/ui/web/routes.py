"""What the server of a run's page answers: each route with its access, and what it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from claude_orchestrator.engine.control.rpc import RpcError
from claude_orchestrator.ui.web.assets import assets
from claude_orchestrator.ui.web.feed import Feed
from claude_orchestrator.ui.web.run_files import NoFileError, RunFiles
from claude_orchestrator.ui.web.sources import RunSource
from token_budget.serving.assets import asset_routes
from token_budget.serving.checks import Access
from token_budget.serving.keys import Keys
from token_budget.serving.listening import EXTRA
from token_budget.serving.site import (
    SIGNING_IN,
    HttpAnswer,
    Request,
    RequestError,
    Route,
    Routes,
    json_answer,
    number_in,
    params_of,
)

ACTIONS = frozenset({"stop", "stop_run", "pause", "resume", "set_limit", "set_max_parallel", "approve", "deny"})


@dataclass(frozen=True, slots=True)
class RunSite:
    """What the routes work with."""

    source: RunSource
    feed: Feed
    files: RunFiles
    keys: Keys
    cookie: str
    read_only: bool
    metrics: Callable[[], str] | None = None

    @property
    def routes(self) -> Routes:
        """The routes of the page."""
        return ROUTES

    def events(self, path: str, last_id: str) -> AsyncGenerator[bytes, None] | None:
        """The events of the run after an id."""
        return self.feed.page(last_id) if path == EVENTS else None


async def _snapshot(site: RunSite, request: Request) -> HttpAnswer:
    return json_answer(await site.feed.snapshot())


async def _approvals(site: RunSite, request: Request) -> HttpAnswer:
    return json_answer(await site.source.approvals())


async def _conversation(site: RunSite, request: Request) -> HttpAnswer:
    logs, attempt = await _logs(site, request)
    offset = max(0, number_in(request, "from", 0))
    found = await asyncio.to_thread(site.files.conversation, logs[attempt - 1], offset)
    return json_answer({**found, "attempt": attempt, "attempts": len(logs)})


async def _log(site: RunSite, request: Request) -> HttpAnswer:
    logs, attempt = await _logs(site, request)
    part = await asyncio.to_thread(site.files.raw, logs[attempt - 1], number_in(request, "from", 0))
    return _text(part.data, {"X-Next": str(part.next), "X-Size": str(part.size)})


async def _answer(site: RunSite, request: Request) -> HttpAnswer:
    part = await asyncio.to_thread(site.files.answer, await _row(site, request))
    return _text(part.data, {"X-Size": str(part.size)})


async def _patch(site: RunSite, request: Request) -> HttpAnswer:
    part = await asyncio.to_thread(site.files.patch, await _row(site, request))
    return _text(part.data, {"X-Size": str(part.size)})


async def _act(site: RunSite, request: Request) -> HttpAnswer:
    """Change the run."""
    params = params_of(request)
    method, given = params.get("method"), params.get("params", {})
    if method not in ACTIONS or not isinstance(given, dict):
        raise RequestError(400, "expected a method of the run and its params")
    try:
        return json_answer({"result": await site.source.act(method, given)})
    except RpcError as error:
        raise RequestError(409, str(error)) from None


async def _metrics(site: RunSite, request: Request) -> HttpAnswer:
    if site.metrics is None:
        raise RequestError(404, "no such page")
    try:
        return HttpAnswer(site.metrics().encode(), CONTENT_TYPE)
    except ImportError:
        raise RequestError(501, f"metrics need {EXTRA}") from None


EVENTS = "/api/events"
METRICS = "/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"  # of Prometheus
ROUTES: Routes = {
    **SIGNING_IN,
    ("GET", EVENTS): Route(Access.READ, _snapshot),
    ("GET", "/api/snapshot"): Route(Access.READ, _snapshot),
    ("GET", "/api/conversation"): Route(Access.READ, _conversation),
    ("GET", "/api/log"): Route(Access.READ, _log),
    ("GET", "/api/answer"): Route(Access.READ, _answer),
    ("GET", "/api/patch"): Route(Access.READ, _patch),
    ("GET", "/api/approvals"): Route(Access.READ, _approvals),
    ("GET", METRICS): Route(Access.READ, _metrics, scraped=True),
    ("POST", "/api/act"): Route(Access.ACT, _act),
    **asset_routes(assets().items()),
}


def _text(data: bytes, headers: Mapping[str, str]) -> HttpAnswer:
    """What an instance wrote: never more than text to a browser."""
    return HttpAnswer(data, "text/plain; charset=utf-8", headers=headers)


async def _logs(site: RunSite, request: Request) -> tuple[list[str], int]:
    """The logs of an instance, and which of its attempts is meant, from 1."""
    logs = site.files.attempts(await _row(site, request))
    attempt = number_in(request, "attempt", len(logs))
    if not 1 <= attempt <= len(logs):
        raise NoFileError("no such attempt")
    return logs, attempt


async def _row(site: RunSite, request: Request) -> Mapping[str, Any]:
    name = request.query.get("instance", "")
    row = await site.source.instance(name)
    if row is None:
        raise RequestError(404, "no such instance")
    return row
