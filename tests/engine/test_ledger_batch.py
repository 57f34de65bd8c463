"""What the ledger lacks: deltas add up by model, and what could not be written comes back."""

from __future__ import annotations

from claude_orchestrator.engine.ledger_batch import Unwritten
from claude_orchestrator.engine.usage_delta import PortionDelta, UsageDelta
from token_budget.ledger.records import AttemptRecord, NoteRecord
from token_budget.models import Amount, Usage
from token_budget.portions import Portion, Spent

KEY = ("one", 1)


def delta(model: str, tokens: int, nano_usd: int = 0, source: str | None = None) -> UsageDelta:
    return UsageDelta(Amount(tokens, nano_usd), {Portion(model): PortionDelta(Spent(Usage(tokens)), nano_usd)}, source)


def test_deltas_add_up_by_attempt_and_model() -> None:
    unwritten = Unwritten()
    assert not unwritten
    unwritten.add(KEY, delta("opus", 10))
    unwritten.add(KEY, delta("opus", 5, 7, "claude"))
    unwritten.add(KEY, delta("haiku", 1))
    assert unwritten
    opus, haiku = unwritten.use[KEY][Portion("opus")], unwritten.use[KEY][Portion("haiku")]
    assert (opus.spent.usage, opus.nano_usd, opus.cost_source) == (Usage(15), 7, "claude")
    assert (haiku.spent.usage, haiku.cost_source) == (Usage(1), None)


def test_what_could_not_be_written_comes_back_under_what_is_newer() -> None:
    failed, newer = Unwritten(), Unwritten()
    old = AttemptRecord("run", "one", 1, 5)
    failed.attempts[KEY] = old
    failed.notes.append(NoteRecord("1", "run", 5, "adjust", "first"))
    failed.add(KEY, delta("opus", 10, 3, "prices"))
    newer.attempts[KEY] = AttemptRecord("run", "one", 1, 5, outcome="completed")
    newer.notes.append(NoteRecord("2", "run", 6, "adjust", "second"))
    newer.add(KEY, delta("opus", 1))
    newer.put_back(failed)
    assert newer.attempts[KEY].outcome == "completed"
    assert [note.text for note in newer.notes] == ["first", "second"]
    use = newer.use[KEY][Portion("opus")]
    assert (use.spent.usage, use.nano_usd, use.cost_source) == (Usage(11), 3, "prices")
