"""What the ledger lacks: deltas add up by attempt and model."""

from __future__ import annotations

from claude_orchestrator.engine.ledger_batch import Unwritten
from claude_orchestrator.engine.usage_delta import PortionDelta, UsageDelta
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
