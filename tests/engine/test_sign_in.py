"""A login that ends before the run can end is reported once."""

from __future__ import annotations

import pytest

from claude_orchestrator.engine.sign_in import SignIn

NOW = 1_800_000_000.0
HOUR_S = 3_600.0


@pytest.mark.parametrize(
    ("ends_in_s", "left_s", "warned"),
    [
        (30 * 24 * HOUR_S, None, False),
        (20 * HOUR_S, None, True),  # nobody knows how long the run takes
        (20 * HOUR_S, 60.0, False),
        (20 * HOUR_S, 21 * HOUR_S, True),
        (0.5 * HOUR_S, 60.0, True),  # too near, whatever the forecast is
        (-HOUR_S, 60.0, True),
        (-1e18, 60.0, True),
    ],
)
def test_it_is_reported_if_it_may_end_before_the_run(ends_in_s: float, left_s: float | None, warned: bool) -> None:
    said: list[str] = []
    sign_in = SignIn(said.append, lambda: left_s, lambda: NOW)
    for _ in range(3):
        sign_in.ends_at(NOW + ends_in_s)
    assert len(said) == warned
    if warned:
        assert f"the login of claude {'ended' if ends_in_s < 0 else 'ends'} at " in said[0]
