"""The real claude and its subagents: each has a line of its own, and a budget of its own stops only its requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from claude_orchestrator.engine.source_uses import share_of_subagents, source_fields, source_line
from claude_orchestrator.engine.state import State
from tests.engine.test_accounting import EXACT, SUBAGENT, config, total
from tests.harness import run_real
from tests.stand_in import Call, Script, StandIn, Text, Tools
from token_budget import Usage
from token_budget.portions import MAIN, SIDE_CALLS

pytestmark = [pytest.mark.real_cli, pytest.mark.slow]

NESTED: Script = {
    "delegate": [Tools((Call.agent("SUBWORK please", run_in_background=False),)), Text("parent done")],
    "SUBWORK": [
        Tools((Call("Agent", {"description": "deep", "prompt": "DEEPER go", "subagent_type": "Explore"}),), output=500),
        Text("sub done", output=600),
        Text("sub done", output=600),
    ],
    "DEEPER": [Text("deep", output=70)],
}


def by_kind(api: StandIn) -> dict[str, Usage]:
    """What the stand-in billed to the main thread and to each list of replies of a subagent."""
    found: dict[str, Usage] = {}
    for entry in api.entries:
        name = entry.marker if entry.agent else MAIN
        found[name] = found.get(name, Usage()) + entry.billed
    return found


def test_a_line_for_each_subagent(claude: str, tmp_path: Path) -> None:
    with StandIn(NESTED) as api:
        status = run_real(config("please delegate"), api, claude, tmp_path, meter="api").only
        billed = by_kind(api)
    assert status.state is State.COMPLETED and status.usage == sum(billed.values(), Usage())
    agents = status.tally.attribution.subagents
    used: dict[str, Usage] = {}
    for portion, spent in status.tally.by_portion.items():
        name = agents[portion.source].type if portion.source in agents else portion.source
        used[name] = used.get(name, Usage()) + spent.usage
    assert used == {MAIN: billed[MAIN], "general-purpose": billed["SUBWORK"], "Explore": billed["DEEPER"]}
    assert {agent.type: agent.depth for agent in agents.values()} == {"general-purpose": 1, "Explore": 2}
    # Claude states its cost by model: where the list has no price of a model, that cost is not divided
    main, outer, inner = (use for use in source_fields(status) if use["total_tokens"])
    assert (outer["parent"], outer["depth"], inner["parent"], inner["depth"]) == ("", 1, outer["id"], 2)
    assert main["total_tokens"] == billed[MAIN].total_tokens and inner["type"] == "Explore"
    assert source_line(status).startswith("main thread 6") and " at depth 2" in source_line(status)
    assert share_of_subagents(status).startswith("2 (")


def test_by_stream_the_main_thread_is_exact_and_the_sum_is_all(claude: str, tmp_path: Path) -> None:
    with StandIn(NESTED) as api:
        status = run_real(config("please delegate"), api, claude, tmp_path, meter="stream").only
        billed = by_kind(api)
    tree = source_fields(status)
    assert tree[0]["source"] == MAIN and tree[0]["total_tokens"] == billed[MAIN].total_tokens
    assert sum(use["total_tokens"] for use in tree) == sum(billed.values(), Usage()).total_tokens
    types = {use["type"]: use["total_tokens"] for use in tree if use["source"] == "subagent"}
    assert 0 < types["general-purpose"] <= billed["SUBWORK"].total_tokens


def test_compaction_is_a_side_call(claude: str, tmp_path: Path) -> None:
    script, setup = EXACT["compaction"]
    with StandIn(script) as api:
        status = run_real(setup, api, claude, tmp_path, meter="api").only
        # 2.1.332 makes two such calls
        side = sum((entry.billed for entry in api.entries if entry.billed.output_tokens == 900), Usage())
        assert status.usage == api.billed()
    used = {portion.source: spent.usage for portion, spent in status.tally.by_portion.items()}
    assert used == {MAIN: status.usage - side, SIDE_CALLS: side}


@pytest.mark.parametrize("limit", ["6000", "general-purpose=6000", "depth:1=6000,*=1000000"])
def test_only_the_subagent_is_refused(limit: str, claude: str, tmp_path: Path) -> None:
    """A request is about 3,100 tokens, so a subagent of 6,000 has room for one; its parent goes on and completes."""
    with StandIn(SUBAGENT) as api:
        outcome = run_real(
            config("please delegate"),
            api,
            claude,
            tmp_path,
            meter="api",
            budget_enforcement_mode="block",
            subagent_token_budget=limit,
        )
        assert [(entry.marker, entry.agent) for entry in api.entries] == [
            ("delegate", False),
            ("SUBWORK", True),
            ("delegate", False),
        ]
        assert total(outcome) == api.billed() and outcome.only.tally.exact
    assert outcome.only.state is State.COMPLETED
    (budget,) = outcome.manager.subagent_budgets.values()
    assert budget.used <= budget.limit == 6000 and budget.held == 0
    (warning,) = [text for text in outcome.messages if text.startswith("WARNING: subagent general-purpose ")]
    assert warning.endswith("that request is refused, and its parent continues")


def test_its_parent_reads_why(claude: str, tmp_path: Path) -> None:
    read: list[str] = []
    with StandIn(SUBAGENT) as api:
        api.on_request = lambda body: read.append(str(body["messages"][-1]["content"]))
        setup = {"meter": "api", "budget_enforcement_mode": "block", "subagent_token_budget": "6000"}
        run_real(config("please delegate"), api, claude, tmp_path, **setup)
    assert "this subagent has used its token budget: 2,397 of 6,000 tokens are left" in read[-1]
    assert "give a smaller task to a new subagent, or do the rest yourself" in read[-1]


def test_in_warn_mode_it_is_reported_once(claude: str, tmp_path: Path) -> None:
    with StandIn(SUBAGENT) as api:
        outcome = run_real(config("please delegate"), api, claude, tmp_path, meter="api", subagent_token_budget="6000")
        assert total(outcome) == api.billed() and len(api.entries) == 4
    assert len([text for text in outcome.messages if "subagent general-purpose" in text]) == 1


def test_an_instance_s_own_limit_comes_first(claude: str, tmp_path: Path) -> None:
    setup = config("please delegate", subagent_token_budget={"general-purpose": "1M"})
    options = {"meter": "api", "budget_enforcement_mode": "block", "subagent_token_budget": "10"}
    with StandIn(SUBAGENT) as api:
        outcome = run_real(setup, api, claude, tmp_path, **options)
        assert total(outcome) == api.billed() and len(api.entries) == 4
