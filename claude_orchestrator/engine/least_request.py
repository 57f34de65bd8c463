"""Warns of limits in tokens that are below what one request of Claude needs. No instance can work within such a
limit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from claude_orchestrator.claude.argv import model_of
from claude_orchestrator.config.launch_spec import LaunchSpec
from token_budget.budget_manager import TokenBudgetManager
from token_budget.ledger.records import AttemptRecord
from token_budget.ledger.samples import family_of, subject_of
from token_budget.ledger.store import LedgerStore
from token_budget.model_weights import TokenWeights, weights_for
from token_budget.models import Budget, Scope, Unit, Usage
from token_budget.named_tuples import NamedTuple

SMALL = 200_000  # a limit with room for a whole context window is not looked at
KNOWN_TOKENS = 12_000  # of the first request without any words of the user, by 2.1.197 and 2.1.332
ATTEMPTS = 5  # the latest ones of a command: what the least of their first requests needed is certain


class FirstRequest(NamedTuple):
    """What the first request of an instance draws from a budget; `measured`: by the ledger, for the same work."""

    tokens: int
    measured: bool


def too_small(
    specs: Sequence[LaunchSpec], manager: TokenBudgetManager, ledger: LedgerStore | None, weights: TokenWeights
) -> Iterator[str]:
    """A warning for each budget that blocks and is smaller than the first request of an instance that draws on it.

    Reads the ledger for such small budgets only. Raises LedgerError.
    """
    if manager.enforcement_mode != "block":
        return
    known: dict[str, FirstRequest] = {}
    said: set[Budget | tuple[str, int]] = set()
    for spec in specs:
        subject = subject_of(spec.base_command, spec.name)
        for budget in manager.budgets_for(spec.base_command, spec.name):
            # the instances of a group have the same work, and each its own budget
            what = (subject, budget.limit) if budget.scope is Scope.INSTANCE else budget
            if budget.unit is not Unit.TOKENS or budget.limit >= SMALL or what in said:
                continue
            said.add(what)
            if subject not in known:
                known[subject] = _first_request(spec, ledger, weights)
            if budget.limit < known[subject].tokens:
                yield _warning(spec, budget, known[subject])


def _warning(spec: LaunchSpec, budget: Budget, first: FirstRequest) -> str:
    needs = f"the first request of {spec.base_command or spec.group or spec.name} last drew {first.tokens:,} tokens"
    if not first.measured:
        needs = f"Claude's first request alone draws about {first.tokens:,} tokens"
    what = f"the {budget.label} budget of {budget.limit:,} tokens is too small"
    return f"{what}: {needs}, so block mode stops the instance"


def _first_request(spec: LaunchSpec, ledger: LedgerStore | None, weights: TokenWeights) -> FirstRequest:
    found = [] if ledger is None else list(_drawn(_latest(spec, ledger), ledger, weights))
    if found:
        return FirstRequest(min(found), measured=True)
    return FirstRequest(
        weights_for(weights, model_of(spec.argv)).draw(Usage(cache_read_input_tokens=KNOWN_TOKENS)), measured=False
    )


def _latest(spec: LaunchSpec, ledger: LedgerStore) -> list[AttemptRecord]:
    if spec.base_command is not None:
        return ledger.attempts(base_command=spec.base_command, latest=ATTEMPTS, imported=False)
    family = family_of(spec.name)
    return ledger.attempts(instance=family, latest=ATTEMPTS, imported=False) or ledger.attempts_of_group(
        family, latest=ATTEMPTS
    )


def _drawn(attempts: list[AttemptRecord], ledger: LedgerStore, weights: TokenWeights) -> Iterator[int]:
    """What the first record of each of these attempts drew: the ledger records at least each second."""
    wanted = {attempt.key for attempt in attempts if attempt.usage.total_tokens}
    for run in {run for run, _, _ in wanted}:
        left = {key for key in wanted if key[0] == run}
        for record in ledger.records(run=run):
            key = record.run, record.instance, record.attempt
            if key in left:
                left.remove(key)
                yield weights_for(weights, record.model).draw(record.usage)
            if not left:
                break
