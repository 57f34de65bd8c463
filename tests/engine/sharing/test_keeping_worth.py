"""What it costs to keep a prefix in the prompt cache, and how often that pays."""

from __future__ import annotations

import pytest

from claude_orchestrator.engine.sharing.keeping_worth import Worth
from token_budget.models import Usage

OPUS = "claude-opus"


def price(model: str, usage: Usage, written_for_1h_tokens: int) -> int | None:
    if model != OPUS:
        return None
    written = (usage.cache_creation_input_tokens - written_for_1h_tokens) * 6_250 + written_for_1h_tokens * 10_000
    return usage.input_tokens * 5_000 + usage.output_tokens * 25_000 + written + usage.cache_read_input_tokens * 500


@pytest.mark.parametrize("priced", [True, False])
@pytest.mark.parametrize(("for_an_hour", "most"), [(False, 11), (True, 19)])
def test_all_calls_together_cost_less_than_one_write(priced: bool, for_an_hour: bool, most: int) -> None:
    worth = Worth(10_000, OPUS, price if priced else None, for_an_hour=for_an_hour)
    assert worth.most_calls == most
    assert most * worth.reading <= worth.saved < (most + 1) * worth.reading


def test_costs_are_in_nano_dollars_where_the_model_has_a_price() -> None:
    worth = Worth(10_000, OPUS, price)
    assert worth.nano_usd_of_reading == worth.reading == 5_000_000 and worth.saved == 57_500_000
    assert worth.cost(Usage(7, 1, 0, 10_000)) == 5_060_000
    for unknown in (Worth(10_000, "other", price), Worth(10_000, "", price), Worth(10_000, OPUS)):
        assert unknown.nano_usd_of_reading is None
        assert unknown.cost(Usage(7, 1, 2, 10_000)) == 7 * 100 + 500 + 2 * 125 + 10_000 * 10


def test_a_price_of_nothing_keeps_nothing() -> None:
    assert Worth(10_000, OPUS, lambda model, usage, written: 0).most_calls == 0


@pytest.mark.parametrize(
    ("wait_s", "left_s", "calls"), [(0, 30, 0), (30, 30, 0), (31, 30, 1), (300, 30, 1), (301, 30, 2), (3600, 300, 13)]
)
def test_the_calls_for_a_wait_that_is_known(wait_s: float, left_s: float, calls: int) -> None:
    worth = Worth(10_000, OPUS)
    assert worth.margin_s == 30 and worth.calls_for(wait_s, left_s) == calls
