"""Which holds the ledger has, and what of that is to be written."""

from __future__ import annotations

from claude_orchestrator.engine.ledger_holds import LedgerHolds
from token_budget.models import Amount, Hold

TEN, SIX = Amount(10), Amount(6)


def reserved(holds: LedgerHolds, key: int) -> Hold:
    hold = Hold((), TEN)
    holds.reserve(hold)
    holds.answered(hold, key, TEN)
    return hold


def test_a_hold_that_is_spent_is_written_and_then_known() -> None:
    holds = LedgerHolds()
    assert not holds
    hold = reserved(holds, 7)
    assert holds
    assert holds.key(hold) == 7
    assert not holds.differ(holds.changes())
    hold.remaining = SIX
    changes = holds.changes()
    assert (changes.left, changes.ended) == ({hold: SIX}, {})
    assert holds.differ(changes)
    holds.written(changes)
    assert not holds.differ(holds.changes())


def test_a_hold_that_has_ended_is_given_back_once() -> None:
    holds = LedgerHolds()
    stays, ends = reserved(holds, 1), reserved(holds, 2)
    holds.released(ends)
    changes = holds.changes()
    assert (changes.left, changes.ended) == ({stays: TEN, ends: Amount()}, {ends: 2})
    holds.written(changes)
    assert holds.changes() == ({stays: TEN}, {})
    holds.released(ends)  # a second time
    assert holds.changes() == ({stays: TEN}, {})


def test_a_hold_that_ends_before_the_ledger_answers_is_given_back_afterwards() -> None:
    holds = LedgerHolds()
    hold = Hold((), TEN)
    holds.reserve(hold)
    holds.released(hold)
    assert holds.changes() == ({}, {})
    holds.answered(hold, 3, TEN)
    assert holds.changes() == ({hold: Amount()}, {hold: 3})


def test_a_hold_that_the_ledger_refuses_leaves_nothing() -> None:
    holds = LedgerHolds()
    hold = Hold((), TEN)
    holds.reserve(hold)
    holds.released(hold)
    holds.answered(hold, None, TEN)
    holds.released(hold)
    assert not holds
    assert holds.changes() == ({}, {})


def test_what_changes_during_a_write_is_written_by_the_next() -> None:
    holds = LedgerHolds()
    hold = reserved(holds, 1)
    changes = holds.changes()
    later = reserved(holds, 2)
    holds.released(hold)
    holds.written(changes)
    assert holds.changes() == ({hold: Amount(), later: TEN}, {hold: 1})
