"""Opens a ledger, in a file or on a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from token_budget.ledger.address import check_address, is_address
from token_budget.ledger.errors import LedgerError

if TYPE_CHECKING:
    from token_budget.ledger.postgres_server import PostgresServer
    from token_budget.ledger.store import LedgerStore

EXTRA = "the extra claude-orchestrator[postgres]"


def open_store(place: str | Path, *, create: bool = True) -> LedgerStore:
    """Open the ledger in a file, or at an address that begins with `postgresql://`.

    With `create`, it is made where there is none, and it must be writable. Raises LedgerError.
    """
    if is_address(place):
        from token_budget.ledger.sql_ledger import SqlLedger

        return SqlLedger(_server(str(place), create=create))
    from token_budget.ledger.sqlite import SqliteLedger

    return SqliteLedger(place, create=create)


def upgrade(address: str) -> tuple[int, int]:
    """Make the ledger at an address, or bring it up to this version; returns the versions before and after.

    Programs of an earlier version cannot use it afterwards. Raises LedgerError.
    """
    server = _server(address, create=True, upgrade=True)
    server.close()
    return server.found_version, server.version


def _server(address: str, *, create: bool, upgrade: bool = False) -> PostgresServer:
    try:
        check_address(address)
    except ValueError as error:
        raise LedgerError(str(error)) from None
    try:
        from token_budget.ledger.postgres_server import PostgresServer
    except ImportError:
        raise LedgerError(f"{address}: a ledger on a server needs {EXTRA}") from None
    return PostgresServer(address, create=create, upgrade=upgrade)
