"""How long the rest of a run will take, from the forecasts of its instances and its pace. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from claude_orchestrator.engine.state import InstanceStatus, State
from token_budget.forecast import Forecast
from token_budget.models import Unit

LEAST_COMPLETED = 3  # without a forecast, so many instances have to show what the others will use


def time_left_s(
    used: Sequence[tuple[InstanceStatus, int]], tokens_per_min: float | None, weight: float
) -> float | None:
    """The seconds until the instances that have not ended have used what they are forecast to use; None if unknown.

    `used` has the tokens of each instance. One without a forecast counts as the mean of those that have completed.
    Forecasts are in weighted tokens; `weight` is the mean of those that the run has used.
    """
    left = [(status, tokens) for status, tokens in used if not status.ended]
    if not tokens_per_min or not weight or not left or any(status.planned.grows for status, _ in left):
        return None
    done = [tokens for status, tokens in used if status.state is State.COMPLETED]
    mean = sum(done) / len(done) if len(done) >= LEAST_COMPLETED else None
    total = 0.0
    medians: dict[int, float | None] = {}  # of those that have not begun, by their common forecast
    for status, tokens in left:
        forecast = status.planned.forecasts.get(Unit.TOKENS)
        if tokens or id(forecast) not in medians:
            more = _more(forecast, tokens, weight, mean)
            medians.setdefault(id(forecast), _more(forecast, 0, weight, mean))
        else:
            more = medians[id(forecast)]
        if more is None:
            return None
        total += more
    return total / tokens_per_min * 60


def _more(forecast: Forecast | None, used: int, weight: float, mean: float | None) -> float | None:
    """How many more tokens an instance will use, not weighted."""
    if forecast is not None and forecast.known:
        return forecast.more(round(used * weight)) / weight
    return None if mean is None else max(0.0, mean - used)
