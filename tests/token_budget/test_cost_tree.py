"""Who used what: the order, the sums, and one line for each kind."""

from __future__ import annotations

import pytest

from token_budget.cost_tree import SourceLine, by_kind, cost_tree
from token_budget.ledger.records import AttemptRecord, RunRecord, UsageRecord
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.models import Usage
from token_budget.portions import MAIN, SIDE_CALLS, UNKNOWN, Subagent
from token_budget.text import RenderOptions
from token_budget.usage.run_detail import run_detail

AGENTS = {
    "a": Subagent("a", "general-purpose"),
    "b": Subagent("b", "Explore", "a", 2),
    "c": Subagent("c", "Explore"),
    "d": Subagent("d", "Explore"),
}
PARTS = [
    (SIDE_CALLS, Usage(9), 1),
    ("c", Usage(30), 3_000_000_000),
    ("b", Usage(20), None),
    (MAIN, Usage(100), 10_000_000_000),
    ("a", Usage(10), 2),
    (MAIN, Usage(-1), None),
    ("d", Usage(5), None),
    (UNKNOWN, Usage(), None),
]


def test_each_subagent_stands_below_its_parent() -> None:
    tree = cost_tree(PARTS, AGENTS)
    assert [(use.source, use.usage.total_tokens, use.nano_usd) for use in tree] == [
        (MAIN, 99, 10_000_000_000),
        ("c", 30, 3_000_000_000),
        ("a", 10, 2),
        ("b", 20, None),
        ("d", 5, None),
        (SIDE_CALLS, 9, 1),
    ]


def test_a_line_for_each_type_and_depth() -> None:
    lines = by_kind(cost_tree(PARTS, AGENTS))
    assert lines[1:4] == (
        SourceLine("Explore", 2, Usage(35), 3_000_000_000, 1),
        SourceLine("general-purpose", 1, Usage(10), 2, 1),
        SourceLine("Explore", 1, Usage(20), None, 2),
    )
    assert [line.text() for line in lines[:2]] == ["main thread 99 $10.00", "2 x Explore 35 $3.00"]


@pytest.mark.parametrize("parents", [("x", "y"), ("", "x"), ("gone", "x")])
def test_circles_and_unknown_parents_lose_nobody(parents: tuple[str, str]) -> None:
    agents = {"x": Subagent("x", "t", parents[1] if parents[0] == "x" else parents[0]), "y": Subagent("y", "t", "x")}
    agents["x"] = agents["x"]._replace(parent="y" if parents == ("x", "y") else parents[0])
    tree = cost_tree([("x", Usage(1), None), ("y", Usage(2), None), ("z", Usage(4), None)], agents)
    assert sum(use.usage.total_tokens for use in tree) == 7 and len(tree) == 3


def test_a_run_of_the_ledger_shows_them(tmp_path: object) -> None:
    ledger = SqliteLedger(f"{tmp_path}/ledger.db")
    records = [
        UsageRecord(f"r/i/1/{n}", "r", "i", 1, 5 + n, "m", usage, cost, "prices", source)
        for n, (source, usage, cost) in enumerate(PARTS)
    ]
    attempts = [
        AttemptRecord("r", "i", 1, 1, subagents=tuple(AGENTS.values())),
        AttemptRecord("r", "plain", 1, 1),
    ]
    plain = UsageRecord("r/plain/1/1", "r", "plain", 1, 5, "m", Usage(5), 5, "prices", MAIN)
    ledger.write(runs=[RunRecord("r", "m", 1)], attempts=attempts, records=[*records, plain])
    text = run_detail(ledger, "r", RenderOptions(100))
    first = next(number for number, line in enumerate(text) if line.startswith("attempt"))
    assert [line.split() for line in text[first : first + 6]] == [
        ["attempt", "used", "by", "depth", "number", "tokens", "cost"],
        ["i", "#1", "main", "thread", "-", "1", "99", "$10.00"],
        ["i", "#1", "Explore", "1", "2", "35", "$3.00"],
        ["i", "#1", "general-purpose", "1", "1", "10", "$0.0000"],
        ["i", "#1", "Explore", "2", "1", "20", "?"],
        ["i", "#1", "side", "calls", "-", "1", "9", "$0.0000"],
    ]
    assert not any(line.startswith("plain #1") for line in text)
    ledger.close()
