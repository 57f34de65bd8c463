"""What is shown of requests that wait for the API's rate limits, by values."""

from __future__ import annotations

from claude_orchestrator.gateway.pacing.waiting import WaitingRequests, together


def test_the_text_has_the_number_and_the_reason() -> None:
    assert WaitingRequests(1, "").text == "1 request waits for the API's rate limit"
    assert WaitingRequests(1200, "why").text == "1,200 requests wait for the API's rate limit (why)"


def test_several_machines_have_the_sum_and_the_reason_of_most() -> None:
    assert together([]) is None and together([None, None]) is None
    assert together([WaitingRequests(2, "a"), None, WaitingRequests(5, "b")]) == WaitingRequests(7, "b")
