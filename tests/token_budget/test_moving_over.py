"""A copy of a ledger: interrupted and repeated, onto a ledger with runs of its own, and what its sums find."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from token_budget.ledger import moving_over
from token_budget.ledger.errors import LedgerError
from token_budget.ledger.moving_over import Moved, copy
from token_budget.ledger.records import (
    AccountLimit,
    AttemptRecord,
    HoldRequest,
    Limit,
    NoteRecord,
    RunRecord,
    UsageRecord,
)
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.models import Amount, Unit, Usage, Weights
from token_budget.windows import Window

DAILY = AccountLimit(Window.DAILY, Unit.TOKENS, 5)


class Interrupted(SqliteLedger):
    """A ledger that takes only so many records."""

    room = 2

    def write(self, **what: Any) -> int:
        if what.get("records"):
            self.room -= 1
            if self.room < 0:
                raise LedgerError("interrupted")
        return super().write(**what)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[SqliteLedger]:
    ledger = SqliteLedger(tmp_path / "source.db")
    ledger.write(
        runs=[RunRecord("r", "m", 1, account="team")],
        attempts=[AttemptRecord("r", "a", 1, 1, command="/test x")],
        records=[UsageRecord(f"r/a/1/{n}", "r", "a", 1, n, "m", Usage(n), n, "claude") for n in range(5)],
        notes=[NoteRecord("n", "r", 1, "adjust", "why")],
    )
    ledger.set_limits("team", [DAILY], zone="Asia/Tokyo")
    ledger.set_limits("other", [DAILY])
    ledger.claim_alerts(["sent"], "r", 1)
    ledger.reserve(HoldRequest("r", "a", Amount(9), 10**12, Weights(), enforce=False), [Limit(0, 1)], 1)
    yield ledger
    ledger.close()


def test_a_copy_that_was_interrupted_is_repeated(
    source: SqliteLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving_over, "CHUNK", 1)
    target = Interrupted(tmp_path / "target.db")
    target.write(runs=[RunRecord("own", "m", 1)], attempts=[AttemptRecord("own", "a", 1, 1)])
    target.set_limits("other", [DAILY._replace(limit=7)])
    with pytest.raises(LedgerError, match="interrupted"):
        copy(source, target)
    target.room = 99
    assert copy(source, target) == Moved(0, 0, 3, 1, ())
    assert copy(source, target) == Moved(0, 0, 0, 0, ())
    assert [record.usage for record in target.records(run="r")] == [Usage(n) for n in range(5)]
    assert target.runs(run="r") == source.runs() and target.attempts(run="r") == source.attempts()
    assert target.notes() == source.notes() and target.alerts_sent() == {"sent"}
    assert target.accounts("team") == source.accounts("team") and target.accounts("other")[0].limits[0].limit == 7
    assert target.shared((), Weights(), 1).held == Amount()
    target.close()


def test_a_run_that_continues_gets_its_end(source: SqliteLedger, tmp_path: Path) -> None:
    target = SqliteLedger(tmp_path / "target.db")
    assert copy(source, target) == Moved(1, 1, 5, 2, ())
    source.write(
        runs=[RunRecord("r", "m", 1, ended_ms=9, exit_code=0)],
        attempts=[AttemptRecord("r", "a", 1, 1, ended_ms=9, outcome="completed")],
        records=[UsageRecord("r/a/1/9", "r", "a", 1, 8, "m", Usage(9))],
    )
    assert copy(source, target) == Moved(0, 0, 1, 0, ())
    assert target.runs() == source.runs() and target.attempts() == source.attempts()
    target.write(records=[UsageRecord("of nobody", "r", "a", 1, 8, "m", Usage(1))])
    assert copy(source, target).differing_runs == ("r",)
    target.close()
