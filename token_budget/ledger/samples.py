"""Reads from the ledger what forecasts are made of: one sample for each instance that has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from token_budget.forecast import Sample
from token_budget.ledger.records import AttemptRecord
from token_budget.model_weights import TokenWeights, weights_for
from token_budget.models import Unit, Weights

if TYPE_CHECKING:
    from token_budget.ledger.store import LedgerStore
    from token_budget.trials import Trial

FLAT = Weights()
LATEST = 1_000  # attempts of one subject; older ones weigh next to nothing
POOL = 1_000  # attempts of all subjects


def subject_of(base_command: str | None, instance: str) -> str:
    """What an instance's use is a sample of: its base command, or its own plain prompt, which its name stands for.

    The instances of a group, named `GROUP[item]`, have the prompt of the group.
    """
    return base_command or f"prompt {family_of(instance)}"  # no base command has a space


def family_of(instance: str) -> str:
    """The group in the name of an instance such as `fix[a.py]`, else the name itself."""
    group = instance.partition("[")[0]
    return group if group and instance.endswith("]") else instance


class SampleReader:
    """Reads samples from a ledger. It reads the latest attempts of all subjects once, because every forecast uses them.

    Tokens count as `weights` draw them.
    """

    def __init__(self, ledger: LedgerStore, weights: TokenWeights = FLAT) -> None:
        self._ledger = ledger
        self._weights = weights
        self._latest: list[AttemptRecord] | None = None
        self._pools: dict[Unit, list[Sample]] = {}

    def of(self, base_command: str | None, instance: str, unit: Unit = Unit.TOKENS) -> list[Sample]:
        """The latest samples of all other subjects, and then those of one subject, both by their ends.

        In tokens, or in nano-dollars where the cost is known. Raises LedgerError.
        """
        if base_command is not None:
            own = self._ledger.attempts(base_command=base_command, latest=LATEST, imported=False)
        else:
            family = family_of(instance)
            named = self._ledger.attempts(instance=family, latest=LATEST, imported=False)
            named += self._ledger.attempts_of_group(family, latest=LATEST)
            own = [attempt for attempt in named if attempt.base_command is None]
        subject = subject_of(base_command, instance)
        if unit not in self._pools:
            self._pools[unit] = self._samples(self._pool(), unit)
        others = [sample for sample in self._pools[unit] if sample.subject != subject]
        return [*others, *self._samples(own, unit)]

    def trial(self, group: str) -> Trial | None:
        """The latest run of a group's instances, if they were named `GROUP[item]`. Raises LedgerError."""
        attempts = self._ledger.attempts_of_group(group, latest=LATEST)
        instances: dict[tuple[str, str], list[AttemptRecord]] = {}
        for attempt in attempts:
            if attempt.ended_ms is not None:
                instances.setdefault((attempt.run, attempt.instance), []).append(attempt)
        ended = sorted(instances.items(), key=lambda item: max(one.ended_ms or 0 for one in item[1]))
        samples = [(run, _sample(parts, Unit.TOKENS, self._weights)) for (run, _), parts in ended]
        from token_budget.trials import trial_of  # only for a group

        return trial_of([(run, one.tokens, not one.censored) for run, one in samples])

    def all(self) -> list[Sample]:
        """Every sample of the ledger, in tokens, by their ends. Raises LedgerError."""
        return self._samples(self._ledger.attempts(imported=False), Unit.TOKENS)

    def subjects(self) -> list[tuple[str | None, str]]:
        """The base commands, and then the instances with plain prompts, that were in use lately. Raises LedgerError.

        Each has its base command, or None and the instance's name.
        """
        ended = [attempt for attempt in self._pool() if attempt.ended_ms is not None and attempt.usage.total_tokens]
        commands = {attempt.base_command for attempt in ended if attempt.base_command is not None}
        prompts = {family_of(attempt.instance) for attempt in ended if attempt.base_command is None}
        return [*((command, "") for command in sorted(commands)), *((None, name) for name in sorted(prompts))]

    def _pool(self) -> list[AttemptRecord]:
        if self._latest is None:
            self._latest = self._ledger.attempts(latest=POOL, imported=False)
        return self._latest

    def _samples(self, attempts: list[AttemptRecord], unit: Unit) -> list[Sample]:
        instances: dict[tuple[str, str], list[AttemptRecord]] = {}
        for attempt in attempts:
            if attempt.ended_ms is not None:
                instances.setdefault((attempt.run, attempt.instance), []).append(attempt)
        found = [_sample(parts, unit, self._weights) for parts in instances.values()]
        return sorted((one for one in found if one.tokens), key=lambda one: one.at_s)


def _sample(attempts: list[AttemptRecord], unit: Unit, weights: TokenWeights) -> Sample:
    last = max(attempts, key=lambda attempt: attempt.attempt)
    if unit is Unit.USD:
        used = sum(attempt.cost_nano_usd or 0 for attempt in attempts)
    else:  # the ledger's attempts name their main model alone
        used = sum(weights_for(weights, attempt.model).draw(attempt.usage) for attempt in attempts)
    return Sample(
        subject=subject_of(last.base_command, last.instance),
        model=last.model or "",
        tokens=used,
        at_s=(last.ended_ms or 0) / 1000,
        censored=last.outcome != "completed",
    )
