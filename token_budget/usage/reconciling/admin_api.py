"""Reads the usage and cost reports of Anthropic's Admin API.

Shapes: https://platform.claude.com/docs/en/api/admin/usage_report/retrieve_messages and
https://platform.claude.com/docs/en/api/admin/cost_report/retrieve.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlencode, urlsplit

from token_budget.api_usage import read_count
from token_budget.models import Usage
from token_budget.named_tuples import NamedTuple
from token_budget.timestamps import unix_s
from token_budget.usage.alert_sinks import opener, reason_of

KEYS = ("ANTHROPIC_ADMIN_API_KEY", "ANTHROPIC_ADMIN_KEY")
BASE_URL = "ANTHROPIC_ADMIN_BASE_URL"  # not that of claude: it may be a gateway of somebody else
PUBLIC = "https://api.anthropic.com"
TIMEOUT_S = 60.0
MAX_PAGES = 1_000
MAX_PAGE_BYTES = 32 * 1024 * 1024
HOURS_A_PAGE, DAYS_A_PAGE = 168, 31  # the most that the API gives
NANO_USD_A_CENT = 10_000_000
NO_KEY = (
    f"needs an admin key of your organization in the environment variable {KEYS[0]}: "
    "create one in the Claude Console under Settings, Admin keys"
)


class Counted(NamedTuple):
    """What the API has counted of one model in one hour. `web_searches` are beside the tokens."""

    start_ms: int
    model: str
    usage: Usage
    web_searches: int = 0


class ModelCost(NamedTuple):
    """What one model has cost on one day, in nano-dollars; `model` is empty for what belongs to none."""

    start_ms: int
    model: str
    nano_usd: Decimal


class AdminApi(NamedTuple):
    """The Admin API for one key. Each error is a ValueError with a line for the user, which never has the key."""

    key: str
    key_name: str
    base_url: str = PUBLIC

    @classmethod
    def of(cls, environ: Mapping[str, str] = os.environ) -> AdminApi:
        """With the key and the address of the environment."""
        name = next((name for name in KEYS if environ.get(name, "").strip()), None)
        if name is None:
            raise ValueError(NO_KEY)
        key = environ[name].strip()
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError(f"{name}: is no key: it has spaces or other characters that no key has")
        base_url = environ.get(BASE_URL, "").strip().rstrip("/") or PUBLIC
        parts = urlsplit(base_url)
        if parts.scheme != "https" and (parts.scheme != "http" or parts.hostname not in ("127.0.0.1", "localhost")):
            raise ValueError(f"{BASE_URL}: expected an https:// address, so that nobody else reads the key")
        return cls(key, name, base_url)

    def usage(self, since_ms: int, until_ms: int, only: Sequence[tuple[str, str]] = ()) -> Iterator[Counted]:
        """What was counted in each whole hour of a span, by model; `only` restricts it to some keys or workspaces."""
        about = [("bucket_width", "1h"), ("limit", str(HOURS_A_PAGE)), ("group_by[]", "model"), *only]
        for start_ms, row in self._rows("usage_report/messages", since_ms, until_ms, about):
            written = row.get("cache_creation")
            lifetimes = written if isinstance(written, dict) else {}
            tools = row.get("server_tool_use")
            searches = tools.get("web_search_requests") if isinstance(tools, dict) else 0
            usage = Usage(
                _count(row.get("uncached_input_tokens")),
                _count(row.get("output_tokens")),
                sum(_count(lifetimes.get(f"ephemeral_{life}_input_tokens")) for life in ("1h", "5m")),
                _count(row.get("cache_read_input_tokens")),
            )
            yield Counted(start_ms, _model(row), usage, _count(searches))

    def costs(self, since_ms: int, until_ms: int, only: Sequence[tuple[str, str]] = ()) -> Iterator[ModelCost]:
        """What was billed on each whole day of a span, by model."""
        about = [("bucket_width", "1d"), ("limit", str(DAYS_A_PAGE)), ("group_by[]", "description"), *only]
        for start_ms, row in self._rows("cost_report", since_ms, until_ms, about):
            try:
                cents = Decimal(str(row.get("amount")))
                if not cents.is_finite() or row.get("currency", "USD") != "USD":
                    raise ValueError
            except (InvalidOperation, ValueError):
                raise ValueError(_odd("cost_report", "an amount in US cents")) from None
            yield ModelCost(start_ms, _model(row), cents * NANO_USD_A_CENT)

    def _rows(
        self, report: str, since_ms: int, until_ms: int, about: Sequence[tuple[str, str]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """The results of every bucket within the span, over all pages."""
        span = [("starting_at", _moment(since_ms)), ("ending_at", _moment(until_ms))]
        page, seen = "", set[str]()
        while page not in seen and len(seen) < MAX_PAGES:
            seen.add(page)
            answer = self._get(report, [*span, *about, *([("page", page)] if page else [])])
            buckets = answer.get("data")
            if not isinstance(buckets, list) or not isinstance(answer.get("has_more"), bool):
                raise ValueError(_odd(report, "data and has_more"))
            for bucket in buckets:
                start_ms = _start(bucket, report)
                if since_ms <= start_ms < until_ms:
                    yield from ((start_ms, row) for row in bucket["results"] if isinstance(row, dict))
            if not answer["has_more"]:
                return
            page = str(answer.get("next_page") or "")
        raise ValueError(_odd(report, "a next page"))

    def _get(self, report: str, query: Sequence[tuple[str, str]]) -> dict[str, Any]:
        url = f"{self.base_url}/v1/organizations/{report}?{urlencode(query)}"
        headers = {"x-api-key": self.key, "anthropic-version": "2023-06-01", "user-agent": "claude-orchestrator"}
        try:
            with opener().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S) as answer:
                raw = answer.read(MAX_PAGE_BYTES + 1)
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(self._refused(error.code)) from None
        except Exception as error:  # OSError, HTTPException, and UnicodeError of a host's name
            raise ValueError(f"{urlsplit(self.base_url).hostname}: no answer: {reason_of(error)}") from None
        try:
            found = json.loads(raw) if len(raw) <= MAX_PAGE_BYTES else None
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ValueError(_odd(report, "a JSON object"))
        return found

    def _refused(self, status: int) -> str:
        host = urlsplit(self.base_url).hostname
        if status in (401, 403):
            return (
                f"{host} refused the key in {self.key_name} ({status}): it must be an admin key of the organization, "
                "which begins with sk-ant-admin, and not an API key"
            )
        if status == 429:
            return f"{host} refused the request (429): there were too many: try again in a minute"
        return f"{host} refused the request ({status})"


def _odd(report: str, lacks: str) -> str:
    return f"the answer of {report} lacks {lacks}: this program does not know its form"


def _start(bucket: object, report: str) -> int:
    known = bucket if isinstance(bucket, dict) and isinstance(bucket.get("results"), list) else {}
    at_s = unix_s(known.get("starting_at"))
    if at_s is None:
        raise ValueError(_odd(report, "starting_at and results of a bucket"))
    return round(at_s * 1000)


def _count(value: object) -> int:
    count, good = read_count(value)
    if not good:
        raise ValueError(_odd("usage_report/messages", "counts that are whole numbers"))
    return count


def _model(row: Mapping[str, Any]) -> str:
    return value if isinstance(value := row.get("model"), str) else ""


def _moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
