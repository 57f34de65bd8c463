"""What is remembered of responses is bounded, and the counts stay."""

from __future__ import annotations

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.claude.responses import MAX_KEPT_BYTES, REMEMBERED_IDS, MeterCount, OpenResponse
from token_budget.models import Usage


def test_of_a_long_text_the_pieces_beyond_the_bound_are_numbers() -> None:
    response = OpenResponse("m", Usage(input_tokens=5), streamed=True, model="m")
    response.keep(b"x\n" * MAX_KEPT_BYTES)
    response.keep(b"a\nb\nc\n")
    assert response.with_estimate() == Usage(input_tokens=5, output_tokens=MAX_KEPT_BYTES + 3)


def test_the_meter_forgets_old_responses_but_not_their_counts() -> None:
    meter = MeterCount()
    for number in range(REMEMBERED_IDS + 5):
        meter.count(ApiUsage(str(number), Usage(input_tokens=1), whole=True, model="m"))
    assert len(meter.responses) == REMEMBERED_IDS
    assert meter.total == Usage(input_tokens=REMEMBERED_IDS + 5) == meter.by_model["m"]
