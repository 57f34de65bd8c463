"""The ledger: what goes in comes out, once; many processes agree; damage is refused."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from tests.harness import ROOT
from token_budget.ledger.records import (
    AttemptRecord,
    HoldRequest,
    HoldState,
    Limit,
    NoteRecord,
    Reservation,
    RunRecord,
    UsageRecord,
)
from token_budget.ledger.schema import APPLICATION_ID
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.ledger.store import LedgerError
from token_budget.model_weights import ModelWeights
from token_budget.models import Action, Amount, Unit, Usage, Weights
from token_budget.windows import Window, end_of, name_of, start_of

FLAT = Weights()


@pytest.fixture
def ledger(tmp_path: Path) -> SqliteLedger:
    return SqliteLedger(tmp_path / "folder" / "ledger.db")


def fill(ledger: SqliteLedger) -> None:
    ledger.write(
        runs=[RunRecord("r1", "m", 1000)],
        attempts=[
            AttemptRecord("r1", "a", 1, 1000, base_command="/test"),
            AttemptRecord("r1", "b", 1, 1000, base_command="/doc"),
        ],
        records=[
            UsageRecord("r1/a/1/1", "r1", "a", 1, 1000, "opus", Usage(1, 2, 3, 4), 500, "claude"),
            UsageRecord("r1/a/1/2", "r1", "a", 1, 2_000_000, "haiku", Usage(10, 20, 30, 40)),
            UsageRecord("r1/b/1/1", "r1", "b", 1, 3_000_000, "opus", Usage(100), 7, "claude"),
        ],
    )


def test_what_goes_in_comes_out_once(ledger: SqliteLedger) -> None:
    fill(ledger)
    fill(ledger)
    assert [record.usage.total_tokens for record in ledger.records()] == [10, 100, 100]
    first, second = ledger.attempts(run="r1")
    assert first.usage == Usage(11, 22, 33, 44) and first.cost_nano_usd == 500 and second.usage == Usage(100)
    assert ledger.totals("r1")["a", 1, "opus"] == (Usage(1, 2, 3, 4), 500, 1)
    assert {row.group: row.usage.total_tokens for row in ledger.sums("command")} == {"/test": 110, "/doc": 100}
    assert {row.group: row.cost_nano_usd for row in ledger.sums("model")} == {"opus": 507, "haiku": None}
    assert [row.start_ms for row in ledger.sums(by_time=True)] == [0, 1_800_000, 2_700_000]
    assert ledger.sums(since_ms=1500, until_ms=2_500_000)[0].usage == Usage(10, 20, 30, 40)
    assert ledger.used([Limit(0, 1), Limit(2_500_000, 1), Limit(0, 1, Unit.USD)], FLAT, 0) == [210, 100, 507]
    assert ledger.used([Limit(0, 1)], Weights.parse("output=5"), 0) == [210 + 4 * 22]
    by_model = ModelWeights({"haiku": Weights(cache_read=2), "opus": Weights(output=10)}.get)
    assert ledger.used([Limit(0, 1)], by_model, 0) == [210 + 40 + 9 * 2]


def test_an_attempt_that_ends_keeps_what_it_had(ledger: SqliteLedger) -> None:
    fill(ledger)
    ledger.write(
        attempts=[
            AttemptRecord("r1", "a", 1, 9, session="s", model="opus", ended_ms=5000, outcome="completed", exact=True)
        ],
        runs=[RunRecord("r1", "m", 9, ended_ms=6000, exit_code=0)],
        notes=[NoteRecord("n1", "r1", 1, "adjust", "why", "a")],
    )
    first = ledger.attempts(run="r1")[0]
    assert (first.started_ms, first.base_command, first.session, first.outcome) == (1000, "/test", "s", "completed")
    assert first.exact and first.usage.total_tokens == 110
    assert ledger.runs()[0].ended_ms == 6000 and ledger.runs()[0].started_ms == 1000
    assert ledger.notes()[0].text == "why" and ledger.claim_alerts(["key", "k2"], "r1", 1) == {"key", "k2"}
    assert ledger.claim_alerts(["key", "k3"], "r2", 2) == {"k3"} and ledger.alerts_sent() == {"key", "k2", "k3"}


def reserve(
    ledger: SqliteLedger, tokens: int, limit: int, now_ms: int = 10, *, enforce: bool = True, nano: int = 0
) -> Reservation:
    limits = [Limit(0, limit), *([Limit(0, 100, Unit.USD)] if nano else [])]
    return ledger.reserve(HoldRequest("r1", "a", Amount(tokens, nano), 1000, FLAT, enforce), limits, now_ms)


def test_holds_are_shared_and_lapse(ledger: SqliteLedger) -> None:
    fill(ledger)
    first = reserve(ledger, 100, 400)
    assert first.action is Action.ALLOW and first.hold is not None
    assert reserve(ledger, 100, 400, now_ms=1500).action is Action.ALLOW  # the first has lapsed by then
    assert reserve(ledger, 100, 400, now_ms=1500) == Reservation(Action.WAIT, None, 0, 210, 100, 0)
    assert reserve(ledger, 191, 400, now_ms=1500) == Reservation(Action.BLOCK, None, 0, 210, 100, 0)
    warned = reserve(ledger, 191, 400, now_ms=1500, enforce=False)
    assert warned.action is Action.WARN and warned.hold is not None
    assert ledger.held_by_others("other", 1500) == Amount(291) and ledger.held_by_others("r1", 1500) == Amount(0)
    ledger.write(holds=[HoldState(warned.hold, "r1", Amount(0), 0)])
    assert ledger.held_by_others("other", 1500) == Amount(100)
    ledger.release_run("r1")
    assert ledger.held_by_others("other", 1500) == Amount(0)
    assert reserve(ledger, 1, 400, nano=500).action is Action.BLOCK


def test_what_was_sent_is_used_when_nobody_renews_its_hold(ledger: SqliteLedger) -> None:
    """The API bills it, whatever became of the orchestrator."""
    request = HoldRequest("r1", "a", Amount(100, 7), 1000, FLAT, enforce=True, sent=True)
    limits = [Limit(0, 250), Limit(0, 9, Unit.USD), Limit(501, 250)]
    held = ledger.reserve(request, limits, 500)
    assert held.hold is not None and ledger.used(limits, FLAT, 1499) == [0, 0, 0]
    assert ledger.held_by_others("r2", 1499) == Amount(100, 7)
    assert ledger.used(limits, FLAT, 1500) == [100, 7, 0]  # that it was sent before the third limit began
    other = HoldRequest("r2", "b", Amount(151), 1000, FLAT, enforce=True)
    assert ledger.reserve(other, limits[:1], 1400).action is Action.WAIT
    assert ledger.reserve(other, limits[:1], 1500) == Reservation(Action.BLOCK, None, 0, 100, 0, 0)
    ledger.write(holds=[HoldState(held.hold, "r1", Amount(60), 3000)])  # its owner had slept
    assert ledger.used(limits, FLAT, 1500) == [0, 0, 0] and ledger.held_by_others("r2", 1500) == Amount(60)
    assert ledger.used(limits, FLAT, 3000) == [60, 0, 0]
    ledger.prune(500, 3000)
    assert ledger.used(limits, FLAT, 3000) == [60, 0, 0]
    ledger.prune(501, 3000)
    assert ledger.used(limits, FLAT, 3000) == [0, 0, 0]


def test_a_hold_that_lapsed_while_its_owner_slept_stands_again_and_hurts_nobody(ledger: SqliteLedger) -> None:
    slept = reserve(ledger, 100, 400, now_ms=0)
    other = ledger.reserve(HoldRequest("r2", "b", Amount(200), 1000, FLAT, enforce=True), [], 2000)
    assert slept.hold is not None and other.hold is not None and slept.hold != other.hold
    ledger.write(holds=[HoldState(slept.hold, "r1", Amount(90), 4000)])
    assert ledger.held_by_others("", 2500) == Amount(290) and ledger.held_by_others("r1", 2500) == Amount(200)
    ledger.write(holds=[HoldState(slept.hold, "r1", Amount(0), 0)])
    assert ledger.held_by_others("", 2500) == Amount(200)


def test_pruning_takes_what_ended_before(ledger: SqliteLedger) -> None:
    fill(ledger)
    ledger.write(attempts=[AttemptRecord("r1", "a", 1, 1000, ended_ms=2000)])
    now_ms = 8 * 86_400_000
    assert ledger.prunable(1500, 2000) == (0, 0) and ledger.prune(1500, 2000) == 0  # b may still run
    assert ledger.prunable(1500, now_ms) == (1, 100)
    assert ledger.prune(1500, now_ms) == 1  # b began long ago and never ended
    assert [attempt.instance for attempt in ledger.attempts()] == ["a"] and len(ledger.runs()) == 1
    assert ledger.prune(9000, now_ms) == 2 and not ledger.runs() and not list(ledger.records())


def test_a_damaged_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"not a database at all, but long enough to be one" * 50)
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=r"cannot be read.*nothing was changed.*recover"):
        SqliteLedger(path)
    assert path.read_bytes() == before
    SqliteLedger(tmp_path / "good.db").close()
    data = (tmp_path / "good.db").read_bytes()
    (tmp_path / "half.db").write_bytes(data[: len(data) // 2])
    with pytest.raises(LedgerError, match="cannot be"):
        fill(SqliteLedger(tmp_path / "half.db"))


def test_other_databases_and_newer_schemas_are_refused(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE mine (x)")
    other.commit()
    with pytest.raises(LedgerError, match="database of another program"):
        SqliteLedger(tmp_path / "other.db")
    newer = sqlite3.connect(tmp_path / "newer.db")
    newer.executescript(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 99;")
    with pytest.raises(LedgerError, match="newer version"):
        SqliteLedger(tmp_path / "newer.db")
    with pytest.raises(LedgerError, match="no ledger yet"):
        SqliteLedger(tmp_path / "none.db", create=False)
    with pytest.raises(LedgerError, match="cannot be opened"):
        SqliteLedger(tmp_path / "other.db" / "x.db")


CLIENT = """
import sys
from token_budget.ledger.sqlite import *
from token_budget.ledger.records import *
from token_budget.models import Action, Amount, Usage, Weights
ledger, me, got = SqliteLedger(sys.argv[1]), sys.argv[2], 0
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    request = HoldRequest(me, str(number), Amount(100), 10**6, Weights(), enforce=True)
    answer = ledger.reserve(request, [Limit(0, int(sys.argv[4]))], 5)
    if answer.action is Action.ALLOW:
        got += 1
        ledger.write(runs=[RunRecord(me, "m", 5)], attempts=[AttemptRecord(me, str(number), 1, 5)],
            records=[UsageRecord(f"{me}/{number}", me, str(number), 1, 5, "m", Usage(100))],
            holds=[HoldState(answer.hold, me, Amount(), 0)])
print(got)
"""


def test_16_processes_never_admit_more_than_the_limit(tmp_path: Path) -> None:
    """1,000 admissions; the first 600 fit."""
    path, clients = tmp_path / "ledger.db", 16
    argv = [sys.executable, "-c", CLIENT, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    started = [
        subprocess.Popen([*argv, f"run{number}", "63", "60000"], **pipes)  # type: ignore[call-overload]
        for number in range(clients)
    ]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    admitted = sum(int(process.communicate(timeout=60)[0]) for process in started)
    assert admitted == 600 and all(process.returncode == 0 for process in started)
    assert SqliteLedger(path).used([Limit(0, 1)], FLAT, 0) == [60_000]


def test_windows_begin_at_local_midnight() -> None:
    now = datetime(2026, 3, 29, 15, 30, 5, 7)  # a Sunday
    assert start_of(Window.DAILY, now) == datetime(2026, 3, 29)
    assert start_of(Window.WEEKLY, now) == datetime(2026, 3, 23) and end_of(Window.WEEKLY, now) == datetime(2026, 3, 30)
    assert start_of(Window.MONTHLY, now) == datetime(2026, 3, 1)
    assert end_of(Window.MONTHLY, datetime(2026, 12, 31)) == datetime(2027, 1, 1)
    names = [name_of(window, now) for window in Window]
    assert names == ["day 2026-03-29", "week of 2026-03-23", "month 2026-03"]


def test_a_ledger_is_for_its_owner_alone(ledger: SqliteLedger) -> None:
    assert ledger.path.stat().st_mode & 0o777 == 0o600 and ledger.path.parent.stat().st_mode & 0o777 == 0o700
    assert json.loads(RunRecord("r", "m", 1).budgets) == {}
