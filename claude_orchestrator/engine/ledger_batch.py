"""What a run has used since the ledger was last written. Pure."""

from __future__ import annotations

from claude_orchestrator.engine.usage_delta import PortionDelta, UsageDelta
from token_budget.ledger.records import AttemptRecord, NoteRecord
from token_budget.portions import Portion, Spent

Key = tuple[str, int]  # an instance's name and the number of its attempt


class Unwritten:
    """What the ledger lacks."""

    def __init__(self) -> None:
        self.attempts: dict[Key, AttemptRecord] = {}
        self.use: dict[Key, dict[Portion, Use]] = {}
        self.notes: list[NoteRecord] = []

    def __bool__(self) -> bool:
        return bool(self.attempts or self.use or self.notes)

    def add(self, key: Key, delta: UsageDelta) -> None:
        """Add what an attempt has used."""
        portions = self.use.setdefault(key, {})
        for portion, part in delta.portions.items():
            portions.setdefault(portion, Use()).add(part, delta.cost_source)


class Use:
    """What is to become one record of the ledger."""

    def __init__(self) -> None:
        self.spent = Spent()
        self.nano_usd = 0
        self.cost_source: str | None = None

    def add(self, delta: PortionDelta, cost_source: str | None) -> None:
        """Add a delta; the latest source of the cost counts."""
        self.spent, self.nano_usd = self.spent + delta.spent, self.nano_usd + delta.nano_usd
        self.cost_source = cost_source
