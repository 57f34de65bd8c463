"""What the history page gets from a ledger, who gets it, and how `token-budget serve` refuses bad input."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import stat
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.limits import HUNG_S
from tests.token_budget.test_history import DAY_MS, HOSTILE, HOUR_MS, Book, utc
from tests.token_budget.test_usage_cli import PROGRAM, Home
from token_budget.ledger.records import AccountLimit, AttemptRecord, RunRecord, UsageRecord
from token_budget.ledger.run_budgets import write_budgets
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.models import Budget, Scope, Unit, Usage, Weights
from token_budget.serving.keys import Keys
from token_budget.serving.server import PageServer
from token_budget.usage.page import site as site_module
from token_budget.usage.page.data import MOST_ROWS, PageRequest, page_data
from token_budget.usage.page.site import ROUTES, History, HistorySite
from token_budget.windows import Window, to_ms

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
NOON_MS = to_ms(NOON)
COOKIE = "token-budget-test"
NONE: Mapping[Unit, Any] = {}


@pytest.fixture
def book(tmp_path: Path) -> Any:
    opened = Book(tmp_path / "ledger.db")
    yield opened
    opened.ledger.close()


def shown(book: Book, since_ms: int = 0, limits: Mapping[Unit, Any] = NONE) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(json.dumps(page_data(book.ledger, PageRequest(since_ms, NOON, limits, utc))))
    return data


def test_an_empty_ledger_makes_an_empty_page(book: Book) -> None:
    data = shown(book, limits={Unit.TOKENS: [("daily budget", "daily", 100)]})
    assert data["totals"] == {
        "total_tokens": 0, "unpriced_tokens": 0, "cost_usd": None, "instances": 0, "completed": 0, "verified": 0,
        "cost_per_verified_usd": None,
    }  # fmt: skip
    assert data["forecasts"] == [] and all(table["rows"] == [] for table in data["tables"].values())
    assert data["charts"]["tokens/command"] == {"at": [], "names": [], "values": []}
    assert data["limits"][0]["used"] == 0 == data["limits"][0]["projected"]


def test_groups_charts_and_totals_agree(book: Book) -> None:
    book.add(NOON_MS - DAY_MS, 700, 2_000_000_000, base_command="/fix", verified=True)
    book.add(NOON_MS - HOUR_MS, 300, 1_000_000_000, base_command="/fix", verified=False, outcome="failed")
    book.add(NOON_MS - HOUR_MS, 50, None, base_command=None, workspace="/shop")
    book.add(NOON_MS - 40 * DAY_MS, 9, 0, base_command="/old")
    data = shown(book, NOON_MS - 7 * DAY_MS)
    assert data["totals"] == {
        "total_tokens": 1_050, "unpriced_tokens": 50, "cost_usd": 3.0, "instances": 3, "completed": 2, "verified": 1,
        "cost_per_verified_usd": 3.0,
    }  # fmt: skip
    rows = {row["group"]: row for row in data["tables"]["command"]["rows"]}
    assert {name: row["total_tokens"] for name, row in rows.items()} == {"/fix": 1_000, "(prompt)": 50}
    assert rows["/fix"]["cost_per_verified_usd"] == 3.0
    assert [row["total_tokens"] for row in data["tables"]["day"]["rows"]][-2:] == [700, 350]
    assert {row["group"] for row in data["tables"]["workspace"]["rows"]} == {"(unknown)", "/shop"}
    chart = data["charts"]["usd/command"]
    assert dict(zip(chart["names"], map(sum, chart["values"]), strict=True)) == {"/fix": 3.0, "(prompt)": 0}
    assert len(chart["at"]) == len(chart["values"][0]) == 8


def test_the_days_of_a_span_end_today_and_those_of_all_use_with_the_last_use(book: Book) -> None:
    book.add(NOON_MS - 2 * DAY_MS, 700)
    for since_ms, days in ((NOON_MS - 3 * DAY_MS, [0, 700, 0, 0]), (0, [700])):
        rows = shown(book, since_ms)["tables"]["day"]["rows"]
        assert [row["total_tokens"] for row in rows] == days


def test_limits_have_their_projected_end(book: Book) -> None:
    book.add(NOON_MS - HOUR_MS, 600, 4_000_000_000)
    book.add(NOON_MS - 20 * HOUR_MS, 600, 4_000_000_000)
    limits = {
        Unit.TOKENS: [("daily budget", "daily", 900), ("monthly budget", "monthly", 10_000)],
        Unit.USD: [("weekly budget", "weekly", 9_000_000_000)],
    }
    day, month, week = shown(book, limits=limits)["limits"]
    assert (day["used"], day["projected"]) == (600, 1_200)
    assert day["reached_at"] == NOON.timestamp() + 6 * 3600 and day["ends_at"] == NOON.timestamp() + 12 * 3600
    assert (month["name"], month["used"], month["reached_at"]) == ("month 2026-11", 1_200, None)
    assert (week["unit"], week["limit"], week["used"]) == ("USD", 9.0, 8.0) and week["reached_at"] is not None


def test_limits_of_accounts_count_their_own_use_in_their_own_zone(book: Book) -> None:
    book.add(NOON_MS - HOUR_MS, 700)
    ledger = book.ledger
    ledger.write(
        runs=[RunRecord("charged", "m", NOON_MS, account="team")],
        attempts=[AttemptRecord("charged", "a", 1, NOON_MS)],
        records=[UsageRecord("charged", "charged", "a", 1, NOON_MS - 3 * HOUR_MS, "m", Usage(300))],
    )
    ledger.set_limits("team", [AccountLimit(Window.DAILY, Unit.TOKENS, 5000)], zone="Pacific/Auckland")
    ledger.set_limits("x", [AccountLimit(Window.MONTHLY, Unit.TOKENS, 5000)])
    every, team, other = shown(book, limits={Unit.TOKENS: [("daily budget", "daily", 10_000)]})["limits"]
    assert (every["name"], every["used"]) == ("day 2026-11-25", 1000)
    assert (team["name"], team["used"], team["limit"]) == ("team: day 2026-11-26", 0, 5000)  # it began at 11 in UTC
    assert (other["name"], other["used"]) == ("x: month 2026-11", 0)


def test_tokens_of_limits_are_weighted_as_in_the_last_run(book: Book) -> None:
    book.add(NOON_MS - HOUR_MS, Usage(100, 0, 0, 1_000))
    budgets = write_budgets([Budget(5_000, scope=Scope.DAILY)], Weights.parse("billing"))
    book.ledger.write(runs=[RunRecord("s", "m", NOON_MS, budgets=budgets)])
    limit = shown(book, limits={Unit.TOKENS: [("daily budget", "daily", 5_000)]})["limits"][0]
    assert limit["used"] == Weights.parse("billing").draw(Usage(100, 0, 0, 1_000)) < 1_100


def test_forecasts_are_those_of_the_program(book: Book) -> None:
    for number in range(8):
        book.add(NOON_MS - number * HOUR_MS, 1_000 + number, 5_000_000)
    (row,) = shown(book)["forecasts"]
    assert row["subject"] == "/test" and row["instances"] == 8 and 1_000 <= row["p50_tokens"] <= row["p90_tokens"]
    assert row["p50_usd"] == 0.005


def test_tables_are_bounded(book: Book) -> None:
    number = MOST_ROWS + 3
    keys = [("r", f"i{place}", 1) for place in range(number)]
    book.ledger.write(
        runs=[RunRecord("r", "m", NOON_MS)],
        attempts=[AttemptRecord(*key, NOON_MS, ended_ms=NOON_MS, outcome="completed") for key in keys],
        records=[UsageRecord(key[1], *key, NOON_MS, "opus", Usage(1 + place)) for place, key in enumerate(keys)],
    )
    table = shown(book)["tables"]["instance"]
    assert len(table["rows"]) == MOST_ROWS and table["left_out"] == 3
    assert table["rows"][0]["total_tokens"] == number


# -- the server --


Get = Callable[..., Awaitable[tuple[int, bytes, Mapping[str, str]]]]


@contextlib.asynccontextmanager
async def serving(history: History, password: str = "") -> AsyncIterator[tuple[Get, Keys]]:
    keys = Keys(b"k" * 32, "boot", password)
    listening = socket.create_server(("127.0.0.1", 0))
    base = f"http://127.0.0.1:{listening.getsockname()[1]}"
    site = HistorySite(history, keys, COOKIE)
    signed_in = {"Cookie": f"{COOKIE}={keys.cookie()}", "Sec-Fetch-Site": "same-origin"}
    async with PageServer(site, listening, "127.0.0.1"), aiohttp.ClientSession() as session:

        async def get(path: str, **headers: str) -> tuple[int, bytes, Mapping[str, str]]:
            asked = session.get(base + path, headers={**signed_in, **headers}, allow_redirects=False)
            async with asked as answer:
                return answer.status, await answer.read(), answer.headers

        yield get, keys


def visit(history: History, use: Callable[[Get, Keys], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(HUNG_S), serving(history) as (get, keys):
            await use(get, keys)

    asyncio.run(main())


def test_each_route_is_public_or_needs_the_cookie() -> None:
    reads = {path for (_, path), route in ROUTES.items() if route.access == "read"}
    acts = [path for (_, path), route in ROUTES.items() if route.access == "act"]
    assert reads == {"/api/history"} and acts == []


def test_only_who_is_signed_in_sees_the_history(book: Book) -> None:
    book.add(NOON_MS, 5, base_command="secret")

    async def use(get: Get, keys: Keys) -> None:
        status, html, headers = await get("/", Cookie="")
        assert status == 200 and b"main.js" in html and "script-src 'self'" in headers["Content-Security-Policy"]
        assert (await get("/api/history", Cookie=""))[0] == 401
        assert (await get("/api/history", Host="evil.example"))[0] == 421
        assert (await get("/api/history", **{"Sec-Fetch-Site": "cross-site"}))[0] == 403
        assert (await get("/../data.py"))[0] == 404
        for days in ("8", "-1", "x", "1e3"):
            assert (await get(f"/api/history?days={days}"))[0] == 400
        status, body, _ = await get("/api/history?days=0")
        assert status == 200 and json.loads(body)["tables"]["command"]["rows"][0]["group"] == "secret"
        status, _, headers = await get(f"/open?ticket={keys.ticket()}", Cookie="")
        assert status == 303 and "SameSite=Strict" in headers["Set-Cookie"] and "HttpOnly" in headers["Set-Cookie"]

    visit(History(Path(book.ledger.name), lambda _: NONE), use)


def test_a_ledger_that_goes_away_is_reported_and_comes_back(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_module, "FRESH_S", 0.0)
    monkeypatch.setattr(site_module, "REST", 0.0)
    book.add(NOON_MS, 5)
    file = Path(book.ledger.name)
    away, move = file.with_suffix(".away"), Path.rename
    book.ledger.close()

    async def use(get: Get, keys: Keys) -> None:
        assert (await get("/api/history?days=0"))[0] == 200
        move(file, away)
        status, body, _ = await get("/api/history?days=0")
        assert status == 503 and "ledger" in json.loads(body)["error"]
        move(away, file)
        assert (await get("/api/history?days=0"))[0] == 200

    visit(History(file, lambda _: NONE), use)


def test_many_pages_read_the_ledger_once(book: Book) -> None:
    reads: list[object] = []

    def limits_of(ledger: object) -> Mapping[Unit, Any]:
        reads.append(ledger)
        return NONE

    async def use(get: Get, keys: Keys) -> None:
        found = await asyncio.gather(*(get("/api/history?days=7") for _ in range(10)))
        assert {status for status, _, _ in found} == {200} and len(reads) == 1

    visit(History(Path(book.ledger.name), limits_of), use)


# -- the program --


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    ledger = SqliteLedger(made.ledger)
    key = ("r", "one", 1)
    now_ms = round(time.time() * 1000)
    ledger.write(
        runs=[RunRecord("r", "m", now_ms)],
        attempts=[AttemptRecord(*key, now_ms, base_command=HOSTILE, ended_ms=now_ms, outcome="completed")],
        records=[UsageRecord("1", *key, now_ms, "opus", Usage(5))],
    )
    ledger.close()
    return made


def test_serve_prints_an_address_that_signs_in_and_ends_with_an_interrupt(home: Home) -> None:
    argv = [*PROGRAM, "serve", "--no-browser"]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(argv, env=home.env, cwd=home.root, **pipes)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:") and "/open?ticket=" in address

    async def look() -> None:
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(cookie_jar=jar) as session:
            async with session.get(address) as answer:
                assert answer.status == 200 and b"main.js" in await answer.read()
            async with session.get(address.partition("open?")[0] + "api/history") as answer:
                assert (await answer.json())["tables"]["command"]["rows"][0]["group"] == HOSTILE

    asyncio.run(look())
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=HUNG_S)
    assert (process.returncode, said) == (0, "Ctrl-C ends the page.\n")


def test_a_mistake_ends_with_one_line_and_no_page(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "choose another port" in home.refuses("serve", "--no-browser", "--port", port)
    assert "--token-file FILE" in home.refuses("serve", "--host", "0.0.0.0")
    password = home.root / "password"
    password.write_text("short")
    password.chmod(stat.S_IRUSR)
    assert "at least 12 characters" in home.refuses("serve", "--host", "0.0.0.0", "--token-file", str(password))
    (home.root / "claude-orchestrator.json").write_text('{"budget": {"daily_token_budget": "lots"}}')
    assert "daily_token_budget" in home.refuses("serve", "--no-browser")
    assert "ledger" in home.refuses("--ledger", str(home.root / "none.db"), "serve", "--no-browser")


def test_without_aiohttp_one_line_names_the_extra(home: Home) -> None:
    (home.root / "sitecustomize.py").write_text(
        "import importlib.util as it\nold = it.find_spec\n"
        "it.find_spec = lambda name, *more: None if name == 'aiohttp' else old(name, *more)\n"
    )
    home.env |= {"PYTHONPATH": str(home.root), "PYTHONDONTWRITEBYTECODE": "1"}
    assert "claude-orchestrator[web]" in home.refuses("serve", "--no-browser")
