"""How a budget is shared among those who want it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from token_budget.holds import floor_of, max_min_shares


@pytest.mark.parametrize(
    ("available", "wanted", "shares"),
    [
        (100, [], []),
        (100, [30, 40], [30, 40]),
        (100, [80, 80], [50, 50]),
        (100, [10, 80, 80], [10, 45, 45]),
        (100, [90, 5, 20], [75, 5, 20]),
        (0, [10, 10], [0, 0]),
        (-5, [10], [0]),
        (10, [-3, 20], [0, 10]),
    ],
)
def test_shares(available: int, wanted: list[int], shares: list[int]) -> None:
    assert max_min_shares(available, wanted) == shares


@given(st.integers(0, 10_000), st.lists(st.integers(0, 5_000), max_size=8))
def test_shares_are_max_min_fair(available: int, wanted: list[int]) -> None:
    """Nothing that is wanted stays over. Nobody who wants more gets less than another, except by rounding."""
    shares = max_min_shares(available, wanted)
    assert sum(shares) == min(available, sum(wanted))
    for share, want in zip(shares, wanted, strict=True):
        assert share == want or share >= max(shares) - 1


@pytest.mark.parametrize(
    ("wanted", "floor"), [(400, 400), (1_000, 1_000), (3_000, 1_000), (4_000, 1_000), (40_000, 10_000)]
)
def test_the_least_share_worth_a_start(wanted: int, floor: int) -> None:
    assert floor_of(wanted) == floor
