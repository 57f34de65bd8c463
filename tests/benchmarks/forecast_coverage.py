"""How often generated runs stay under their forecast P90, and the pinball loss, beside the fixed estimate of 1,000.

    python -m tests.benchmarks.forecast_coverage [SEEDS, 20]

Each history is backtested from its first run on. `log_normal` (median 8,000, sigma 1) and `bimodal` (5,000, three of
ten runs 200,000) are 400 runs of one command that does not change; of `short` there are 30; `many` are 200 runs of 12
commands with levels of 1,000 to 1,000,000; in `step` the level rises to 2.5 times its value half-way.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from math import exp
from random import Random
from statistics import fmean

from token_budget.forecast import Sample, backtest


def history(tokens: list[float], commands: list[str] | None = None) -> list[Sample]:
    """Runs of one model, a second apart."""
    names = commands or ["/test"] * len(tokens)
    return [Sample(name, "m", round(used), at_s) for at_s, (name, used) in enumerate(zip(names, tokens, strict=True))]


def log_normal(random: Random, runs: int = 400) -> list[Sample]:
    return history([8000 * exp(random.gauss(0, 1)) for _ in range(runs)])


def bimodal(random: Random, runs: int = 400, share: float = 0.3) -> list[Sample]:
    levels = (5000, 200_000)
    return history([levels[random.random() < share] * exp(random.gauss(0, 0.3)) for _ in range(runs)])


def short(random: Random) -> list[Sample]:
    return log_normal(random, 30)


def many(random: Random) -> list[Sample]:
    kinds = {f"/c{number}": (10 ** random.uniform(3, 6), random.uniform(0.3, 1.2)) for number in range(12)}
    names = random.choices(list(kinds), k=200)
    return history([kinds[name][0] * exp(random.gauss(0, kinds[name][1])) for name in names], names)


def step(random: Random) -> list[Sample]:
    return history([(8000 if run < 200 else 20_000) * exp(random.gauss(0, 0.7)) for run in range(400)])


HISTORIES: tuple[Callable[[Random], list[Sample]], ...] = (log_normal, bimodal, short, many, step)


def main() -> None:
    """Print one JSON line: means over the seeds."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    rows = {}
    for generate in HISTORIES:
        p90 = [backtest(generate(Random(seed))).scores[1] for seed in range(seeds)]
        rows[generate.__name__] = {
            "p90_coverage": round(fmean(score.covered for score in p90), 3),
            "fixed_coverage": round(fmean(score.fixed_covered for score in p90), 3),
            "p90_loss_tokens": round(fmean(score.loss_tokens for score in p90)),
            "fixed_loss_tokens": round(fmean(score.fixed_loss_tokens for score in p90)),
        }
    print(json.dumps({"benchmark": "forecast_coverage", "seeds": seeds, **rows}))


if __name__ == "__main__":
    main()
