"""From the ledger to what forecasts are made of: one observation for each finished instance."""

from __future__ import annotations

from token_budget.entries import IMPORTED, Attempt
from token_budget.forecast import Observation
from token_budget.ledger import Ledger

LATEST = 1_000  # attempts of a command; older ones weigh next to nothing
POOL = 1_000  # of all commands


def observations(
    ledger: Ledger, base_command: str | None = None, *, everything: bool = False, money: bool = False
) -> list[Observation]:
    """The latest instances of a base command and, to lean on where those are few, of all; in order of their ends.

    With `money` in nano-dollars, of those whose cost is known.
    """
    attempts = {attempt.key: attempt for attempt in ledger.attempts(latest=-1 if everything else POOL)}
    if not everything and base_command is not None:
        attempts.update((attempt.key, attempt) for attempt in ledger.attempts(base_command=base_command, latest=LATEST))
    instances: dict[tuple[str, str], list[Attempt]] = {}
    for attempt in attempts.values():
        if attempt.ended_ms is not None and attempt.outcome != IMPORTED:
            instances.setdefault((attempt.run, attempt.instance), []).append(attempt)
    found = [_observation(parts, money) for parts in instances.values()]
    return sorted((one for one in found if one.tokens), key=lambda one: one.at_s)


def _observation(parts: list[Attempt], money: bool) -> Observation:
    last = max(parts, key=lambda attempt: attempt.attempt)
    return Observation(
        base_command=last.base_command,
        model=last.model or "",
        tokens=sum((one.cost_nano or 0) if money else one.usage.total_tokens for one in parts),
        at_s=(last.ended_ms or 0) / 1000,
        censored=last.outcome != "completed",
    )
