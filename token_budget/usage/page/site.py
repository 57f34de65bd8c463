"""The server of the history page: its routes, and the ledger that it reads at each request. Needs aiohttp."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

from token_budget.ledger.errors import LedgerError
from token_budget.ledger.opening import open_store
from token_budget.ledger.store import LedgerStore
from token_budget.models import Unit
from token_budget.serving.assets import Asset, asset_routes, load, shared
from token_budget.serving.checks import Access, is_loopback
from token_budget.serving.keys import SECRET_BYTES, Keys
from token_budget.serving.listening import BoundPage
from token_budget.serving.server import PageServer
from token_budget.serving.site import (
    SIGNING_IN,
    HttpAnswer,
    Request,
    RequestError,
    Route,
    Routes,
    json_answer,
    number_in,
)
from token_budget.usage.page.data import SPANS_DAYS, PageRequest, page_data
from token_budget.usage.plot_data import WindowLimit
from token_budget.windows import to_ms

PACKAGE = "token_budget.usage.page"
OWN = ("index.html", "history.css", "chart.js", "limits.js", "tables.js", "main.js")
FRESH_S = 2.0  # so long an answer is good for other pages, at least
REST = 10.0  # and so many times as long as it took
Limits = Mapping[Unit, Sequence[WindowLimit]]
LimitsOf = Callable[[LedgerStore], Limits]


@cache
def assets() -> Mapping[str, Asset]:
    """Every file of the page by its path on the server."""
    found = {f"/{name}": asset for name, asset in {**shared(), **load(PACKAGE, OWN)}.items()}
    return {"/": found["/index.html"], **found}


class History:
    """Reads the ledger for pages: one at a time, and not more often than they can notice. Raises LedgerError."""

    def __init__(self, place: str | Path, limits_of: LimitsOf) -> None:
        self._place = place
        self._limits_of = limits_of
        self._lock = threading.Lock()
        self._answers: dict[int, tuple[float, HttpAnswer]] = {}  # until when each is good

    def read(self, days: int) -> HttpAnswer:
        """The use of the latest days, today included; of all days for 0."""
        with self._lock:
            begun = time.monotonic()
            good_until, made = self._answers.get(days, (0.0, None))
            if made is None or begun >= good_until:
                made = self._read(days)
                ended = time.monotonic()
                self._answers[days] = ended + max(FRESH_S, REST * (ended - begun)), made
            return made

    def _read(self, days: int) -> HttpAnswer:
        now = datetime.now()
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        since_ms = to_ms(midnight - timedelta(days=days - 1)) if days else 0
        ledger = open_store(self._place, create=False)
        try:
            return json_answer(page_data(ledger, PageRequest(since_ms, now, self._limits_of(ledger))))
        finally:
            ledger.close()


@dataclass(frozen=True, slots=True)
class HistorySite:
    """What the routes work with. The page changes nothing."""

    history: History
    keys: Keys
    cookie: str
    read_only: bool = True

    @property
    def routes(self) -> Routes:
        """The routes of the page."""
        return ROUTES

    def events(self, path: str, last_id: str) -> AsyncGenerator[bytes, None] | None:
        """The page asks again and needs no events."""
        return None


async def _history(site: HistorySite, request: Request) -> HttpAnswer:
    days = number_in(request, "days", SPANS_DAYS[1])
    if days not in SPANS_DAYS:
        raise RequestError(400, f"days: expected one of {', '.join(map(str, SPANS_DAYS))}")
    try:
        return await asyncio.to_thread(site.history.read, days)
    except (LedgerError, ValueError) as error:
        raise RequestError(503, str(error)) from None


ROUTES: Routes = {
    **SIGNING_IN,
    ("GET", "/api/history"): Route(Access.READ, _history),
    **asset_routes(assets().items()),
}


async def serve(bound: BoundPage, history: History, announce: Callable[[str], None]) -> None:
    """Serve the page until it is cancelled, and announce its address with a ticket."""
    keys = Keys(secrets.token_bytes(SECRET_BYTES), secrets.token_urlsafe(12), bound.password)
    port = bound.listening.getsockname()[1]
    site = HistorySite(history, keys, f"token-budget-{port}")
    async with PageServer(site, bound.listening, bound.options.host):
        announce(f"{bound.address}open?ticket={keys.ticket()}")
        if not is_loopback(bound.options.host):
            announce("the page is open to other machines, without encryption: whoever has the password can see it")
        await asyncio.Event().wait()
