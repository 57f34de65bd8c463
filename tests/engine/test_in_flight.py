"""What a journal has of requests that were in flight when the run was killed, and what that charges."""

from __future__ import annotations

import pytest

from claude_orchestrator.engine.attempt import AttemptTotals
from claude_orchestrator.engine.in_flight import InFlight, in_flight_message
from token_budget.api_usage import rest_of
from token_budget.models import Usage

SEEN = AttemptTotals(Usage(100, 50), cost_nano_usd=7)


def record(request: int, *left: object, attempt: object = 1) -> dict[str, object]:
    fields: dict[str, object] = {"attempt": attempt, "request": request}
    return {**fields, "left": list(left)} if left else fields


def noted(*records: dict[str, object]) -> InFlight:
    found = InFlight()
    for one in records:
        found.note(one)
    return found


def test_what_has_no_end_is_charged_to_its_attempt_and_inexact() -> None:
    found = noted(
        record(1, 1_000, 2_000, 0, 0, 9), record(2, 500, 600, 0, 0, 8), record(1, 0, 1_900, 0, 0, 5), record(2)
    )
    attempts = [SEEN, SEEN]
    assert len(found) == 1
    assert found.charge(attempts, "bound") == Usage(0, 1_900)
    assert attempts == [SEEN._replace(usage=Usage(100, 1_950), exact=False, cost_nano_usd=12), SEEN]
    assert found.charge(attempts, "bound") == Usage() and not len(found)  # once


@pytest.mark.parametrize(("how", "usage"), [("bound", Usage(9, 8)), ("input", Usage(9)), ("none", Usage())])
def test_the_setting_decides_what_is_charged(how: str, usage: Usage) -> None:
    attempts = [AttemptTotals()]
    assert noted(record(1, 9, 8, 0, 0, 0)).charge(attempts, how) == usage
    assert attempts == [AttemptTotals(usage, exact=False)]


def test_a_damaged_record_is_no_count() -> None:
    for left in ((1, 2, 3), (1, 2, 3, 4, -5), ("1", 2, 3, 4, 5), (1.5, 2, 3, 4, 5)):
        with pytest.raises(ValueError, match="not what"):
            noted(record(1, *left))
    with pytest.raises(KeyError):
        noted({"attempt": 1})
    attempts = [AttemptTotals()]
    noted(record(1, 1, 2, 3, 4, 5, attempt=7)).charge(attempts, "bound")  # its launch is on a line that is damaged
    assert attempts == [AttemptTotals()]


def test_the_rest_of_a_request() -> None:
    most = Usage(cache_creation_input_tokens=1_000, output_tokens=500)
    assert rest_of(most, Usage()) == most
    assert rest_of(most, Usage(10, 20, 30, 40)) == Usage(0, 480, 920, 0)
    assert rest_of(most, Usage(10, 20, 30, 40), 100) == Usage(0, 480, 100, 0)
    assert rest_of(most, Usage(2_000, 2_000), 100) == Usage()


def test_the_message() -> None:
    assert in_flight_message(1, Usage(1_000, 2_000)) == (
        "1 API request was in flight when the run was killed: counted with 3,000 tokens, marked inexact"
    )
    assert in_flight_message(2, Usage(1)).startswith("2 API requests were in flight")
