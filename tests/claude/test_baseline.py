"""Where the CLI's count of a process begins: at zero, after an earlier process of its session, or after /clear."""

from __future__ import annotations

import pytest

from claude_orchestrator.claude.baseline import Baseline
from claude_orchestrator.claude.events import ModelUsage
from token_budget.models import Usage

EARLIER, LATER = Usage(100, 10, 0, 0), Usage(140, 15, 0, 0)


def reading(usage: Usage, cost_usd: float | None = None) -> ModelUsage:
    return ModelUsage(usage, cost_usd, ())


def test_what_earlier_processes_had_counted_is_subtracted() -> None:
    baseline = Baseline()
    assert not baseline.is_known
    baseline.state(reading(EARLIER, 0.5))
    assert baseline.is_known
    assert baseline.usage_in(reading(LATER)) == Usage(40, 5, 0, 0)
    assert baseline.cost_in(0.75) == 0.25


@pytest.mark.parametrize(
    ("version", "resumed", "seen", "expected"),
    [
        ("2.1.330", True, Usage(40, 5, 0, 0), Usage(40, 5, 0, 0)),  # the rest was carried over
        ("2.1.330", True, Usage(140, 0, 0, 0), LATER),  # more output alone is not
        ("2.1.330", False, Usage(40, 5, 0, 0), LATER),
        ("2.1.221", True, Usage(40, 5, 0, 0), LATER),  # it starts at zero
        ("2.1.222", True, Usage(40, 5, 0, 0), Usage(40, 5, 0, 0)),
        ("newest", True, Usage(40, 5, 0, 0), Usage(40, 5, 0, 0)),
    ],
)
def test_without_that_reading_it_is_guessed(version: str, resumed: bool, seen: Usage, expected: Usage) -> None:
    baseline = Baseline()
    has_more = baseline.guess(reading(LATER, 1.0), seen, version, resumed=resumed)
    assert baseline.is_known and has_more is (expected != LATER)
    assert baseline.usage_in(reading(LATER)) == expected
    assert baseline.cost_in(1.0) == (0.0 if has_more else 1.0)


def test_a_count_that_starts_again_is_added() -> None:
    baseline = Baseline()
    baseline.state(reading(EARLIER))
    baseline.restart(Usage(40, 5, 0, 0), 0.25)
    assert baseline.usage_in(reading(Usage(3, 1, 0, 0))) == Usage(43, 6, 0, 0)
    assert baseline.cost_in(0.5) == 0.75
