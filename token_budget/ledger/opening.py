"""Opens a ledger, in a file or on a server."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from token_budget.ledger.address import check_address, is_address
from token_budget.ledger.store import LedgerError, LedgerStore

EXTRA = "the extra claude-orchestrator[postgres]"


def open_store(place: str | Path, *, create: bool = True) -> LedgerStore:
    """Open the ledger in a file, or at an address that begins with `postgresql://`.

    With `create`, it is made where there is none, and it must be writable. Raises LedgerError.
    """
    if isinstance(place, str) and is_address(place):
        opened: LedgerStore = _postgres(place).PostgresLedger(place, create=create)
        return opened
    from token_budget.ledger.sqlite import SqliteLedger

    return SqliteLedger(place, create=create)


def upgrade(address: str) -> tuple[int, int]:
    """Make the ledger at an address, or bring it up to this version; returns the versions before and after.

    Programs of an earlier version cannot use it afterwards. Raises LedgerError.
    """
    versions: tuple[int, int] = _postgres(address).upgrade(address)
    return versions


def _postgres(address: str) -> ModuleType:
    try:
        check_address(address)
    except ValueError as error:
        raise LedgerError(str(error)) from None
    try:
        from token_budget.ledger import postgres
    except ImportError:
        raise LedgerError(f"{address}: a ledger on a server needs {EXTRA}") from None
    return postgres
