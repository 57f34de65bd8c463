"""Opens a ledger, in a file or on a server."""

from __future__ import annotations

from pathlib import Path

from token_budget.ledger.address import check_address, is_address
from token_budget.ledger.store import LedgerError, LedgerStore

EXTRA = "the extra claude-orchestrator[postgres]"


def open_store(place: str | Path, *, create: bool = True) -> LedgerStore:
    """Open the ledger in a file, or at an address that begins with `postgresql://`.

    With `create`, it is made where there is none, and it must be writable. Raises LedgerError.
    """
    if isinstance(place, str) and is_address(place):
        try:
            check_address(place)
        except ValueError as error:
            raise LedgerError(str(error)) from None
        try:
            from token_budget.ledger.postgres import PostgresLedger
        except ImportError:
            raise LedgerError(f"{place}: a ledger on a server needs {EXTRA}") from None
        return PostgresLedger(place, create=create)
    from token_budget.ledger.sqlite import SqliteLedger

    return SqliteLedger(place, create=create)
