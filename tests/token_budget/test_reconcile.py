"""`token-budget reconcile` against a stand-in of the Admin API with the documented shapes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.token_budget.test_usage_cli import Home
from token_budget.ledger.records import AttemptRecord, RunRecord, UsageRecord
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.models import Usage
from token_budget.usage.reconciling.admin_api import AdminApi
from token_budget.usage.reconciling.compare import plain_model

KEY = "sk-ant-admin-for-tests"
HOUR = timedelta(hours=1)
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
YESTERDAY = TODAY - timedelta(days=1)


@dataclass(frozen=True)
class Use:
    """What the API has counted of one request."""

    at: datetime
    model: str
    usage: Usage
    cents: str = "0"
    key: str = "apikey_ours"


@dataclass
class Admin:
    """The stand-in: what it answers, and what it was asked."""

    uses: list[Use] = field(default_factory=list)
    asked: list[tuple[str, dict[str, list[str]]]] = field(default_factory=list)
    answer: Callable[[str], tuple[int, bytes] | None] = lambda path: None
    url: str = ""

    def page(self, path: str, query: dict[str, list[str]]) -> dict[str, Any]:
        """A page of buckets from `starting_at` to `ending_at`, at most `limit`, with the results of those with use."""
        width = HOUR if query["bucket_width"] == ["1h"] else timedelta(days=1)
        begin, end = (datetime.fromisoformat(query[name][0]) for name in ("starting_at", "ending_at"))
        start = datetime.fromisoformat(query["page"][0]) if "page" in query else begin
        buckets = []
        for _ in range(int(query["limit"][0])):
            if start >= end:
                break
            within = [use for use in self.uses if start <= use.at < start + width]
            within = [use for use in within if use.key in query.get("api_key_ids[]", [use.key])]
            rows = [self.usage_row(use) if "usage" in path else self.cost_row(use) for use in within]
            about = {"starting_at": start.isoformat(), "ending_at": (start + width).isoformat()}
            buckets.append({**about, "results": rows})
            start += width
        more = start < end
        return {"data": buckets, "has_more": more, "next_page": start.isoformat() if more else None}

    def usage_row(self, use: Use) -> dict[str, Any]:
        counts = use.usage
        return {
            "api_key_id": None,
            "cache_creation": {
                "ephemeral_1h_input_tokens": counts.cache_creation_input_tokens // 2,
                "ephemeral_5m_input_tokens": -(-counts.cache_creation_input_tokens // 2),
            },
            "cache_read_input_tokens": counts.cache_read_input_tokens,
            "context_window": None,
            "inference_geo": None,
            "model": use.model,
            "output_tokens": counts.output_tokens,
            "server_tool_use": {"web_search_requests": 0},
            "service_tier": None,
            "uncached_input_tokens": counts.input_tokens,
            "workspace_id": None,
        }

    def cost_row(self, use: Use) -> dict[str, Any]:
        about = {"cost_type": "tokens", "description": "usage", "model": use.model, "token_type": "output_tokens"}
        return {**about, "amount": use.cents, "currency": "USD", "workspace_id": None}


@pytest.fixture
def admin() -> Iterator[Admin]:
    state = Admin()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query: dict[str, list[str]] = {}
            for name, value in parse_qsl(parts.query):
                query.setdefault(name, []).append(value)
            state.asked.append((parts.path, query))
            told = state.answer(parts.path)
            if told is None and self.headers["x-api-key"] != KEY:
                told = 401, b'{"type":"error"}'
            status, body = told or (200, json.dumps(state.page(parts.path, query)).encode())
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def home(tmp_path: Path, admin: Admin) -> Home:
    """A ledger with the use of yesterday, and the environment that leads to the stand-in."""
    home = Home(tmp_path)
    home.env |= {"ANTHROPIC_ADMIN_API_KEY": KEY, "ANTHROPIC_ADMIN_BASE_URL": admin.url}
    home.env["COLUMNS"] = "200"
    ledger = SqliteLedger(home.ledger)
    at_ms = round((YESTERDAY + HOUR).timestamp() * 1000)
    ledger.write(
        runs=[RunRecord("r", "m", at_ms)],
        attempts=[AttemptRecord("r", "i", 1, at_ms)],
        records=[
            UsageRecord("1", "r", "i", 1, at_ms, "claude-opus-5[1m]", Usage(10, 20, 31, 40), 2_000_000_000, "prices"),
            UsageRecord("2", "r", "i", 1, at_ms + 1, "claude-opus-5", Usage(1, 2, 0, 4), 500_000_000, "prices"),
        ],
    )
    ledger.close()
    return home


def rows(home: Home, *args: str) -> list[dict[str, Any]]:
    found = json.loads(home.says("reconcile", "--since", "7d", "--json", *args))
    return list(found["rows"])


def test_token_for_token_by_model_and_day(home: Home, admin: Admin) -> None:
    admin.uses = [
        Use(YESTERDAY + HOUR, "claude-opus-5-20260401", Usage(10, 20, 31, 40), "150"),
        Use(YESTERDAY + 2 * HOUR, "claude-opus-5", Usage(1, 2, 0, 4), "100"),
    ]
    (row,) = rows(home)
    assert (row["day"], row["model"]) == (f"{YESTERDAY:%Y-%m-%d}", "claude-opus-5")
    assert row["ledger"] == row["api"] == Usage(11, 22, 31, 44)._asdict()
    assert not any(row["difference"].values())
    assert (row["ledger_cost_usd"], row["api_cost_usd"]) == ("2.5", "2.5")
    usage, cost = admin.asked[0], next(asked for asked in admin.asked if asked[0].endswith("cost_report"))
    assert usage[0] == "/v1/organizations/usage_report/messages" and usage[1]["group_by[]"] == ["model"]
    assert cost[0] == "/v1/organizations/cost_report" and cost[1]["group_by[]"] == ["description"]


def test_what_others_have_used_is_a_difference(home: Home, admin: Admin) -> None:
    admin.uses = [
        Use(YESTERDAY + HOUR, "claude-opus-5", Usage(11, 22, 31, 44)),
        Use(YESTERDAY + HOUR, "claude-opus-5", Usage(100, 0, 0, 1), key="apikey_other"),
        Use(YESTERDAY + HOUR, "claude-haiku-5-5", Usage(7)),
    ]
    haiku, opus = rows(home)
    assert (haiku["difference"]["input_tokens"], opus["difference"]) == (-7, Usage(-100, 0, 0, -1)._asdict())
    ours = rows(home, "--api-key-id", "apikey_ours")
    assert [row["difference"]["input_tokens"] for row in ours if row["model"] == "claude-opus-5"] == [0]
    assert {row["api_cost_usd"] for row in ours} == {None}  # the cost report knows no keys
    text = home.says("reconcile", "--since", "7d")
    assert text.splitlines()[0].split()[:2] == ["day", "(UTC)"]
    assert "-101" in text and "by other people, other tools and other keys" in text and "the current hour" in text


def test_every_page_is_read_and_nothing_twice(home: Home, admin: Admin) -> None:
    """Eight days are 168 hours and more, so there are two pages; what lies at their edge counts once."""
    edge = TODAY - timedelta(days=8) + 168 * HOUR
    admin.uses = [Use(edge - HOUR, "m", Usage(1)), Use(edge, "m", Usage(2)), Use(edge + HOUR, "m", Usage(4))]
    since = f"{TODAY - timedelta(days=8):%Y-%m-%d}"
    found = json.loads(home.says("reconcile", "--since", since, "--json"))["rows"]
    assert sum(row["api"]["input_tokens"] for row in found) == 7
    pages = [query.get("page") for path, query in admin.asked if path.endswith("messages")]
    assert pages[0] is None and len(pages) == 2


def test_nothing_at_all(home: Home, admin: Admin) -> None:
    home.ledger.unlink()
    SqliteLedger(home.ledger).close()
    assert home.says("reconcile") == "neither the ledger nor the API has any use in this span\n"


@pytest.mark.parametrize(
    ("env", "line"),
    [
        ({"ANTHROPIC_ADMIN_API_KEY": ""}, "needs an admin key of your organization in the environment variable"),
        (
            {"ANTHROPIC_ADMIN_API_KEY": "sk-ant-api-x"},
            "refused the key in ANTHROPIC_ADMIN_API_KEY (401): it must be an",
        ),
        ({"ANTHROPIC_ADMIN_API_KEY": "a b"}, "is no key: it has spaces"),
        ({"ANTHROPIC_ADMIN_BASE_URL": "http://example.invalid"}, "expected an https:// address"),
        ({"ANTHROPIC_ADMIN_BASE_URL": "http://127.0.0.1:1"}, "no answer: Connection refused"),
    ],
)
def test_one_line_and_exit_code_2(home: Home, env: dict[str, str], line: str) -> None:
    home.env |= env
    said = home.refuses("reconcile")
    assert line in said and (not env.get("ANTHROPIC_ADMIN_API_KEY") or env["ANTHROPIC_ADMIN_API_KEY"] not in said)


PAGE = {"data": [], "has_more": False}
BUCKET = {"starting_at": f"{YESTERDAY.isoformat()}", "results": []}


@pytest.mark.parametrize(
    ("status", "body", "line"),
    [
        (500, b"", "refused the request (500)"),
        (429, b"", "there were too many: try again"),
        (200, b"<html>", "lacks a JSON object"),
        (200, b"[]", "lacks a JSON object"),
        (200, b'{"data": []}', "lacks data and has_more"),
        (200, json.dumps({**PAGE, "data": [5]}).encode(), "lacks starting_at and results of a bucket"),
        (200, json.dumps({**PAGE, "has_more": True}).encode(), "lacks a next page"),
        (200, json.dumps({**PAGE, "has_more": True, "next_page": "p"}).encode(), "lacks a next page"),
        (
            200,
            json.dumps({**PAGE, "data": [{**BUCKET, "results": [{"uncached_input_tokens": -1}]}]}).encode(),
            "lacks counts that are whole numbers",
        ),
    ],
)
def test_an_answer_of_another_form(home: Home, admin: Admin, status: int, body: bytes, line: str) -> None:
    admin.answer = lambda path: (status, body)
    assert line in home.refuses("reconcile")


def test_a_cost_that_is_no_amount(home: Home, admin: Admin) -> None:
    odd = json.dumps({**PAGE, "data": [{**BUCKET, "results": [{"amount": "much"}]}]}).encode()
    admin.answer = lambda path: (200, odd) if path.endswith("cost_report") else None
    assert "lacks an amount in US cents" in home.refuses("reconcile")


def test_the_key_goes_to_anthropic_alone_unless_asked() -> None:
    api = AdminApi.of({"ANTHROPIC_ADMIN_KEY": KEY, "ANTHROPIC_BASE_URL": "http://evil.invalid"})
    assert (api.base_url, api.key_name) == ("https://api.anthropic.com", "ANTHROPIC_ADMIN_KEY")


@pytest.mark.parametrize(
    ("model", "plain"),
    [
        ("claude-opus-4-8[1m]", "claude-opus-4-8"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        ("", "(no model)"),
    ],
)
def test_names_of_one_model_meet(model: str, plain: str) -> None:
    assert plain_model(model) == plain
