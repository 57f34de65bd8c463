"""What a request without a complete answer is charged: by values, it covers whatever the API can bill."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.gateway.admission import Cost, Ticket, bound
from claude_orchestrator.gateway.unanswered import ChargeUnanswered, charged_unanswered, completed, most_of
from token_budget.api_usage import PriceTerms
from token_budget.models import Amount, Hold, Usage, Weights

WEIGHTS = st.sampled_from(
    [Weights.parse(text) for text in ("flat", "billing", "output=0", "input=3", "cache_read=2", "input=2,cache_read=2")]
)
TERMS = PriceTerms(speed="fast", inference_geo="us")
count = st.integers(0, 500)


def ticket_of(tokens: int, output: int, cost: Cost | None = None, growth: int = 0) -> Ticket:
    hold = Hold((), Amount())
    return Ticket((), tokens, output, cost, "m", terms=TERMS, growth_tokens=growth, output_tokens=output, hold=hold)


@given(st.tuples(count, count, count, count), st.tuples(count, count, count, count), WEIGHTS, st.booleans())
def test_what_is_charged_is_held_and_covers_what_is_billed(
    first: tuple[int, ...], more: tuple[int, ...], weights: Weights, in_money: bool
) -> None:
    """A response states `first`, and is billed for `more` beyond that; its request's input is bounded exactly."""
    seen, billed = Usage(*first), Usage(*map(sum, zip(first, more, strict=True)))
    tokens = billed.total_tokens - billed.output_tokens
    most = most_of(ticket_of(tokens, billed.output_tokens, Cost(1, 1) if in_money else None), weights)
    held = bound(tokens, billed.output_tokens, weights)
    assert weights.draw(billed) <= weights.draw(most.usage.usage)
    charged = completed(ApiUsage("r", seen, whole=False, told=False), most)
    assert weights.draw(billed) <= weights.draw(charged.usage)
    assert charged.billed() == charged.parts and charged.terms == TERMS
    is_plain = weights.cache_write >= max(weights.input, weights.cache_read) or not in_money
    if is_plain:
        assert weights.draw(most.usage.usage) <= held
    if in_money:  # the dearest input in money is a cache write for an hour
        assert most.usage.usage.cache_creation_input_tokens == most.usage.parts[0].written_for_1h_tokens == tokens


def test_input_that_is_stated_grows_only_by_what_the_api_runs() -> None:
    stated = ApiUsage("r", Usage(100, 5), whole=False, told=True)
    assert most_of(ticket_of(900, 50), Weights()).rest(stated) == Usage(0, 45)
    assert most_of(ticket_of(900, 50, growth=300), Weights()).rest(stated) == Usage(300, 45)
    unclear = stated._replace(told=False)
    assert most_of(ticket_of(900, 50), Weights()).rest(unclear) == Usage(800, 45)


def test_what_the_setting_charges() -> None:
    most = most_of(ticket_of(900, 50), Weights(), "unknown-1")
    usages = {how: charged_unanswered(most, how) for how in ChargeUnanswered}
    assert [usage.usage for usage in usages.values()] == [Usage(900, 50), Usage(900), Usage()]
    assert all(usage.cut and not usage.exact and usage.id == "unknown-1" for usage in usages.values())


def test_without_a_hold_nothing_is_known() -> None:
    ticket = ticket_of(900, 50)
    ticket.hold = None
    assert most_of(ticket, Weights()).usage.usage == Usage()
