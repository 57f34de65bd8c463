"""Limits of subagents: what may be written, and which of them is a subagent's."""

from __future__ import annotations

import pytest

from claude_orchestrator.config.subagent_limits import SUBAGENT_LIMITS, limit_for, needs_type
from token_budget.fields import BadValue
from token_budget.portions import Subagent


@pytest.mark.parametrize(
    ("value", "limits"),
    [
        (5000, {"*": 5000}),
        ("50k", {"*": 50_000}),
        ("50,000", {"*": 50_000}),
        ("Explore=20k, depth:2=10_000, *=1M", {"Explore": 20_000, "depth:2": 10_000, "*": 1_000_000}),
        ("plug:in=5", {"plug:in": 5}),
        ({"*": 7, "general-purpose": "2k"}, {"*": 7, "general-purpose": 2_000}),
    ],
)
def test_what_may_be_written(value: object, limits: dict[str, int]) -> None:
    found = SUBAGENT_LIMITS.read(value)
    assert dict(found) == limits
    assert SUBAGENT_LIMITS.read(SUBAGENT_LIMITS.show(found)) == found


@pytest.mark.parametrize(
    "value",
    [
        *(0, -1, True, "", "x", "Explore", "Explore=", "=5", [], {"": 5}),
        *("5,6", "a=20,500", "a=20,000", "a=5,a=6", "depth:0=5", "depth:x=5"),
    ],
)
def test_what_may_not(value: object) -> None:
    with pytest.raises(BadValue):
        SUBAGENT_LIMITS.read(value)


@pytest.mark.parametrize(
    ("limits", "subagent", "limit"),
    [
        ("100", Subagent("a"), 100),
        ("Explore=5,*=100", Subagent("a", "Explore"), 5),
        ("Explore=5,*=100", Subagent("a", "other"), 100),
        ("Explore=500,*=100", Subagent("a", "Explore"), 500),
        ("Explore=500,depth:2=50,*=100", Subagent("a", "Explore", "b", 2), 50),
        ("Explore=5", Subagent("a", "other"), None),
    ],
)
def test_the_limit_of_a_subagent(limits: str, subagent: Subagent, limit: int | None) -> None:
    assert limit_for(SUBAGENT_LIMITS.read(limits), subagent) == limit
    assert needs_type(SUBAGENT_LIMITS.read(limits)) is ("Explore" in limits)
