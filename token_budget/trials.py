"""What many instances will use together, from a trial of a few. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from token_budget.named_tuples import NamedTuple
from token_budget.text import format_tokens

LEAST = 5  # instances that a trial needs


class Trial(NamedTuple):
    """The tokens that each instance of a trial used, all of which completed."""

    tokens: tuple[int, ...]

    @property
    def known(self) -> bool:
        """Whether the trial is large enough to scale it."""
        return len(self.tokens) >= LEAST

    def scaled(self, count: int, p: float = 0.5) -> int:
        """The tokens that `count` such instances stay under with chance `p`.

        The mean of a small trial is uncertain itself, and counts as much as the spread between instances does.
        """
        from statistics import NormalDist, fmean, stdev

        mean, n = fmean(self.tokens), len(self.tokens)
        spread = stdev(self.tokens) * sqrt(count + count * count / n)
        return round(count * mean + NormalDist().inv_cdf(p) * spread)

    def describe(self, count: int) -> str:
        """`a trial of 20 cost 310K tokens; 10,000 would need about 155M, 90 % under 171M`."""
        cost = f"a trial of {len(self.tokens):,} cost {_short(sum(self.tokens))} tokens"
        if not self.known:
            return f"{cost}; a forecast needs {LEAST} that completed"
        about, under = _short(self.scaled(count)), _short(self.scaled(count, 0.9))
        return f"{cost}; {count:,} would need about {about}, 90 % under {under}"


def trial_of(runs: Sequence[tuple[str, int, bool]]) -> Trial | None:
    """The latest trial among instances in the order of their ends, each with its run, tokens and whether it completed.

    A run in which nothing completed is no trial.
    """
    completed = [(run, tokens) for run, tokens, done in runs if done and tokens]
    return Trial(tuple(tokens for run, tokens in completed if run == completed[-1][0])) if completed else None


def _short(tokens: int) -> str:
    """Three digits: more would promise too much."""
    return format_tokens(int(float(f"{tokens:.2e}"))).replace(".0", "")
