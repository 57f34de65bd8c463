"""The ledger store in one SQLite file, for the orchestrators of one machine."""

from __future__ import annotations

from pathlib import Path

from token_budget.ledger.sql_ledger import SqlLedger
from token_budget.ledger.sqlite_file import SqliteFile


class SqliteLedger(SqlLedger):
    """A LedgerStore in a file. Safe with many processes at once; one object is for one thread at a time."""

    def __init__(self, path: Path | str, *, create: bool = True) -> None:
        """Open it. Raises LedgerError where it cannot be opened, is damaged, or belongs to another program."""
        self._file = SqliteFile(path, create=create)
        super().__init__(self._file)

    @property
    def path(self) -> Path:
        """The file's path."""
        return self._file.path
