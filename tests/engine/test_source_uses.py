"""Who used what of an instance, as reports and the display say it."""

from __future__ import annotations

from claude_orchestrator.claude.events import ApiUsage, Task
from claude_orchestrator.engine.source_uses import share_of_subagents, source_fields, source_line
from claude_orchestrator.engine.state import InstanceStatus
from tests.claude.test_tally import INIT, final, start
from tests.engine.test_state import an_instance, feed
from token_budget.models import Usage
from token_budget.portions import MAIN, SIDE_CALLS


def a_price(model: str, usage: Usage, written_for_1h_tokens: int) -> int | None:
    """A cent a token."""
    return 10_000_000 * usage.total_tokens


def used(status: InstanceStatus, **tokens: int) -> None:
    """The API meter counts so many tokens of each source, at a cent each."""
    status.attempt.meter()
    for source, count in tokens.items():
        agent = source if source.startswith("a") else ""
        response = ApiUsage(source, Usage(count), True, model="m", source=agent or source, agent=agent)
        status.apply(response)
        status.attempt.costs.price(a_price, response)


def with_subagents() -> InstanceStatus:
    status = an_instance("/a")
    status.apply(Task("a1", "local_agent", None, "general-purpose"))
    status.apply(Task("a2", "local_agent", None, "Explore", parent_task="a1"))
    used(status, **{MAIN: 50, "a1": 30, "a2": 20, SIDE_CALLS: 1})
    return status


def test_an_instance_without_subagents_has_nothing_to_divide() -> None:
    status = an_instance("/a")
    feed(status, INIT, start("r", 5), final(1))
    assert [field["source"] for field in source_fields(status)] == [MAIN]
    assert source_line(status) == share_of_subagents(status) == ""


def test_reports_name_each_subagent_with_its_parent_its_tokens_and_its_cost() -> None:
    main, outer, inner, side = source_fields(with_subagents())
    assert (main["source"], main["total_tokens"], main["cost_usd"]) == (MAIN, 50, "0.5")
    assert outer.items() >= {"source": "subagent", "id": "a1", "type": "general-purpose", "depth": 1}.items()
    assert inner.items() >= {"id": "a2", "type": "Explore", "parent": "a1", "depth": 2, "input_tokens": 20}.items()
    assert (side["source"], side["total_tokens"]) == (SIDE_CALLS, 1)


def test_the_display_says_it_in_a_line() -> None:
    status = with_subagents()
    assert source_line(status) == (
        "main thread 50 $0.50, general-purpose 30 $0.30, Explore 20 $0.20 at depth 2, side calls 1 $0.0100"
    )
    assert share_of_subagents(status) == "2 (49%)"


def test_later_attempts_add_to_what_the_earlier_ones_have_used() -> None:
    status = with_subagents()
    status.finish(1.0, 1, "")
    status.prepare_retry()
    assert share_of_subagents(status) == "2 (49%)"
    used(status, **{MAIN: 99})
    assert [field["total_tokens"] for field in source_fields(status)] == [149, 30, 20, 1]
    assert share_of_subagents(status) == "2 (25%)"


def test_subagents_that_have_used_nothing_yet_have_no_share() -> None:
    status = an_instance("/a")
    status.apply(Task("a1", "local_agent", None, "Explore"))
    assert share_of_subagents(status) == ""
    used(status, **{MAIN: 5})
    assert share_of_subagents(status) == ""
