"""The ledger in a SQLite file: damage, foreign files and newer schemas are refused; only its owner can read it."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime
from pathlib import Path

import pytest

from tests.token_budget.test_ledger_contract import fill
from token_budget.ledger.errors import LedgerError
from token_budget.ledger.records import RunRecord
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.ledger.sqlite_schema import APPLICATION_ID
from token_budget.windows import Window, end_of, name_of, start_of


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
    with pytest.raises(LedgerError, match="it is a folder: name a file in it"):
        SqliteLedger(tmp_path)


def test_windows_begin_at_local_midnight() -> None:
    now = datetime(2026, 3, 29, 15, 30, 5, 7)  # a Sunday
    assert start_of(Window.DAILY, now) == datetime(2026, 3, 29)
    assert start_of(Window.WEEKLY, now) == datetime(2026, 3, 23) and end_of(Window.WEEKLY, now) == datetime(2026, 3, 30)
    assert start_of(Window.MONTHLY, now) == datetime(2026, 3, 1)
    assert end_of(Window.MONTHLY, datetime(2026, 12, 31)) == datetime(2027, 1, 1)
    names = [name_of(window, now) for window in Window]
    assert names == ["day 2026-03-29", "week of 2026-03-23", "month 2026-03"]


def test_a_ledger_is_for_its_owner_alone(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "folder" / "ledger.db")
    assert ledger.path.stat().st_mode & 0o777 == 0o600 and ledger.path.parent.stat().st_mode & 0o777 == 0o700
    assert json.loads(RunRecord("r", "m", 1).budgets) == {}
