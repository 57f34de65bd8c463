"""How many tokens a command will use, from what its earlier runs used. Pure: the same runs, the same answer."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from itertools import islice
from math import ceil, exp, log, sqrt
from operator import attrgetter

from token_budget.models import Unit
from token_budget.named_tuples import NamedTuple
from token_budget.text import format_tokens, format_usd

LEAST = 5  # complete runs that a forecast needs
KEPT = 300  # latest runs of the command
RECENT = 300  # latest runs of all commands
HALF_LIFE_RUNS = 50
SHRINK_RUNS = 6.0
SPREAD = (0.1, 1.0)  # bounds of the tail's spread, so that neither equal nor wildly mixed runs make it absurd
SCORED = (0.5, 0.9, 0.95)
FIXED_TOKENS = 1000  # the estimate where there is no forecast
MANY = 100  # instances whose sum is normally distributed
_EPSILON = 1e-9

_Point = tuple[float, float, bool]  # tokens, weight, censored


class Sample(NamedTuple):
    """What one instance used. `censored`: it was stopped early, so it would have used at least `tokens`.

    `subject` is what forecasts are for: a base command, or one instance's plain prompt. `at_s` is when it ended
    (seconds since 1970). For a forecast in money `tokens` are nano-dollars.
    """

    subject: str
    model: str
    tokens: int
    at_s: float
    censored: bool = False


class Forecast(NamedTuple):
    """The distribution of the tokens that a run will use; without `points` it is unknown.

    `below[i]` is the chance of at most `points[i]` tokens. What is missing to 1 lies beyond the last point, and falls
    there as a power of the tokens: their logarithm's mean excess is `spread`. `n` counts the command's runs that it
    is made from, `n_censored` those of them that were stopped early.
    """

    n: int
    n_censored: int = 0
    points: tuple[int, ...] = ()
    below: tuple[float, ...] = ()
    spread: float = 0.0

    @property
    def known(self) -> bool:
        """Whether there were enough runs for a forecast."""
        return bool(self.points)

    @property
    def p50(self) -> int | None:
        """The tokens that half of the runs stay under, or None."""
        return self.quantile(0.5)

    @property
    def p90(self) -> int | None:
        """The tokens that nine of ten runs stay under, or None."""
        return self.quantile(0.9)

    def quantile(self, p: float) -> int | None:
        """The tokens that a run stays at or under with chance `p` (above 0, below 1); None when unknown."""
        if not 0 < p < 1:
            raise ValueError(f"p of a quantile must be above 0 and below 1, got {p}")
        if not self.points:
            return None
        index = bisect_left(self.below, p - _EPSILON)
        if index < len(self.points):
            return self.points[index]
        factor: float = ((1 - self.below[-1]) / (1 - p)) ** self.spread
        return ceil(max(1, self.points[-1]) * factor)

    def chance_under(self, tokens: int) -> float | None:
        """The chance that the run uses at most `tokens`; None when unknown."""
        if not self.points:
            return None
        index = bisect_right(self.points, tokens)
        if index == 0:
            return 0.0
        if index < len(self.points) or tokens <= 0:
            return self.below[index - 1]
        share: float = (max(1, self.points[-1]) / tokens) ** (1 / self.spread)
        return 1 - (1 - self.below[-1]) * share

    def given(self, used_tokens: int) -> Forecast:
        """The forecast of the run's total use, given that it has used `used_tokens` and continues."""
        index = bisect_left(self.points, used_tokens)
        if index == 0:
            return self
        if index == len(self.points):
            return Forecast(self.n, self.n_censored, (used_tokens,), (0.0,), self.spread)
        gone = self.below[index - 1]
        below = tuple((value - gone) / (1 - gone) for value in self.below[index:])
        return Forecast(self.n, self.n_censored, self.points[index:], below, self.spread)

    def more(self, used_tokens: int) -> int:
        """What half of the runs that have used `used_tokens` still use at most; 0 when unknown."""
        return max(0, (self.given(used_tokens).p50 or 0) - used_tokens)

    def describe(self, unit: Unit = Unit.TOKENS) -> str:
        """The forecast in words: `about 41K, 90 % under 88K, n=23`, or `unknown (n=2)`."""
        if self.p50 is None or self.p90 is None:
            stopped = f", {self.n_censored} of them stopped early" if self.n >= LEAST else ""
            return f"unknown (n={self.n}{stopped})"
        return f"about {_about(self.p50, unit)}, 90 % under {_about(self.p90, unit)}, n={self.n}"


def _about(quantity: int, unit: Unit) -> str:
    """Two digits are as much as a forecast can promise."""
    rough = int(float(f"{quantity:.1e}"))
    return format_usd(rough) if unit is Unit.USD else format_tokens(rough).replace(".0", "")


def forecast(samples: Iterable[Sample], subject: str, model: str, now_s: float = float("inf")) -> Forecast:
    """What a run of `subject` with `model` will use, from the runs that had ended by `now_s`.

    The latest 300 runs of the command count; a run's weight halves with every 50 runs of the command after it. In
    runs, not days: a command that is run once a week would have forgotten nearly everything after a month.
    Runs of other models weigh k/(n+k), n being the runs of this model and k = 6, and are moved n/(n+k) of the way to
    this model's level. Other commands lend their spread about their own level, weighing k runs in all: so a command
    with few runs gets the spread that runs have in general, but not the level of others.
    A run that was ended before its end counts as Kaplan-Meier has it. The run to come is one more, beyond all others:
    a quantile is the (n+1)p-th value, else few runs would promise too much.
    Fewer than five runs to the end give an unknown forecast.
    """
    ended = [run for run in samples if run.at_s <= now_s]
    mine = [run for run in ended if run.subject == subject]
    return _forecast(_latest(mine, KEPT), _latest(ended, RECENT), subject, model)


def _latest(runs: list[Sample], count: int) -> list[Sample]:
    """The latest `count` runs, oldest first. Of runs that ended at the same time, the last in the list win."""
    # times alone are sorted far quicker than runs are
    since_s = sorted([run.at_s for run in runs])[-count] if len(runs) > count else float("-inf")
    return sorted([run for run in runs if run.at_s >= since_s], key=attrgetter("at_s"))[-count:]


def _forecast(mine: Sequence[Sample], recent: Iterable[Sample], subject: str, model: str) -> Forecast:
    """The forecast from the command's runs and the latest of all commands, both oldest first."""
    n_censored = sum(run.censored for run in mine)
    if len(mine) - n_censored < LEAST:
        return Forecast(len(mine), n_censored)
    weighed = [(run, 0.5 ** (age / HALF_LIFE_RUNS)) for age, run in enumerate(reversed(mine))]
    sample = _of_command(weighed, model)
    lent = _lent([run for run in recent if run.subject != subject], _level(sample))
    # other commands' runs cover part of the range beyond the last point: by backtest, subtracting half is right
    beyond = 1 - sum(weight for _, weight, _ in lent) / SHRINK_RUNS / 2
    points, below = _curve(sample + lent, beyond)
    return Forecast(len(mine), n_censored, points, below, _spread(points, below))


def _of_command(weighed: list[tuple[Sample, float]], model: str) -> list[_Point]:
    """The command's own runs as points; those of other models moved towards this model's level."""
    same = [(float(run.tokens), weight, run.censored) for run, weight in weighed if run.model == model]
    n = sum(weight for _, weight, censored in same if not censored)
    share = SHRINK_RUNS / (n + SHRINK_RUNS)
    other = [(float(run.tokens), weight * share, run.censored) for run, weight in weighed if run.model != model]
    if n and any(not censored for *_, censored in other):
        other = _moved(other, (1 - share) * (_level(same) - _level(other)), 1.0)
    return same + other


def _lent(others: Iterable[Sample], level: float) -> list[_Point]:
    """The runs of other commands, each command and model moved to `level`, weighing `SHRINK_RUNS` runs in all."""
    groups: dict[tuple[str, str], list[_Point]] = {}
    for run in others:
        groups.setdefault((run.subject, run.model), []).append((float(run.tokens), 1.0, run.censored))
    # a small group shows little of its spread: a single run would be its own level
    usable = [group for group in groups.values() if sum(not censored for *_, censored in group) >= LEAST]
    weight = SHRINK_RUNS / max(SHRINK_RUNS, sum(map(len, usable)))
    return [point for group in usable for point in _moved(group, level - _level(group), weight)]


def _moved(sample: list[_Point], by: float, weight: float) -> list[_Point]:
    """The points with their tokens multiplied by e^`by`, each weight by `weight`."""
    factor = exp(by)
    return [(tokens * factor, old * weight, censored) for tokens, old, censored in sample]


def _level(sample: list[_Point]) -> float:
    """The mean logarithm of what the complete runs used."""
    complete = [(log(max(1.0, tokens)), weight) for tokens, weight, censored in sample if not censored]
    return sum(value * weight for value, weight in complete) / sum(weight for _, weight in complete)


def _curve(sample: list[_Point], beyond: float) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Points, and the chance of at most that many tokens: weighted Kaplan-Meier with `beyond` runs above all points."""
    at_risk = beyond + sum(weight for _, weight, _ in sample)
    surviving, top = 1.0, 0
    curve: dict[int, float] = {}
    # of equal runs, those that were stopped early come last: they would have used more
    for tokens, weight, censored in sorted(sample, key=lambda point: (ceil(point[0]), point[2])):
        top = ceil(tokens)
        if not censored:
            surviving *= 1 - weight / at_risk
            curve[top] = 1 - surviving
        at_risk -= weight
    curve[top] = 1 - surviving
    return tuple(curve), tuple(curve.values())


def _spread(points: Sequence[int], below: Sequence[float]) -> float:
    """The mean excess of the logarithm of tokens over its median; what lies beyond the last point is censored there."""
    middle = min(bisect_left(below, 0.5), len(points) - 1)
    median, before, excess = log(max(1, points[middle])), below[middle], 0.0
    for tokens, share in islice(zip(points, below, strict=True), middle + 1, None):
        excess += (share - before) * (log(tokens) - median)
        before = share
    excess += (1 - before) * (log(max(1, points[-1])) - median)
    return min(SPREAD[1], max(SPREAD[0], excess / max(before - below[middle], _EPSILON)))


def chance_that_all_fit(
    forecasts: Sequence[Forecast], limits: Sequence[tuple[int, Sequence[int]]], *, samples: int = 2000
) -> float | None:
    """The chance that every limit holds, each being tokens and the indexes of the forecasts that draw on it.

    The instances count as independent. Random draws with a fixed seed give the result, within 0.02 for 2,000 samples.
    None if a forecast that a limit needs is unknown.
    """
    needed = sorted({index for _, indexes in limits for index in indexes})
    if not all(forecasts[index].known for index in needed):
        return None
    from random import Random  # no start of the program needs it

    random, fits = Random(0), 0
    for _ in range(samples):
        drawn = {index: forecasts[index].quantile(random.random() or 0.5) or 0 for index in needed}
        fits += all(sum(drawn[index] for index in indexes) <= tokens for tokens, indexes in limits)
    return fits / samples


def chance_that_sum_is_under(forecasts: Sequence[Forecast], limit_tokens: int, *, samples: int = 2000) -> float | None:
    """The chance that independent instances use at most `limit_tokens` together; None when a forecast is unknown.

    The sum of many is normally distributed, so that each different forecast is sampled only once.
    """
    if len(forecasts) > MANY:
        return _chance_of_many(forecasts, limit_tokens, samples)
    return chance_that_all_fit(forecasts, [(limit_tokens, range(len(forecasts)))], samples=samples)


def _chance_of_many(forecasts: Sequence[Forecast], limit_tokens: int, samples: int) -> float | None:
    from statistics import NormalDist, fmean, pvariance

    counts = Counter(map(id, forecasts))
    mean = variance = 0.0
    from random import Random

    random = Random(0)
    for one in {id(one): one for one in forecasts}.values():
        if not one.known:
            return None
        drawn = [one.quantile(random.random() or 0.5) or 0 for _ in range(samples)]
        mean += counts[id(one)] * fmean(drawn)
        variance += counts[id(one)] * pvariance(drawn)
    return NormalDist(mean, max(1.0, sqrt(variance))).cdf(limit_tokens)


class Score(NamedTuple):
    """The score of one quantile: the share of runs at or under it and its mean pinball loss, and those of the fixed
    estimate."""

    p: float
    covered: float
    loss_tokens: float
    fixed_covered: float
    fixed_loss_tokens: float


class Backtest(NamedTuple):
    """How good the forecasts would have been: `n` runs scored, `n_unknown` without a forecast; no scores at n=0."""

    n: int
    n_unknown: int
    scores: tuple[Score, ...]


def backtest(samples: Iterable[Sample]) -> Backtest:
    """Forecast each run from those before it, in order of time, and score the forecasts.

    Runs that were stopped early are used for forecasts, but not scored: their full use is unknown.
    """
    mine: dict[str, deque[Sample]] = {}
    recent: deque[Sample] = deque(maxlen=RECENT)
    scored: list[tuple[int, tuple[int, ...]]] = []
    n_unknown = 0
    for run in sorted(samples, key=attrgetter("at_s")):
        before = mine.setdefault(run.subject, deque(maxlen=KEPT))
        if not run.censored:
            made = _forecast(before, recent, run.subject, run.model)
            if made.known:
                scored.append((run.tokens, tuple(made.quantile(p) or 0 for p in SCORED)))
            else:
                n_unknown += 1
        before.append(run)
        recent.append(run)
    scores = [_score(p, [(used, of[index]) for used, of in scored]) for index, p in enumerate(SCORED) if scored]
    return Backtest(len(scored), n_unknown, tuple(scores))


def _score(p: float, scored: Sequence[tuple[int, int]]) -> Score:
    n = len(scored)
    return Score(
        p,
        sum(used <= quantile for used, quantile in scored) / n,
        sum(pinball_loss(p, used, quantile) for used, quantile in scored) / n,
        sum(used <= FIXED_TOKENS for used, _ in scored) / n,
        sum(pinball_loss(p, used, FIXED_TOKENS) for used, _ in scored) / n,
    )


def pinball_loss(p: float, used_tokens: int, quantile_tokens: int) -> float:
    """The loss of forecasting `quantile_tokens` as the `p` quantile: p per token too few, 1-p per token too many."""
    difference = used_tokens - quantile_tokens
    return p * difference if difference >= 0 else (p - 1) * difference
