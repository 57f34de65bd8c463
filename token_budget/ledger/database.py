"""What a ledger asks of the database that it is in: a SQLite file or a PostgreSQL server. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from token_budget.ledger.records import UsageRecord
from token_budget.ledger.sql_rows import Dialect

Value = str | int | None


class Database(Protocol):
    """A database with the tables of a ledger. SQL has `?` for values. Every method raises LedgerError."""

    @property
    def dialect(self) -> Dialect:
        """How it writes its SQL."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def busy_s(self) -> float:
        """How long one step waits for other writers, or for a server."""

    def wait_at_most(self, seconds: float) -> None:
        """Change `busy_s`, also for a step that has begun in another thread."""

    def now_ms(self, now_ms: int) -> int:
        """The time that leases are judged by: the server's, or the caller's where there is no server."""

    def transaction(
        self, accounts: Iterable[str] = (), *, alone: bool = False, durable: bool = True
    ) -> AbstractContextManager[None]:
        """A transaction: all of it happens, or nothing. Unless `durable`, a crash of the machine may undo it.

        While a transaction is `alone` with an account, no other transaction of that account is open. With the account
        "", no other transaction at all is open.
        """

    def execute(self, sql: str, values: Sequence[Value] = ()) -> int:
        """Change rows, in a transaction; returns how many."""

    def execute_many(self, sql: str, values: Iterable[Sequence[Value]]) -> None:
        """The same for each of several rows."""

    def insert_keyed(self, sql: str, values: Sequence[Value]) -> int:
        """Insert a row of a table with keys, in a transaction; returns its key."""

    def insert_records(self, records: Iterable[UsageRecord]) -> int:
        """Insert usage records whose attempts are there, in a transaction; returns how many were new."""

    def rows(self, sql: str, values: Sequence[Value] = ()) -> Iterator[Any]:
        """A query's rows."""

    def row(self, sql: str, values: Sequence[Value] = ()) -> Any:
        """The row of a query that has just one."""

    def close(self) -> None:
        """Close the connection."""
