"""Another program has the ledger locked: nobody waits for it for long, and nothing is lost."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest

from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.ledger_pending import NAME, keep, take_in
from claude_orchestrator.engine.ledger_sync import LedgerSync
from tests.harness import Workplace, content_of
from tests.limits import HUNG_S
from token_budget.budget_manager import TokenBudgetManager
from token_budget.ledger.import_reader import ImportData
from token_budget.ledger.records import AttemptRecord, Limit, RunRecord, UsageRecord
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.models import Action, Amount, Hold, Usage, Weights

RUN, ATTEMPT = RunRecord("20260101-000000-aaaaaa", "here", 1), AttemptRecord("20260101-000000-aaaaaa", "i", 1, 1)
PARCEL = ImportData((RUN,), (ATTEMPT,), (UsageRecord(f"{RUN.run}/i/1/1", RUN.run, "i", 1, 2, "m", Usage(10, 20)),))


def locked(ledger: Path) -> sqlite3.Connection:
    """An open transaction; closing it ends it."""
    SqliteLedger(ledger).close()
    other = sqlite3.connect(ledger, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


def started(place: Workplace, *args: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        place.argv("--ledger", str(place.root / "ledger.db"), *args),
        env={**place.env, **env},
        cwd=place.root,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.slow
def test_a_locked_ledger_does_not_hold_up_the_end(place: Workplace) -> None:
    ledger = place.root / "ledger.db"
    process = started(place, "/test", "--report", str(place.root / "report.json"), FAKE_CLAUDE="hang")
    content_of(place.root / "pids.json", process)
    other = locked(ledger)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)  # it was four minutes
    assert process.returncode == 143 and place.report()["exit_code"] == 143
    (pending,) = place.root.glob(f"out/*/{NAME}")
    assert f"the next run adds the records that it lacks of this one: {pending}" in said
    other.close()
    assert place.run("/test", "--ledger", str(ledger)).returncode == 0
    after = SqliteLedger(ledger)
    (run,) = after.runs(run=pending.parent.name)
    assert run.exit_code == 143 and not pending.exists()
    assert [attempt.outcome for attempt in after.attempts(run=run.run)] == ["cancelled"]
    assert (
        sum(record.usage.total_tokens for record in after.records(run=run.run))
        == (place.report()["totals"]["total_tokens"])
    )
    after.close()


def test_a_start_that_waits_reports_it(place: Workplace) -> None:
    other = locked(place.root / "ledger.db")
    process = started(place, "/test")
    assert process.stderr is not None
    assert any("another program has it locked: waiting" in line for line in process.stderr)
    other.close()
    process.communicate(timeout=HUNG_S)
    assert process.returncode == 0


def test_what_is_taken_in_twice_counts_once(tmp_path: Path) -> None:
    ledger, folder = SqliteLedger(tmp_path / "ledger.db"), tmp_path / "out" / RUN.run
    folder.mkdir(mode=0o700, parents=True)
    for _ in range(2):
        keep(folder, ledger.name, PARCEL)
        keep(folder, ledger.name, PARCEL)  # of another start of that run
        take_in(tmp_path / "out", ledger, pytest.fail)
        assert [record.usage.total_tokens for record in ledger.records()] == [30]
        assert not (folder / NAME).exists()
    ledger.close()


def test_only_what_belongs_to_the_ledger_is_taken_in(tmp_path: Path) -> None:
    ledger, said = SqliteLedger(tmp_path / "ledger.db"), list[str]()
    other, damaged, empty = (tmp_path / "out" / name for name in "abc")
    for folder in (other, damaged, empty):
        folder.mkdir(mode=0o700, parents=True)
    kept = keep(other, str(tmp_path / "other.db"), PARCEL)
    (damaged / NAME).write_text(json.dumps({"ledger": ledger.name}) + '\n{"kind": "ru')
    take_in(tmp_path / "out", ledger, said.append)
    take_in(tmp_path / "nowhere", ledger, pytest.fail)
    assert kept.exists() and (damaged / NAME).exists() and list(ledger.records()) == []
    assert len(said) == 1 and f"{damaged / NAME}: {NAME}: line 1" in said[0]
    ledger.close()


def test_a_request_of_a_run_without_shared_limits_does_not_wait_for_a_locked_ledger(tmp_path: Path) -> None:
    """Its hold is entered once that is possible, and released although it had ended before."""
    path = tmp_path / "ledger.db"
    SqliteLedger(path).close()
    held = Limit(0, 10**9)

    async def main() -> None:
        ledger = SqliteLedger(path)
        sync = LedgerSync(ledger, RUN, TokenBudgetManager(), Weights(), Bus())
        await sync.begin()
        early, late = Hold((), Amount(500)), Hold((), Amount(700))
        other = locked(path)
        for hold in (early, late):
            decision = await sync.admit("i", hold, sent=True)
            assert decision.action is Action.ALLOW
        sync.released(early)
        other.close()
        while ledger.shared((), Weights(), 0).held.tokens != 700:
            await sync.flush()
        sync.released(late)
        await sync.end(0)

    asyncio.run(asyncio.wait_for(main(), HUNG_S))
    assert SqliteLedger(path).shared([held], Weights(), 0).used == [0]
