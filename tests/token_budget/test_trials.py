"""What many instances will use, from a trial of a few."""

from __future__ import annotations

from random import Random

import pytest

from token_budget.forecast import Forecast, chance_that_sum_is_under
from token_budget.ledger.samples import family_of, subject_of
from token_budget.trials import Trial, trial_of


def test_a_trial_in_words() -> None:
    tokens = tuple(15_500 + step for step in range(-5_000, 5_001, 500) if step)
    assert (
        Trial(tokens).describe(10_000)
        == "a trial of 20 cost 310K tokens; 10,000 would need about 155M, 90 % under 164M"
    )
    assert Trial((7, 8)).describe(9) == "a trial of 2 cost 15 tokens; a forecast needs 5 that completed"
    assert Trial((100,) * 5).describe(10) == "a trial of 5 cost 500 tokens; 10 would need about 1K, 90 % under 1K"


@pytest.mark.parametrize("count", [20, 1_000])
def test_nine_of_ten_sums_stay_under(count: int) -> None:
    random, under = Random(1), 0
    for _ in range(300):
        trial = Trial(tuple(round(random.lognormvariate(9, 0.5)) for _ in range(30)))
        under += sum(round(random.lognormvariate(9, 0.5)) for _ in range(count)) <= trial.scaled(count, 0.9)
    assert 0.82 <= under / 300 <= 0.95


def test_the_latest_run_in_which_something_completed_is_the_trial() -> None:
    runs = [("a", 1, True), ("b", 2, True), ("a", 3, True), ("b", 4, True), ("b", 9, False), ("c", 5, False)]
    assert trial_of(runs) == Trial((2, 4))
    assert trial_of([("c", 5, False)]) is None and trial_of([]) is None


def test_the_sum_of_many_is_normal() -> None:
    coin = Forecast(10, points=(100, 200), below=(0.5, 1.0), spread=0.1)
    few, many = [coin] * 100, [coin] * 400
    for forecasts in (few, many):
        middle = 150 * len(forecasts)
        assert chance_that_sum_is_under(forecasts, middle) == pytest.approx(0.5, abs=0.25)
        assert chance_that_sum_is_under(forecasts, middle * 2) == pytest.approx(1, abs=0.01)
        assert chance_that_sum_is_under(forecasts, middle // 2) == pytest.approx(0, abs=0.01)
    assert chance_that_sum_is_under([*many, Forecast(1)], 10**9) is None


@pytest.mark.parametrize(
    ("instance", "family"),
    [("fix[a.py]", "fix"), ("fix", "fix"), ("fix[a[1]]", "fix"), ("[x]", "[x]"), ("fix[a", "fix[a"), ("a]", "a]")],
)
def test_the_group_in_a_name(instance: str, family: str) -> None:
    assert family_of(instance) == family and subject_of(None, instance) == f"prompt {family}"
    assert subject_of("/test", instance) == "/test"
