"""Rate limits as an answer's headers report them."""

from __future__ import annotations

import pytest

from claude_orchestrator.gateway.pacing.limits import Reading, Resource, read_limits, retry_after_s

NOON = 1_795_780_800.0  # 2026-11-27T12:00:00Z


def header(resource: str, limit: str, remaining: str, reset: str = "2026-11-27T12:00:30Z") -> dict[str, str]:
    name = f"anthropic-ratelimit-{resource}"
    return {f"{name}-limit": limit, f"{name}-remaining": remaining, f"{name}-reset": reset}


def test_each_limit_is_read() -> None:
    headers = {**header("requests", "50", "49"), **header("input-tokens", "200000", "181000")}
    assert read_limits(headers, NOON) == [
        Reading(Resource.REQUESTS, 50, 49, 30.0),
        Reading(Resource.INPUT, 200_000, 181_000, 30.0),
    ]
    assert read_limits(header("tokens", "5", "9", ""), NOON) == [Reading(Resource.TOKENS, 5, 5)]
    assert read_limits(header("requests", "5", "1", "2026-11-27T11:59:00+00:00"), NOON)[0].reset_in_s == 0


@pytest.mark.parametrize("limit", ["", "-5", "0", "1e3", "five", "٥", "9" * 40])
def test_what_is_unreadable_is_left_out(limit: str) -> None:
    assert read_limits(header("requests", limit, "1"), NOON) == []
    assert limit == "0" or read_limits(header("requests", "5", limit), NOON) == []


def test_subscriptions_have_other_headers() -> None:
    assert read_limits({"anthropic-ratelimit-unified-status": "allowed"}, NOON) == []


@pytest.mark.parametrize("reset", ["soon", "2026-11-27T12:00:30", "12:00", "9999-99-99T00:00:00Z"])
def test_an_odd_reset_is_unknown(reset: str) -> None:
    assert read_limits(header("requests", "5", "1", reset), NOON)[0].reset_in_s is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("7", 7), ("0.5", 0.5), ("-1", None), ("inf", None), ("nan", None), ("soon", None)]
)
def test_retry_after(text: str, seconds: float | None) -> None:
    assert retry_after_s({"retry-after": text}) == seconds
    assert retry_after_s({}) is None
