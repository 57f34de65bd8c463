"""A page's server in this process, over a run that the test writes, and a client without a browser."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from claude_orchestrator.engine.control.event_log import Gap
from claude_orchestrator.engine.control.rpc import Code, RpcError
from claude_orchestrator.ui.web.feed import Feed
from claude_orchestrator.ui.web.frames import Numbered
from claude_orchestrator.ui.web.routes import RunSite
from claude_orchestrator.ui.web.run_files import RunFiles
from token_budget.folders import Folder
from token_budget.serving.keys import Keys
from token_budget.serving.server import PageServer

COOKIE = "orchestrator-test"
PASSWORD = "correct horse battery"


def row(name: str, **fields: Any) -> dict[str, Any]:
    """An instance as a snapshot has it, as far as the server looks at it."""
    return {"name": name, "attempts": 1, "log": None, "changes": None, "result_file": None, **fields}


class WrittenRun:
    """A run whose events are those that the test adds."""

    name = "test/1"

    def __init__(self, rows: Sequence[Mapping[str, Any]] = ()) -> None:
        self.rows = list(rows)
        self.events: list[Numbered] = []
        self.acts: list[tuple[str, Mapping[str, Any]]] = []
        self.dropped = 0
        self._more = asyncio.Event()

    def add(self, kind: str, instance: str = "a", **fields: Any) -> int:
        """Add an event; returns its number."""
        number = self.dropped + len(self.events) + 1
        data = {"kind": kind, "instance": instance, **fields}
        key = (kind, instance) if kind in ("usage_recorded", "activity") else number
        self.events.append(Numbered(number, 1.0, key, lambda: data))
        self._more.set()
        return number

    @property
    def last(self) -> int:
        """The number of the last event."""
        return self.dropped + len(self.events)

    def drop(self) -> None:
        """Forget the events: whoever has not read them has missed them."""
        self.dropped += len(self.events)
        self.events.clear()

    async def snapshot(self) -> Mapping[str, Any]:
        return {**await self.brief(), "instances": self.rows}

    async def brief(self) -> Mapping[str, Any]:
        totals = {"total_tokens": self.last, "cost_usd": None}
        return {
            "run": {"id": "test", "state": "running"},
            "totals": totals,
            "budgets": [],
            "number": self.last,
            "source": self.name,
        }

    async def instance(self, name: str) -> Mapping[str, Any] | None:
        return next((one for one in self.rows if one["name"] == name), None)

    async def approvals(self) -> Sequence[Mapping[str, Any]]:
        return []

    async def follow(self, number: int) -> AsyncGenerator[Sequence[Numbered] | Gap, None]:
        if number < self.dropped:
            number = self.last
            yield Gap(number)
        while True:
            if number < self.dropped:
                number = self.last
                yield Gap(number)
            elif found := self.events[number - self.dropped :]:
                number = found[-1].number
                yield found
            else:
                self._more.clear()
                await self._more.wait()

    async def act(self, method: str, params: Mapping[str, Any]) -> Any:
        if params.get("refuse"):
            raise RpcError(Code.REFUSED, "no such budget")
        self.acts.append((method, params))
        return {"done": method}


class Browser:
    """What a page of the server can do, with its cookie and its headers."""

    def __init__(self, session: aiohttp.ClientSession, base: str, keys: Keys) -> None:
        self.session = session
        self.base = base
        self.keys = keys
        self.headers = {"Cookie": f"{COOKIE}={keys.cookie()}", "Sec-Fetch-Site": "same-origin"}

    async def get(self, path: str, **headers: str) -> tuple[int, bytes, Mapping[str, str]]:
        """Status, body and headers."""
        asked = self.session.get(self.base + path, headers={**self.headers, **headers}, allow_redirects=False)
        async with asked as answer:
            return answer.status, await answer.read(), answer.headers

    async def post(self, path: str, data: bytes, **headers: str) -> tuple[int, bytes]:
        """Status and body."""
        merged = {"Content-Type": "application/json", **self.headers, **headers}
        async with self.session.post(self.base + path, data=data, headers=merged) as answer:
            return answer.status, await answer.read()


@contextlib.asynccontextmanager
async def serving(
    run: WrittenRun,
    folder: Path,
    *,
    read_only: bool = False,
    password: str = "",
    metrics: Callable[[], str] | None = None,
) -> AsyncIterator[tuple[Browser, Feed]]:
    """Serve a run; yields a signed-in browser and the feed."""
    keys, feed = Keys(b"k" * 32, "boot", password), Feed(run)
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    base = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with Folder.open(folder) as opened:
        site = RunSite(run, feed, RunFiles(opened), keys, COOKIE, read_only, metrics)
        async with PageServer(site, listening, "127.0.0.1"), aiohttp.ClientSession() as session:
            yield Browser(session, base, keys), feed
            await feed.close()
