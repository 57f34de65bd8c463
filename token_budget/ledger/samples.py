"""From the ledger to what forecasts are made of: one observation for each finished instance."""

from __future__ import annotations

from token_budget.forecast import Sample
from token_budget.ledger.records import AttemptRecord
from token_budget.ledger.store import LedgerStore
from token_budget.models import Unit, Usage, Weights

FLAT = Weights()
LATEST = 1_000  # attempts of a command; older ones weigh next to nothing
POOL = 1_000  # of all commands


def samples(
    ledger: LedgerStore,
    base_command: str | None = None,
    *,
    everything: bool = False,
    unit: Unit = Unit.TOKENS,
    weights: Weights = FLAT,
) -> list[Sample]:
    """The latest instances of a base command and, to lean on where those are few, of all; in order of their ends.

    In tokens as `weights` draw them, or in nano-dollars, of those whose cost is known.
    """
    latest = ledger.attempts(latest=-1 if everything else POOL, imported=False)
    if not everything and base_command is not None:
        latest += ledger.attempts(base_command=base_command, latest=LATEST, imported=False)
    attempts = {attempt.key: attempt for attempt in latest}
    instances: dict[tuple[str, str], list[AttemptRecord]] = {}
    for attempt in attempts.values():
        if attempt.ended_ms is not None:
            instances.setdefault((attempt.run, attempt.instance), []).append(attempt)
    found = [_observation(parts, unit, weights) for parts in instances.values()]
    return sorted((one for one in found if one.tokens), key=lambda one: one.at_s)


def _observation(parts: list[AttemptRecord], unit: Unit, weights: Weights) -> Sample:
    last = max(parts, key=lambda attempt: attempt.attempt)
    used = sum((attempt.usage for attempt in parts), Usage())
    return Sample(
        base_command=last.base_command,
        model=last.model or "",
        tokens=sum(attempt.cost_nano_usd or 0 for attempt in parts) if unit is Unit.USD else weights.draw(used),
        at_s=(last.ended_ms or 0) / 1000,
        censored=last.outcome != "completed",
    )
