"""The ledger store on a PostgreSQL server, for the orchestrators of many machines."""

from __future__ import annotations

from token_budget.ledger.postgres_server import PostgresServer
from token_budget.ledger.sql_ledger import SqlLedger


class PostgresLedger(SqlLedger):
    """A LedgerStore on a server. Safe with many processes at once; one object is for one thread at a time.

    After a fault the next call connects again.
    """

    def __init__(self, address: str, *, create: bool = True) -> None:
        """Connect. With `create` the tables are made where there are none, and this role must be able to write.

        Raises LedgerError if the server cannot be reached, or its ledger is older or newer than this program.
        """
        super().__init__(PostgresServer(address, create=create))


def upgrade(address: str) -> tuple[int, int]:
    """Make the tables of a ledger, or bring them up to this version; returns the versions before and after.

    Programs of an earlier version cannot use it afterwards. Raises LedgerError.
    """
    server = PostgresServer(address, create=True, upgrade=True)
    server.close()
    return server.found_version, server.version
