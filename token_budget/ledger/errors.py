"""Why a ledger cannot be used."""


class LedgerError(Exception):
    """The ledger cannot be used; the message says why and what to do."""


class LedgerUnwritableError(LedgerError):
    """The ledger is sound, but it cannot be written: the disk is full or read-only, or the ledger is locked or cannot
    be reached."""


class NoLedgerError(LedgerError):
    """There is no ledger at this place yet."""
