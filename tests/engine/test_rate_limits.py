"""A subscription's rate limits as rows."""

from __future__ import annotations

import pytest

from claude_orchestrator.engine.rate_limits import rate_limit_rows


def test_limits_with_and_without_a_reset() -> None:
    limits = {"five_hour": {"utilization": 12, "resets_at": "18:00"}, "week": {"utilization": 99.5, "resets_at": 5}}
    assert rate_limit_rows(limits) == [("five_hour", 12.0, "18:00"), ("week", 99.5, "")]


@pytest.mark.parametrize(
    "limit", [None, 5, {}, {"utilization": None}, {"utilization": True}, {"utilization": -1}, {"utilization": 10**9}]
)
def test_a_limit_of_another_shape_is_left_out(limit: object) -> None:
    assert rate_limit_rows({"five_hour": limit}) == []
