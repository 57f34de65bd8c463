"""Copies a ledger into another one, such as a file into a server's database, and compares the sums of both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from token_budget.ledger.records import UsageSum
from token_budget.ledger.store import LedgerStore
from token_budget.named_tuples import NamedTuple

_T = TypeVar("_T")
CHUNK = 20_000  # records or notes in one transaction
MOVED = "moved"  # the run in whose name alerts are claimed that an earlier ledger has sent


class Moved(NamedTuple):
    """What a copy added, and the runs whose sums differ afterwards."""

    runs: int
    attempts: int
    records: int
    accounts: int
    differing_runs: tuple[str, ...]


def copy(source: LedgerStore, target: LedgerStore) -> Moved:
    """Add to a ledger what another has and it lacks: runs, attempts, records, notes, alerts and limits of accounts.

    What it has already stays, so a copy that was interrupted can be repeated. Holds are not copied: they belong to
    runs that are in progress, and those write to the ledger that they began with. Raises LedgerError.
    """
    known_runs = {run.run for run in target.runs()}
    known = {attempt.key: attempt for attempt in target.attempts()}
    runs = source.runs()
    attempts = source.attempts()
    later = [one for one in attempts if one.key not in known or known[one.key].outcome is None]
    target.write(runs=runs, attempts=later)
    records = sum(target.write(records=chunk) for chunk in _chunks(source.records()))
    for chunk in _chunks(source.notes()):
        target.write(notes=chunk)
    target.claim_alerts(source.alerts_sent(), MOVED, 0)
    known_accounts = {account.account for account in target.accounts()}
    accounts = [account for account in source.accounts() if account.account not in known_accounts]
    for account in accounts:
        target.set_limits(account.account, account.limits, zone=account.zone)
    return Moved(
        len({run.run for run in runs} - known_runs),
        len({attempt.key for attempt in attempts} - known.keys()),
        records,
        len(accounts),
        _differing(source, target),
    )


def _chunks(rows: Iterable[_T]) -> Iterator[list[_T]]:
    left = iter(rows)
    while chunk := [*islice(left, CHUNK)]:
        yield chunk


def _differing(source: LedgerStore, target: LedgerStore) -> tuple[str, ...]:
    """The source's runs of which the target has other sums, by instance and model."""
    ours, theirs = _sums(source), _sums(target)
    return tuple(sorted(run for run, sums in ours.items() if theirs.get(run) != sums))


def _sums(ledger: LedgerStore) -> dict[str, list[tuple[object, ...]]]:
    found: dict[str, list[tuple[object, ...]]] = {}
    for one in ledger.sums("run", "instance", "model"):
        found.setdefault(str(one.group), []).append(_figures(one))
    return found


def _figures(one: UsageSum) -> tuple[object, ...]:
    return (*one.groups[1:], one.usage, one.cost_nano_usd, one.unpriced_tokens)
