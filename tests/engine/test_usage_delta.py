"""What budgets are charged as an attempt's counts and costs grow."""

from __future__ import annotations

import pytest

from claude_orchestrator.claude.events import ApiUsage, Price
from claude_orchestrator.engine.state import InstanceStatus
from claude_orchestrator.engine.usage_delta import PortionDelta
from tests.claude.test_tally import INIT, final, result, start
from tests.engine.test_state import a_result, an_instance, feed
from token_budget import Usage
from token_budget.api_usage import UsagePart
from token_budget.model_weights import ModelWeights
from token_budget.models import Amount, Weights
from token_budget.portions import MAIN, SIDE_CALLS, Portion, Spent

FLAT = Weights()


def a_price(model: str, usage: Usage, written_for_1h_tokens: int) -> int | None:
    """Ten nano-dollars a token; only models that begin with `m` have a price."""
    return 10 * usage.total_tokens if model.startswith("m") else None


def metered() -> InstanceStatus:
    status = an_instance("/a")
    status.attempt.meter()
    return status


def test_nothing_used_is_no_delta() -> None:
    assert an_instance("/a").attempt.costs.take_delta(FLAT) is None


def test_deltas_sum_up_to_the_total() -> None:
    status = an_instance("/a")
    feed(status, INIT, start("a", 5))
    first = status.attempt.costs.take_delta(Weights.parse("output=5"))
    assert first is not None and first.cost_source is None
    assert first.portions == {Portion("m", MAIN): PortionDelta(Spent(status.usage), 0)}
    counted = status.usage
    feed(status, final(4), a_result(total_cost_usd=0.5, modelUsage={"m": {"inputTokens": 5, "outputTokens": 4}}))
    second = status.attempt.costs.take_delta(Weights.parse("output=5"))
    assert second is not None and second.cost_source == "claude"
    assert first.amount + second.amount == Amount(5 + 5 * 4, 500_000_000)
    assert second.portions == {Portion("m", MAIN): PortionDelta(Spent(status.usage - counted), 500_000_000)}
    assert status.attempt.costs.take_delta(FLAT) is None


def test_only_a_response_that_begins_reads_input() -> None:
    """The input is counted at its begin, and output after that."""
    status = an_instance("/a")
    reads = []
    for event in (start("a", 5), final(9), start("b", 7)):
        feed(status, INIT, event)
        delta = status.attempt.costs.take_delta(FLAT)
        reads.append(delta is not None and delta.reads_input)
    assert reads == [True, False, True]


def test_what_was_cut_off_is_priced_once() -> None:
    status = an_instance("/a")
    feed(status, INIT, start("a", 5))
    status.finish(1.0, -9, "")
    costs = status.attempt.costs
    assert (costs.source, costs.nano_usd) == (None, None)
    for _ in range(2):
        costs.price(a_price, None)
        assert (costs.source, costs.nano_usd) == ("prices", 60)


def test_a_metered_response_is_priced_again_as_it_grows() -> None:
    status = metered()
    charged = []
    for tokens in (3, 8):
        response = ApiUsage("r", Usage(tokens), whole=False, model="m-1")
        status.apply(response)
        status.attempt.costs.price(a_price, response)
        assert status.attempt.costs.by_model == {"m-1": 10 * tokens} and status.attempt.costs.source == "prices"
        delta = status.attempt.costs.take_delta(FLAT)
        assert delta is not None and delta.portions.keys() == {Portion("m-1")}
        charged.append(delta.amount)
    assert charged == [Amount(3, 30), Amount(5, 50)]


def test_a_model_without_a_price_costs_nothing() -> None:
    status = metered()
    response = ApiUsage("r", Usage(9), whole=True, model="other")
    status.apply(response)
    status.attempt.costs.price(a_price, response)
    assert status.attempt.costs.source is None and status.attempt.costs.nano_usd is None


def test_where_every_response_has_a_price_claude_s_own_figure_is_not_needed() -> None:
    """It can be higher: claude prices a response by the model that was asked, and not by the one that has served it."""
    status = metered()
    response = ApiUsage("a", Usage(9), whole=True, model="m")
    status.apply(response)
    status.attempt.costs.price(a_price, response)
    feed(status, INIT, result(9, 1))
    assert status.attempt.costs.nano_usd == 90  # claude states $0.009


def test_where_a_response_has_no_price_the_larger_of_both_costs_counts() -> None:
    status = metered()
    for model in ("m", "other"):
        response = ApiUsage(model, Usage(9), whole=True, model=model)
        status.apply(response)
        status.attempt.costs.price(a_price, response)
    assert status.attempt.costs.nano_usd == 90
    feed(status, INIT, result(18, 1))
    assert status.attempt.costs.nano_usd == 18_000_000


def test_the_model_that_has_served_a_response_decides_in_the_end() -> None:
    """What a budget was charged never falls: what follows makes up for it. The costs themselves are exact."""
    status = metered()

    def price(model: str, usage: Usage, written_for_1h_tokens: int) -> int | None:
        return usage.total_tokens * (50 if model == "asked" else 20)

    amounts = []
    for number, (model, is_whole) in enumerate((("asked", False), ("served", True), ("served", True))):
        parts = (UsagePart("fallback_message", model, Usage(10)),)
        response = ApiUsage(f"r{number // 2}", Usage(10), is_whole, model="asked", parts=parts)
        status.apply(response)
        status.attempt.costs.price(price, response)
        delta = status.attempt.costs.take_delta(FLAT)
        amounts.append(0 if delta is None else delta.amount.nano_usd)
    assert amounts == [500, 0, 0] and status.attempt.costs.nano_usd == 400
    assert status.attempt.costs.by_model == {"asked": 0, "served": 400}


@pytest.mark.parametrize(("price", "nano_usd"), [(a_price, 10), (None, 0)])
def test_the_cost_of_a_side_call_moves_with_it_at_the_end_of_a_turn(price: Price | None, nano_usd: int) -> None:
    """Budgets are charged nothing more: only who used it is known better."""
    status = metered()
    for number, tokens in enumerate((3, 20)):
        response = ApiUsage("ab"[number], Usage(tokens), whole=True, model="m", source=MAIN)
        status.apply(response)
        if price is not None:
            status.attempt.costs.price(price, response)
    costs = status.attempt.costs
    assert costs.take_delta(FLAT) is not None
    feed(status, INIT, start("a", 3))
    costs.settle_sources(price)
    delta = costs.take_delta(FLAT)
    assert delta is not None and delta.amount == Amount()
    moved = {portion.source: (part.spent.usage, part.nano_usd) for portion, part in delta.portions.items()}
    assert moved == {MAIN: (Usage(-20), -20 * nano_usd), SIDE_CALLS: (Usage(20), 20 * nano_usd)}
    costs.settle_sources(price)
    assert costs.take_delta(FLAT) is None


def test_each_part_draws_by_the_model_that_served_it_and_a_draw_never_falls() -> None:
    weights = ModelWeights({"dear": Weights(output=10), "odd": Weights(cache_read=0, output=2)}.get)
    status = metered()
    status.apply(ApiUsage("a", Usage(1, 5), whole=False, model="dear"))
    first = status.attempt.costs.take_delta(weights)
    assert first is not None and first.amount == Amount(1 + 50)
    status.apply(ApiUsage("b", Usage(1, 5, 0, 9), whole=True, model="odd"))
    second = status.attempt.costs.take_delta(weights)
    assert second is not None and second.amount == Amount(1 + 10)
    status.apply(ApiUsage("a", Usage(1, 6), whole=True, model="odd"))  # another model has served it
    third = status.attempt.costs.take_delta(weights)
    assert third is not None and third.amount == Amount()
    assert status.drawn(weights) == 1 + 12 + 1 + 10
