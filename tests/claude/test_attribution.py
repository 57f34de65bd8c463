"""Who asked for what, as the stream shows it: the real lines of two versions, and odd ones."""

from __future__ import annotations

import json
from typing import Any

import pytest

from claude_orchestrator.claude.attribution import MAX_DEPTH, Attribution
from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.claude.stream import parse
from claude_orchestrator.claude.tally import UsageTally
from tests.claude.test_tally import INIT, final, start
from token_budget.models import NO_USAGE, Usage
from token_budget.portions import MAIN, SIDE_CALLS, TOOLS, Portion, Subagent


def line(**data: Any) -> bytes:
    return json.dumps(data).encode()


def started(agent: str, kind: str, call: str, **more: Any) -> bytes:
    """`task_started`, as 2.1.197 writes it; the newest adds `spawn_depth` and `parent_task_id`."""
    about = {"task_id": agent, "tool_use_id": call, "subagent_type": kind, "task_type": "local_agent"}
    return line(type="system", subtype="task_started", **about, **more)


def said(response: str, parent: str | None, tokens: int, *calls: str) -> bytes:
    """An `assistant` line that starts subagents by these calls."""
    content = [{"type": "tool_use", "id": call, "name": "Agent", "input": {}} for call in calls]
    message = {"id": response, "model": "m", "content": content, "usage": {"input_tokens": tokens, "output_tokens": 1}}
    return line(type="assistant", message=message, parent_tool_use_id=parent)


def reported(agent: str, tokens: int, output: int) -> bytes:
    """The tool result with which a subagent ends: the usage of its last response."""
    usage = {"input_tokens": tokens, "output_tokens": output}
    result = {"agentId": agent, "agentType": "Explore", "resolvedModel": "m[1m]", "usage": usage}
    return line(type="user", message={"content": []}, parent_tool_use_id=None, tool_use_result=result)


def lines_of(*lines: bytes) -> bytes:
    return b"".join(one + b"\n" for one in lines)


def learn(*lines: bytes) -> Attribution:
    attribution = Attribution()
    for event in parse(lines_of(*lines)):
        attribution.feed(event)
    return attribution


@pytest.mark.parametrize("more", [{}, {"parent_task_id": "a1"}], ids=["2.1.197", "2.1.332"])
def test_types_and_depths(more: dict[str, str]) -> None:
    attribution = learn(
        said("r0", None, 5, "t0"),
        started("a1", "general-purpose", "t0"),
        started("a2", "Explore", "t1", **more),
        said("r1", "t0", 7, "t1"),
    )
    assert attribution.subagents == {
        "a1": Subagent("a1", "general-purpose", "", 1),
        "a2": Subagent("a2", "Explore", "a1", 2),
    }
    assert attribution.shown == {(MAIN, "m"): Usage(5, 1), ("a1", "m"): Usage(7, 1)}
    assert attribution.is_main("r0") and not attribution.is_main("r1")


def test_headers_name_subagents_before_the_stream_does() -> None:
    attribution = Attribution()
    attribution.meet_sender(ApiUsage("r", NO_USAGE, True, agent="a2", parent_agent="a1"))
    assert attribution.subagents["a2"] == Subagent("a2", "", "a1", 2) and not attribution.knows_type("a2")
    for event in parse(started("a2", "Explore", "t1") + b"\n"):
        attribution.feed(event)
    assert attribution.subagents["a2"] == Subagent("a2", "Explore", "a1", 2)


def test_the_last_response_of_a_foreground_subagent_is_in_its_report() -> None:
    """No other event shows it; a background subagent's was shown before with the counts that it began with."""
    foreground = learn(started("a1", "Explore", "t0"), said("r1", "t0", 7), reported("a1", 9, 60))
    assert foreground.shown == {("a1", "m"): Usage(16, 61)}
    background = learn(started("a1", "Explore", "t0"), said("r1", "t0", 7), reported("a1", 7, 60))
    assert background.shown == {("a1", "m"): Usage(7, 60)}


@pytest.mark.parametrize(
    "odd",
    [
        line(type="user", message={}, tool_use_result={"agentId": "a9", "usage": {}}),
        line(type="user", message={}, tool_use_result={"agentId": 5, "usage": {"input_tokens": 5}}),
        line(type="user", message={}, tool_use_result="text"),
        line(type="system", subtype="task_started", task_id=None, task_type="local_agent", subagent_type=7),
    ],
)
def test_odd_lines_change_nothing(odd: bytes) -> None:
    assert learn(odd).shown == {}


def test_subagents_that_would_be_their_own_ancestors() -> None:
    attribution = Attribution()
    attribution.meet("a", "b")
    attribution.meet("b", "a")
    assert attribution.subagent("a").depth == MAX_DEPTH


def metered(*responses: ApiUsage) -> UsageTally:
    tally = UsageTally(metered=True)
    for response in responses:
        tally.feed(response)
    return tally


def test_what_the_stream_does_not_show_is_a_side_call_at_the_end_of_a_turn() -> None:
    asked = (
        ApiUsage("main", Usage(1), True, model="m", source=MAIN),
        ApiUsage("side", Usage(20), True, model="m", source=MAIN),
        ApiUsage("begun", Usage(300), False, model="m", source=MAIN),
        ApiUsage("sub", Usage(4_000), True, model="m", source="a1", agent="a1"),
        ApiUsage("other", Usage(50_000), True, model="m", source=TOOLS),
    )
    tally = metered(*asked)
    for event in parse(lines_of(INIT, start("main", 1), final(5))):
        tally.feed(event)
    assert tally.metered and [response.id for response in tally.settle_sources()] == ["side"]
    counts = {portion.source: spent.usage.input_tokens for portion, spent in tally.by_portion.items()}
    assert counts == {MAIN: 301, SIDE_CALLS: 20, "a1": 4_000, TOOLS: 50_000}
    assert tally.usage == Usage(54_321) and tally.by_model == {"m": Usage(54_321)}
    assert tally.settle_sources() == []


def test_by_stream_the_rest_stays_undivided() -> None:
    counted = {"m[1m]": {"inputTokens": 30, "outputTokens": 9}}
    result = line(type="result", subtype="success", modelUsage=counted, usage={}, total_cost_usd=0.5)
    tally = UsageTally()
    lines = (said("r1", "t0", 7), started("a1", "Explore", "t0"), result)
    for event in parse(lines_of(INIT, start("main", 5), final(4), *lines)):
        tally.feed(event)
    assert {portion: spent.usage for portion, spent in tally.by_portion.items()} == {
        Portion("m[1m]", MAIN): Usage(5, 4),
        Portion("m[1m]", "a1"): Usage(7, 1),
        Portion("m[1m]"): Usage(18, 4),
    }
