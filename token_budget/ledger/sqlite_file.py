"""The SQLite file of a ledger: opened, made or migrated, in WAL mode, with its faults as messages for the user."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from token_budget.folders import check_file, make_folder
from token_budget.ledger import sql_rows
from token_budget.ledger.errors import LedgerError, LedgerUnwritableError, NoLedgerError
from token_budget.ledger.records import UsageRecord
from token_budget.ledger.sql_rows import Dialect
from token_budget.ledger.sqlite_schema import APPLICATION_ID, MIGRATIONS, statements

if TYPE_CHECKING:
    from token_budget.ledger.database import Value

BESIDE = ("-wal", "-shm", "-journal")  # SQLite reads these too: https://sqlite.org/tempfiles.html
BUSY_S = 60.0  # for a writer to wait for others
BUSY_AT_ONCE_S = 1.0  # of that within SQLite, which nothing can break off
BUSY_AGAIN_S = 0.01
_PLACE_FAULTS = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)
# of a group with max() SQLite takes the other columns from that row: https://www.sqlite.org/lang_select.html
_INSTANCES = f"""
SELECT run, instance, base_command, model, workspace, outcome, coalesce(ended_ms, started_ms) AS at_ms,
    sum({sql_rows.TOKENS}), verified, max(attempt)
FROM attempts WHERE coalesce(outcome, '') != ? GROUP BY run, instance HAVING at_ms >= ? AND at_ms < ?
ORDER BY at_ms, run, instance
"""
_INSERT_RECORD = """
INSERT INTO records
    (id, attempt, at_ms, model, input, output, cache_write, cache_read, cost_nano, cost_source, source, terms, write_1h,
    searches)
SELECT ?, key, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM attempts WHERE run = ? AND instance = ? AND attempt = ?
ON CONFLICT DO NOTHING
"""
_DIALECT = Dialect(nulls_first="", nulls_last="", instances=_INSTANCES)  # it orders NULLs before all else


class SqliteFile:
    """A ledger's file with its schema. Safe with many processes at once; one object is for one thread at a time."""

    def __init__(self, path: Path | str, *, create: bool = True) -> None:
        """Open it. Raises LedgerError where it cannot be opened, is damaged, or was made by something else."""
        self.path = Path(path)
        self.busy_s = BUSY_S
        if not create and not self.path.exists():
            raise NoLedgerError(f"{self.path}: no ledger yet: the first run creates it")
        if self.path.is_dir():
            raise LedgerUnwritableError(f"{self.path}: cannot be opened: it is a folder: name a file in it")
        try:
            if create:
                make_folder(self.path.parent, may_be_shared=True)
            check_file(self.path, BESIDE)
            if create:
                self.path.touch(mode=0o600, exist_ok=True)
            self.db = sqlite3.connect(self.path, timeout=BUSY_AT_ONCE_S, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise LedgerUnwritableError(f"{self.path}: cannot be opened: {_why(error)}") from None
        try:
            self._prepare_with_others()
            check_file(self.path, BESIDE)  # by now SQLite has made its files
        except OSError as error:
            self.db.close()
            raise LedgerUnwritableError(f"{self.path}: cannot be opened: {_why(error)}") from None
        except sqlite3.Error as error:
            self.db.close()
            raise self._fault(error, "read") from None
        except LedgerError:
            self.db.close()
            raise

    def _prepare_with_others(self) -> None:
        """Prepare the file although several programs may create it at once: SQLite does not wait for one that turns WAL
        on."""
        until = time.monotonic() + BUSY_S
        while True:
            try:
                self._prepare()
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
                self._roll_back()
                time.sleep(BUSY_AGAIN_S)

    def _prepare(self) -> None:
        self.db.execute("BEGIN")  # one moment for all that is asked: another may be making it
        application, version = self._pragma("application_id"), self._pragma("user_version")
        tables = self.db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        self.db.execute("COMMIT")
        if application != APPLICATION_ID and (tables or application):
            raise LedgerError(f"{self.path}: is a database of another program: name another file with --ledger")
        if version > len(MIGRATIONS):
            raise LedgerError(f"{self.path}: was written by a newer version of this program (schema {version})")
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.execute("PRAGMA foreign_keys = ON")
        if version < len(MIGRATIONS):
            with self.transaction():
                for number in range(self._pragma("user_version"), len(MIGRATIONS)):  # another may have been first
                    for statement in statements(MIGRATIONS[number]):
                        self.db.execute(statement)
                    self.db.execute(f"PRAGMA user_version = {number + 1}")
                self.db.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    def _pragma(self, name: str) -> int:
        value: int = self.db.execute(f"PRAGMA {name}").fetchone()[0]
        return value

    def _fault(self, error: sqlite3.Error, done: str) -> LedgerError:
        # an extended result code has the primary one in its low byte: https://www.sqlite.org/rescode.html
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _PLACE_FAULTS:
            return LedgerUnwritableError(f"{self.path}: cannot be {done}: {error}")
        return LedgerError(
            f"{self.path}: cannot be {done} ({error}): nothing was changed; move it away to begin a new one, recover "
            f"it with sqlite3's .recover, or run with --ledger off"
        )

    @contextlib.contextmanager
    def transaction(self, accounts: Iterable[str] = (), *, alone: bool = False, durable: bool = True) -> Iterator[None]:
        """A transaction, the only one of the file: all of it happens, or nothing. Unless `durable`, a crash of the
        machine may undo it.

        Raises LedgerError where it cannot be written.
        """
        try:
            if not durable:  # it does not wait for the disk
                self.db.execute("PRAGMA synchronous = NORMAL")
            self._begin()
            yield
            self.db.execute("COMMIT")
        except BaseException as error:
            self._roll_back()
            if isinstance(error, sqlite3.Error):
                raise self._fault(error, "written") from None
            if isinstance(error, OverflowError | UnicodeError):  # what SQLite has no place for
                raise LedgerError(f"{self.path}: cannot be written: {error}") from None
            raise
        finally:
            if not durable:
                with contextlib.suppress(sqlite3.Error):
                    self.db.execute("PRAGMA synchronous = FULL")

    def _begin(self) -> None:
        """Begin to write, as soon as no other program does. `busy_s` may change meanwhile."""
        began = time.monotonic()
        while True:
            try:
                self.db.execute("BEGIN IMMEDIATE")
                break
            except sqlite3.OperationalError as error:
                waited_s = time.monotonic() - began
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or waited_s > self.busy_s:
                    raise

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # SQLite may have done so already
            self.db.execute("ROLLBACK")

    @property
    def dialect(self) -> Dialect:
        """SQLite's own SQL."""
        return _DIALECT

    def wait_at_most(self, seconds: float) -> None:
        """Wait no longer than that for other writers, also in a wait that has begun."""
        self.busy_s = seconds

    def now_ms(self, now_ms: int) -> int:
        """The caller's time: all who use the file are on this machine."""
        return now_ms

    def execute(self, sql: str, values: Sequence[Value] = ()) -> int:
        """Change rows, in a transaction; returns how many."""
        return self.db.execute(sql, values).rowcount

    def execute_many(self, sql: str, values: Iterable[Sequence[Value]]) -> None:
        """The same for each of several rows."""
        self.db.executemany(sql, values)

    def insert_keyed(self, sql: str, values: Sequence[Value]) -> int:
        """Insert a hold; returns its key."""
        key = self.db.execute(sql, values).lastrowid
        assert key is not None
        return key

    def insert_records(self, records: Iterable[UsageRecord]) -> int:
        """Insert usage records; returns how many were new."""
        return sum(self.db.execute(_INSERT_RECORD, sql_rows.record_row(record)).rowcount for record in records)

    def rows(self, sql: str, values: Sequence[Value] = ()) -> Iterator[Any]:
        """A query's rows, as they are read. Raises LedgerError where it cannot be read."""
        try:
            yield from self.db.execute(sql, values)
        except sqlite3.Error as error:
            raise self._fault(error, "read") from None

    def row(self, sql: str, values: Sequence[Value] = ()) -> Any:
        """The row of a query that has just one."""
        (row,) = self.rows(sql, values)
        return row

    @property
    def name(self) -> str:
        """The file's path."""
        return str(self.path)

    def close(self) -> None:
        """Close the file."""
        self.db.close()


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
