"""The connection of a ledger to its PostgreSQL server: it reconnects after a fault, and every wait has a limit."""

from __future__ import annotations

import contextlib
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, TypeVar, cast

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.numeric import IntLoader

from token_budget.ledger import sql_rows
from token_budget.ledger.database import Value
from token_budget.ledger.errors import LedgerError, LedgerUnwritableError, NoLedgerError
from token_budget.ledger.postgres_schema import INSERT_RECORDS, INSTANCES, LOCK_CLASS, MIGRATIONS, SCHEMA
from token_budget.ledger.records import UsageRecord
from token_budget.ledger.sql_rows import Dialect

_T = TypeVar("_T")
BUSY_S = 60.0  # for one step
IDLE_S = 10  # between two steps of a transaction: another program waits for its lock
BATCH = 5_000  # records in one statement
CONNECT_S, LEAST_CONNECT_S = 5, 2  # to each host of the address; libpq waits no shorter
# a server that is gone is found out in some seconds: https://www.postgresql.org/docs/current/libpq-connect.html
DEFAULTS: dict[str, str | int] = {
    "connect_timeout": CONNECT_S,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "fallback_application_name": "claude-orchestrator",
}
_TIMEOUTS = {
    "statement_timeout": f"{BUSY_S:.0f}s",
    "lock_timeout": f"{BUSY_S / 2:.0f}s",
    "idle_in_transaction_session_timeout": f"{IDLE_S}s",
}
_SET_TIMEOUTS = """
SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS t (name, value)
WHERE current_setting(name) IN ('0', '0ms')
"""
_PLACE_FAULTS = (
    psycopg.OperationalError,  # among them: not reachable, disk full, timeouts
    psycopg.InterfaceError,
    errors.ReadOnlySqlTransaction,
    errors.InsufficientPrivilege,
    errors.IdleInTransactionSessionTimeout,
)
_DIALECT = Dialect(nulls_first=" NULLS FIRST", nulls_last=" NULLS LAST", instances=INSTANCES)
_HAS_LEDGER = "SELECT count(*) FROM pg_tables WHERE schemaname = %s AND tablename = 'migrations'"
_ABOUT = f"SELECT current_setting('server_encoding'), current_setting('transaction_read_only'), ({_HAS_LEDGER})"
_MAY_WRITE = "SELECT has_table_privilege('records', 'INSERT') AND has_table_privilege('holds', 'INSERT, DELETE')"


class PostgresServer:
    """A server's database with the tables of a ledger. Safe with many processes at once.

    One object is for one thread at a time. After a fault the next call connects again.
    """

    def __init__(self, address: str, *, create: bool, upgrade: bool = False) -> None:
        """Connect. With `create` the tables are made where there are none, and this role must be able to write.

        `upgrade` brings older tables up to date. Raises LedgerError if the server cannot be reached, or if its ledger
        is newer than this program, or older.
        """
        self.name = address
        self.busy_s = BUSY_S
        self.found_version = self.version = 0
        self._live: psycopg.Connection[Any] | None = None
        self._in_transaction = False
        self._at_ms = 0
        with self._faults("opened"):
            self._prepare(self._connection(), create=create, upgrade=upgrade)

    @property
    def dialect(self) -> Dialect:
        """PostgreSQL's own SQL."""
        return _DIALECT

    def wait_at_most(self, seconds: float) -> None:
        """Wait no longer than that for an answer, also in a wait that has begun."""
        self.busy_s = seconds

    def close(self) -> None:
        """Disconnect from the server."""
        live, self._live = self._live, None
        if live is not None:
            with contextlib.suppress(psycopg.Error):
                live.close()

    # -- connecting --

    def _connection(self) -> psycopg.Connection[Any]:
        if self._in_transaction and (self._live is None or self._live.closed):
            raise psycopg.OperationalError("the connection was lost")  # the rest of it must not go on alone
        if self._live is None:
            known = conninfo_to_dict(self.name)
            defaults = {key: value for key, value in DEFAULTS.items() if key not in known}
            if "connect_timeout" in defaults:
                defaults["connect_timeout"] = max(LEAST_CONNECT_S, min(CONNECT_S, int(self.busy_s)))
            live = _bounded(lambda: self.busy_s).connect(self.name, autocommit=True, **cast(Any, defaults))
            live.adapters.register_loader("numeric", IntLoader)  # sums of whole numbers
            self._live = live
            live.execute("SELECT set_config('search_path', %s, false)", (f"{SCHEMA}, pg_temp",))
            live.execute(_SET_TIMEOUTS, (list(_TIMEOUTS), list(_TIMEOUTS.values())))
            if self.version:
                self._check_version(_version(live))
        return self._live

    def _prepare(self, live: psycopg.Connection[Any], *, create: bool, upgrade: bool) -> None:
        encoding, read_only, has_ledger = live.execute(_ABOUT, (SCHEMA,)).fetchall()[0]
        if encoding != "UTF8":
            raise LedgerError(f"{self.name}: the database has the encoding {encoding}: a ledger needs UTF8")
        if not has_ledger and not create:
            raise NoLedgerError(f"{self.name}: no ledger yet: the first run creates it")
        if create and read_only == "on":
            raise LedgerUnwritableError(f"{self.name}: cannot be written: the database is read-only")
        version = self.found_version = _version(live) if has_ledger else 0
        if not has_ledger or upgrade:
            version = self._migrate()
        self._check_version(version)
        if create and not _one(live, _MAY_WRITE):
            role = _one(live, "SELECT current_user")
            raise LedgerUnwritableError(f"{self.name}: cannot be written: the role {role} may only read it")
        self.version = version

    def _check_version(self, version: int) -> None:
        if version > len(MIGRATIONS):
            raise LedgerError(f"{self.name}: was written by a newer version of this program (schema {version})")
        if version < len(MIGRATIONS):
            raise LedgerError(
                f"{self.name}: was written by an older version of this program (schema {version}): "
                f"token-budget migrate --to {self.name} brings it up to date, for all who use it"
            )

    def _migrate(self) -> int:
        """Take the steps that are missing; returns the version that the ledger has then."""
        with self.transaction([""], alone=True):  # another may be making it
            live = self._connection()
            live.execute("SET LOCAL statement_timeout = 0")
            if not _one(live, "SELECT count(*) FROM pg_namespace WHERE nspname = %s", (SCHEMA,)):
                live.execute(f"CREATE SCHEMA {SCHEMA}")
            if not _one(live, _HAS_LEDGER, (SCHEMA,)):
                live.execute("CREATE TABLE migrations (version BIGINT PRIMARY KEY, applied_ms BIGINT NOT NULL)")
            found = _version(live)
            for number in range(found, len(MIGRATIONS)):
                live.execute(_own(MIGRATIONS[number]))
                live.execute("INSERT INTO migrations (version, applied_ms) VALUES (%s, now_ms())", (number + 1,))
        return max(found, len(MIGRATIONS))

    # -- faults --

    @contextlib.contextmanager
    def _faults(self, done: str) -> Iterator[None]:
        """Turn faults into messages for the user. A connection in an unknown state is given up."""
        try:
            yield
        except psycopg.Error as error:
            self._give_up()
            if isinstance(error, errors.ReadOnlySqlTransaction):  # another of several hosts may take writes by now
                self.close()
            kind = LedgerUnwritableError if isinstance(error, _PLACE_FAULTS) else LedgerError
            raise kind(f"{self.name}: cannot be {done}: {_why(error)}") from None
        except (OverflowError, UnicodeError) as error:  # what it has no place for
            self._give_up()
            raise LedgerError(f"{self.name}: cannot be {done}: {error}") from None
        except BaseException:
            self._give_up()
            raise

    def _give_up(self) -> None:
        """End what is open: the server rolls it back, and frees its locks."""
        live = self._live
        if live is None:
            return
        with contextlib.suppress(psycopg.Error):
            if live.info.transaction_status in (
                psycopg.pq.TransactionStatus.INTRANS,
                psycopg.pq.TransactionStatus.INERROR,
            ):
                live.execute("ROLLBACK")
        if live.closed or live.info.transaction_status is not psycopg.pq.TransactionStatus.IDLE:
            self.close()

    def _again(self, step: Callable[[], _T]) -> _T:
        """Take a step that changes nothing yet. Repeat it once if the connection has ended meanwhile."""
        had = self._live
        if self._in_transaction:
            return step()
        try:
            return step()
        except (psycopg.OperationalError, psycopg.InterfaceError):
            if had is None or not had.closed:
                raise
            self.close()
            return step()

    # -- what Database has --

    def now_ms(self, now_ms: int) -> int:
        """The server's time; in a transaction that of its beginning, when its locks were granted."""
        found: int = self._at_ms or self.row("SELECT now_ms()")[0]
        return found

    @contextlib.contextmanager
    def transaction(self, accounts: Iterable[str] = (), *, alone: bool = False, durable: bool = True) -> Iterator[None]:
        """All of it or nothing. Advisory locks keep what is alone apart: docs/decisions/ledger-locks.md."""
        with self._faults("written"):
            begin = _begin(accounts, alone=alone, durable=durable, with_time=bool(self.version))
            cursor = self._again(lambda: self._connection().execute(begin))
            self._in_transaction = True
            try:
                while cursor.nextset():  # of the last statement
                    pass
                self._at_ms = cursor.fetchall()[0][0] if self.version else 0
                yield
                self._connection().execute("COMMIT")
            finally:
                self._in_transaction, self._at_ms = False, 0

    def execute(self, sql: str, values: Sequence[Value] = ()) -> int:
        """Change rows, in a transaction; returns how many."""
        return self._connection().execute(_own(sql), _clean(values)).rowcount

    def execute_many(self, sql: str, values: Iterable[Sequence[Value]]) -> None:
        """The same for each of several rows."""
        found = [_clean(row) for row in values]
        if found:
            with self._connection().cursor() as cursor:
                cursor.executemany(_own(sql), found)

    def insert_keyed(self, sql: str, values: Sequence[Value]) -> int:
        """Insert a row; returns its key."""
        key: int = self.row(f"{sql} RETURNING key", values)[0]
        return key

    def insert_records(self, records: Iterable[UsageRecord]) -> int:
        """Insert usage records; returns how many were new."""
        new = 0
        found = map(_clean, map(sql_rows.record_row, records))
        while batch := [*islice(found, BATCH)]:
            columns = [list(column) for column in zip(*batch, strict=True)]
            new += self._connection().execute(INSERT_RECORDS, columns).rowcount
        return new

    def rows(self, sql: str, values: Sequence[Value] = ()) -> Iterator[Any]:
        """A query's rows, all of them read at once."""
        with self._faults("read"):
            found = self._again(lambda: self._connection().execute(_own(sql), _clean(values)).fetchall())
        yield from found

    def row(self, sql: str, values: Sequence[Value] = ()) -> Any:
        """The row of a query that has just one."""
        (row,) = self.rows(sql, values)
        return row


def _begin(accounts: Iterable[str], *, alone: bool, durable: bool, with_time: bool) -> str:
    """What begins a transaction, in one message to the server. It has numbers of ours, and no text from outside."""
    parts = ["BEGIN"] if durable else ["BEGIN", "SET LOCAL synchronous_commit = off"]  # it does not wait for the disk
    for name, shared in _locks(accounts, alone=alone):
        function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        parts.append(f"SELECT {function}({LOCK_CLASS}, {_number_of(name)})")
    return "; ".join([*parts, "SELECT now_ms()"] if with_time else parts)


def _locks(accounts: Iterable[str], *, alone: bool) -> list[tuple[str, bool]]:
    """The locks of a transaction in the order in which all take them, and whether others may share each of them.

    The lock of the account "" stands for all accounts.
    """
    named = sorted({"", *accounts} if accounts else ())
    most = named[-1:] if alone else []
    return [(name, name not in most) for name in named]


def _number_of(account: str) -> int:
    """The second number of an account's lock, as signed 32 bits; two accounts that share one wait for each other."""
    return int.from_bytes(zlib.crc32(account.encode("utf-8", "replace")).to_bytes(4, "big"), "big", signed=True)


def _version(live: psycopg.Connection[Any]) -> int:
    found: int = _one(live, "SELECT coalesce(max(version), 0) FROM migrations")
    return found


def _one(live: psycopg.Connection[Any], sql: str, values: Sequence[Value] = ()) -> Any:
    row = live.execute(sql, values).fetchone()
    assert row is not None
    return row[0]


@lru_cache(maxsize=256)
def _own(sql: str) -> str:
    """Our SQL, which has `?` for values, as psycopg takes it. No text from outside is ever a part of it."""
    return sql.replace("?", "%s")


def _clean(values: Sequence[Value]) -> tuple[Value, ...]:
    """The values without NUL characters, for which the server has no place."""
    return tuple(value.replace("\0", "�") if isinstance(value, str) else value for value in values)


def _why(error: psycopg.Error) -> str:
    """The first line of a fault."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return first.removeprefix("connection failed: ")


def _bounded(limit_s: Callable[[], float]) -> type[psycopg.Connection[Any]]:
    """Connections on which no step takes longer than a limit, which may change meanwhile."""

    class Bounded(psycopg.Connection[Any]):
        def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
            return super().wait(_until(gen, limit_s), *args, **kwargs)

    return Bounded


def _until(gen: Generator[Any, Any, _T], limit_s: Callable[[], float]) -> Generator[Any, Any, _T]:
    """The same steps, which fail once they have taken longer than the limit. psycopg asks ten times a second."""
    began = time.monotonic()
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() - began > limit_s():
                raise psycopg.OperationalError(f"the server has not answered for {limit_s():g} s")
            wanted = gen.send(ready)
    except StopIteration as ended:
        value: _T = ended.value
        return value
