"""Forecasts: quantiles, few runs, stopped runs, other models and commands, conditions, sums, and the backtest."""

from __future__ import annotations

from collections.abc import Callable
from math import exp
from random import Random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.forecast_coverage import bimodal, log_normal
from token_budget.forecast import (
    LEAST,
    Backtest,
    Forecast,
    Sample,
    backtest,
    chance_that_all_fit,
    chance_that_sum_is_under,
    forecast,
    pinball_loss,
)

OBSERVATIONS = st.builds(
    Sample,
    subject=st.sampled_from(["/a", "/b", "prompt one"]),
    model=st.sampled_from(["m", "x"]),
    tokens=st.integers(0, 10**9),
    at_s=st.integers(0, 50),
    censored=st.booleans(),
)


def runs(*tokens: int, command: str = "/a", model: str = "m", start_s: int = 0) -> list[Sample]:
    return [Sample(command, model, used, start_s + index) for index, used in enumerate(tokens)]


def stopped(*tokens: int) -> list[Sample]:
    return [Sample("/a", "m", used, 0, censored=True) for used in tokens]


def drawn(random: Random, count: int, level: float, sigma: float = 0.5) -> list[int]:
    return [round(level * exp(random.gauss(0, sigma))) for _ in range(count)]


def quantile(made: Forecast, p: float) -> int:
    found = made.quantile(p)
    assert found is not None
    return found


def test_few_runs_are_unknown_and_say_so() -> None:
    two = forecast(runs(10, 20), "/a", "m")
    assert (two.known, two.p50, two.p90, two.chance_under(99), two.describe()) == (False, *[None] * 3, "unknown (n=2)")
    assert two.given(5) == two
    assert forecast([], "/a", "m").describe() == "unknown (n=0)"
    assert forecast(runs(*[10] * (LEAST - 1)), "/a", "m").known is False
    assert forecast(runs(*[10] * LEAST), "/a", "m").known is True
    # what others use does not make it known
    assert forecast(runs(*[10] * 99, command="/b") + runs(1), "/a", "m").describe() == "unknown (n=1)"
    # nor do runs that never came to their end
    only_stopped = runs(10, 20) + stopped(*[50] * 7)
    assert forecast(only_stopped, "/a", "m").describe() == "unknown (n=9, 7 of them stopped early)"


def test_in_words() -> None:
    assert Forecast(23, 0, (41_234, 87_900), (0.6, 0.95), 0.5).describe() == "about 41K, 90 % under 88K, n=23"
    assert Forecast(9, 0, (950, 3_456), (0.6, 0.95), 0.5).describe() == "about 950, 90 % under 3.5K, n=9"


def test_quantiles_are_those_of_n_plus_1() -> None:
    # near enough in time that age does not matter: the 10th of 10 is 10/11, the 9th only 9/11
    ten = forecast(runs(*range(10, 110, 10)), "/a", "m")
    assert (ten.p50, ten.p90) == (60, 100)
    assert quantile(ten, 0.95) > 100  # nobody has seen it yet
    with pytest.raises(ValueError, match="above 0 and below 1, got 1"):
        ten.quantile(1)


def test_recent_runs_weigh_more_and_the_future_is_not_known() -> None:
    history = runs(*[1000] * 150, *[9000] * 100)
    assert forecast(history, "/a", "m").p50 == 9000
    assert forecast(history[::-1], "/a", "m").p50 == 9000
    assert forecast(history, "/a", "m", now_s=149).p50 == 1000
    assert forecast(history, "/a", "m", now_s=149).n == 150


def test_stopped_runs_count_as_at_least() -> None:
    random = Random(1)
    truth = drawn(random, 300, 10_000, 1.0)
    limits = drawn(random, 300, 20_000, 1.0)
    history = [
        Sample("/a", "m", min(used, limit), index, censored=limit < used)
        for index, (used, limit) in enumerate(zip(truth, limits, strict=True))
    ]
    full = forecast(runs(*truth), "/a", "m")
    seen = forecast(history, "/a", "m")
    naive = forecast([Sample("/a", "m", run.tokens, run.at_s) for run in history], "/a", "m")
    assert quantile(seen, 0.5) == pytest.approx(quantile(full, 0.5), rel=0.2)
    assert quantile(seen, 0.8) == pytest.approx(quantile(full, 0.8), rel=0.25)
    assert quantile(naive, 0.8) < 0.75 * quantile(full, 0.8)


def test_a_run_that_was_stopped_above_all_others_moves_the_tail() -> None:
    below, above = runs(*[100] * 8), stopped(100_000)
    assert quantile(forecast(below, "/a", "m"), 0.95) < 200
    assert quantile(forecast(below + above, "/a", "m"), 0.95) >= 100_000
    # five of ten and the one to come: those stopped at 100 would have used more
    assert forecast(runs(*[100] * 5) + stopped(*[100] * 5), "/a", "m").chance_under(100) == pytest.approx(
        5 / 11, abs=0.02
    )


def test_the_model_is_preferred_and_others_help_until_it_has_runs() -> None:
    random = Random(2)
    other = runs(*drawn(random, 100, 50_000), model="x")
    assert quantile(forecast(other, "/a", "m"), 0.5) == pytest.approx(50_000, rel=0.2)
    few = forecast(other + runs(*drawn(random, 3, 5_000), start_s=100), "/a", "m")
    many = forecast(other + runs(*drawn(random, 40, 5_000), start_s=100), "/a", "m")
    assert 5_000 < quantile(few, 0.5) < 50_000
    assert quantile(many, 0.5) == pytest.approx(5_000, rel=0.3)
    assert (few.n, many.n) == (103, 140)


def test_other_commands_lend_their_spread_not_their_level() -> None:
    random = Random(3)
    own = runs(*[1000, 1010, 1020, 1030, 1040])
    wide = forecast(runs(*drawn(random, 100, 10**6, 1.0), command="/b") + own, "/a", "m")
    alone = forecast(own, "/a", "m")
    assert quantile(wide, 0.5) == pytest.approx(1020, rel=0.3)
    assert quantile(alone, 0.9) < 1300 < quantile(wide, 0.9) < 10_000
    assert wide.below[-1] == pytest.approx(1 - 0.5 / 11.5, abs=0.01)  # half a run lies beyond what others lend
    settled = forecast(runs(*drawn(random, 100, 10**6, 1.0), command="/b") + own * 30, "/a", "m")
    assert quantile(settled, 0.9) == pytest.approx(1040, rel=0.1)


@given(st.lists(OBSERVATIONS, max_size=60), st.integers(0, 10**9), st.floats(0.01, 0.99))
def test_any_history_gives_a_distribution(history: list[Sample], used: int, p: float) -> None:
    made = forecast(history, "/a", "m")
    assert made == forecast(history, "/a", "m")
    assert made.n == sum(run.subject == "/a" for run in history)
    if not made.known:
        return
    later = made.given(used)
    for of in (made, later):
        assert list(of.points) == sorted(set(of.points)) and list(of.below) == sorted(of.below) and of.below[-1] < 1
        assert quantile(of, 0.01) <= quantile(of, p) <= quantile(of, 0.99)
        assert (of.chance_under(quantile(of, p)) or 0) >= p - 1e-6
    assert used <= quantile(later, p) and quantile(made, p) <= quantile(later, p)
    assert (later.chance_under(used - 1) or 0) == 0 or used <= made.points[0]
    assert "unknown" not in later.describe()


def test_what_is_used_already_narrows_it() -> None:
    two_kinds = forecast(runs(*[1000, 100_000] * 50), "/a", "m")
    assert two_kinds.p50 in (1000, 100_000)
    assert two_kinds.given(1000) == two_kinds  # it may end right here
    assert two_kinds.given(1001).p50 == 100_000
    beyond = two_kinds.given(400_000)
    assert (beyond.p50 or 0) > 400_000 and beyond.chance_under(399_999) == 0
    assert beyond.chance_under(beyond.p90 or 0) == pytest.approx(0.9, abs=1e-3)


def test_the_chance_that_instances_fit_together() -> None:
    either = Forecast(99, 0, (100, 1000), (0.5, 1 - 1e-12), 0.1)
    unknown = Forecast(2)
    assert chance_that_sum_is_under([], 0) == 1
    assert chance_that_sum_is_under([either] * 2, 199) == 0
    assert chance_that_sum_is_under([either] * 2, 200) == pytest.approx(0.25, abs=0.03)
    assert chance_that_sum_is_under([either] * 2, 1100) == pytest.approx(0.75, abs=0.03)
    assert chance_that_sum_is_under([either] * 2, 2000) == 1
    assert chance_that_sum_is_under([either, unknown], 10**9) is None
    # limits that share an instance are not independent: both hold when it is small, and not a quarter of the times
    assert chance_that_all_fit([either], [(100, [0]), (500, [0])]) == pytest.approx(0.5, abs=0.03)
    assert chance_that_all_fit([either, either, unknown], [(1100, [0, 1]), (100, [0])]) == pytest.approx(0.5, abs=0.03)
    assert chance_that_all_fit([either, unknown], [(1100, [0, 1]), (100, [0])]) is None
    assert chance_that_all_fit([unknown], []) == 1


@pytest.mark.parametrize("generate", [log_normal, bimodal])
def test_nine_of_ten_runs_stay_under_p90(generate: Callable[[Random], list[Sample]]) -> None:
    results = [backtest(generate(Random(seed))) for seed in range(6)]
    assert all((result.n, result.n_unknown) == (400 - LEAST, LEAST) for result in results)
    assert 0.87 <= fmean(result.scores[1].covered for result in results) <= 0.93
    for median, p90, p95 in (result.scores for result in results):
        assert median.covered < p90.covered < p95.covered
        for score in (median, p90, p95):
            assert score.loss_tokens < score.fixed_loss_tokens and score.fixed_covered < 0.05


@pytest.mark.parametrize("n", [5, 6, 8, 12, 19])
def test_few_runs_are_not_covered_too_little(n: int) -> None:
    random, under = Random(n), 0
    for _ in range(1000):
        *known, new = drawn(random, n + 1, 8000, 1.0)
        under += new <= quantile(forecast(runs(*known), "/a", "m"), 0.9)
    assert 0.86 <= under / 1000 <= 0.97


@given(st.lists(OBSERVATIONS, max_size=40))
def test_the_backtest_makes_the_forecasts_that_were_to_be_had(history: list[Sample]) -> None:
    history.sort(key=lambda run: run.at_s)
    known = []
    for index, run in enumerate(history):
        made = forecast(history[:index], run.subject, run.model)
        if made.known and not run.censored:
            known.append((run.tokens, made.p90 or 0))
    result = backtest(history)
    assert result.n == len(known)
    assert result.n + result.n_unknown == sum(not run.censored for run in history)
    if known:
        assert result.scores[1].loss_tokens == pytest.approx(fmean(pinball_loss(0.9, *pair) for pair in known))
        assert result.scores[1].covered == fmean(used <= told for used, told in known)


def test_pinball_loss_and_an_empty_history() -> None:
    assert backtest([]) == Backtest(0, 0, ())
    assert pinball_loss(0.9, 110, 100) == pytest.approx(9)
    assert pinball_loss(0.9, 90, 100) == pytest.approx(1)


def test_of_a_long_history_only_the_newest_runs_count() -> None:
    assert forecast(runs(*drawn(Random(4), 100_000, 8000)), "/a", "m").n == 300
