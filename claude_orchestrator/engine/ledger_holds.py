"""The holds of a run as the ledger has them, and what of that has to be written. Pure."""

from __future__ import annotations

from token_budget.models import Amount, Hold
from token_budget.named_tuples import NamedTuple


class HoldChanges(NamedTuple):
    """The present amount of each hold in the ledger, and the keys of those that have ended."""

    left: dict[Hold, Amount]
    ended: dict[Hold, int]


class LedgerHolds:
    """Which holds the ledger has, with which keys and amounts."""

    def __init__(self) -> None:
        self._amounts: dict[Hold, Amount] = {}  # as the ledger has them
        self._keys: dict[Hold, int] = {}
        self._ended: set[Hold] = set()
        self._reserving: set[Hold] = set()
        self._ended_early: set[Hold] = set()

    def __bool__(self) -> bool:
        return bool(self._amounts)

    def reserve(self, hold: Hold) -> None:
        """The ledger is asked for a hold."""
        self._reserving.add(hold)

    def answered(self, hold: Hold, key: int | None, amount: Amount) -> None:
        """The ledger has this hold now, or none if `key` is None."""
        self._reserving.discard(hold)
        if key is not None:
            self._keys[hold], self._amounts[hold] = key, amount
            self._ended |= {hold} & self._ended_early
        self._ended_early.discard(hold)

    def released(self, hold: Hold) -> None:
        """A hold has ended, perhaps before the ledger has answered."""
        if hold in self._amounts:
            self._ended.add(hold)
        elif hold in self._reserving:
            self._ended_early.add(hold)

    def key(self, hold: Hold) -> int:
        """The key of a hold in the ledger."""
        return self._keys[hold]

    def changes(self) -> HoldChanges:
        """What the ledger has to record now."""
        left = {hold: Amount() if hold in self._ended else hold.remaining for hold in self._amounts}
        return HoldChanges(left, {hold: self._keys[hold] for hold in self._ended})

    def differ(self, changes: HoldChanges) -> bool:
        """Whether the ledger has other amounts."""
        return changes.left != self._amounts

    def written(self, changes: HoldChanges) -> None:
        """The ledger has these now."""
        self._amounts.update(changes.left)
        for hold in changes.ended:
            del self._amounts[hold], self._keys[hold]
        self._ended -= changes.ended.keys()
