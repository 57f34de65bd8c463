"""The tally when the API meter counts, and when calls go past it."""

from __future__ import annotations

import pytest

from claude_orchestrator.claude.events import ApiUsage, ModelUsage, SessionReset, UsageAnswer
from claude_orchestrator.claude.stream import parse
from claude_orchestrator.claude.tally import UsageTally
from tests.claude.test_tally import INIT, final, start
from token_budget import Usage


def metered(*responses: ApiUsage) -> UsageTally:
    tally = UsageTally(metered=True)
    for response in responses:
        tally.feed(response)
    return tally


def feed(tally: UsageTally, *lines: bytes) -> None:
    for event in parse(b"".join(line + b"\n" for line in lines)):
        tally.feed(event)


def test_the_latest_figures_of_each_response_count_by_model() -> None:
    tally = metered(
        ApiUsage("a", Usage(5, 1), whole=False, model="m"),
        ApiUsage("b", Usage(7), whole=True, model="n"),
        ApiUsage("a", Usage(5, 9), whole=True, model="m"),
    )
    assert tally.usage == Usage(12, 9) and tally.exact
    assert tally.by_model == {"m": Usage(5, 9), "n": Usage(7)}


def test_a_response_that_was_cut_off_makes_the_count_a_lower_bound() -> None:
    assert not metered(ApiUsage("a", Usage(5, 1), whole=False, cut=True)).exact


def test_a_response_that_went_past_the_meter_makes_the_stream_the_count() -> None:
    tally = metered(ApiUsage("a", Usage(5, 1), whole=True, model="m"))
    feed(tally, INIT, start("a", 5), final(1))
    assert tally.metered
    feed(tally, start("b", 50), final(10))
    assert not tally.metered and tally.usage == Usage(55, 11)


def test_after_a_reset_the_clis_count_may_begin_again() -> None:
    tally = UsageTally()
    feed(tally, INIT, start("a", 100), final(10))
    tally.feed(UsageAnswer("usage", ModelUsage(Usage(100, 10), 0.5, ())))
    tally.feed(SessionReset())
    tally.feed(UsageAnswer("usage", ModelUsage(Usage(), 0.0, ())))
    feed(tally, start("b", 20), final(2))
    tally.feed(UsageAnswer("usage", ModelUsage(Usage(20, 2), 0.1, ())))
    assert tally.usage == Usage(120, 12) and tally.cost_usd == pytest.approx(0.6)
