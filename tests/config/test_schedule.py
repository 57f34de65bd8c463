"""`--start-at`."""

from __future__ import annotations

from datetime import datetime

import pytest

from claude_orchestrator.config.schedule import seconds_until
from token_budget.text import countdown

NOW = datetime(2026, 11, 23, 13, 30, 15)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30m", 1800),
        ("2h", 7200),
        ("1h30m", 5400),
        ("45s", 45),
        ("14:30", 59 * 60 + 45),
        ("13:30", 86400 - 15),
        ("1am", 11.5 * 3600 - 15),
        ("1 pm", 86400 - 1800 - 15),
        ("12am", 10.5 * 3600 - 15),
        ("12pm", 22.5 * 3600 - 15),
        ("2:15pm", 45 * 60 - 15),
        ("00:00", 10.5 * 3600 - 15),
    ],
)
def test_seconds_until(text: str, seconds: float) -> None:
    assert seconds_until(text, NOW) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "soon", "0m", "25:00", "12:60", "13pm", "0am", "5", "-5m", "1.5h", "99999h", "1h2"]
)
def test_nonsense(text: str) -> None:
    with pytest.raises(ValueError, match="expected a span such as 30m or 2h"):
        seconds_until(text, NOW)


def test_countdown() -> None:
    assert [countdown(seconds) for seconds in (0, 59.2, 60, 3725)] == ["0:00", "1:00", "1:00", "1:02:05"]
