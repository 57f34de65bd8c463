"""The rows that a run becomes in the ledger: what is new goes into one batch, and each record has one id for ever."""

from __future__ import annotations

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.plan import make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.ledger_book import LedgerBatch, LedgerBook
from claude_orchestrator.engine.run_events import (
    ApprovalEnded,
    AttemptEnded,
    By,
    CacheReported,
    HoldChanged,
    InstanceEnded,
    Launched,
    RoomChanged,
    Steered,
    UsageRecorded,
)
from claude_orchestrator.engine.state import InstanceStatus, State
from claude_orchestrator.engine.usage_delta import PortionDelta, UsageDelta
from token_budget.ledger.records import AttemptRecord, NoteRecord, UsageRecord
from token_budget.models import Amount, Hold, Usage
from token_budget.portions import Portion, Spent

CLOCK_MS = 5000


def instance() -> InstanceStatus:
    config = parse_config({"instances": [{"name": "one", "command": "/test"}]}, "test")
    status = InstanceStatus(make_plan(config, Settings(), workspace="/w", claude_bin="claude").specs[0])
    status.begin(0.0)
    return status


def used(status: InstanceStatus, tokens: int, nano_usd: int = 0, source: str | None = None) -> UsageRecorded:
    portions = {Portion("opus"): PortionDelta(Spent(Usage(tokens)), nano_usd)}
    return UsageRecorded(status, UsageDelta(Amount(tokens, nano_usd), portions, source))


def book() -> LedgerBook:
    return LedgerBook("run", lambda: CLOCK_MS)


def ids(batch: LedgerBatch) -> list[str]:
    return [record.id for record in batch.records]


def test_an_attempt_and_what_it_uses() -> None:
    ledger, status = book(), instance()
    assert not ledger.has_news and not ledger.take()
    ledger.observe(Launched(status, Hold((), Amount())))
    ledger.observe(used(status, 10))
    ledger.observe(used(status, 5))
    ledger.observe(RoomChanged())
    batch = ledger.take()
    assert ids(batch) == ["run/one/1/1"] and batch.records[0].usage == Usage(15) and batch.records[0].at_ms == CLOCK_MS
    (attempt,) = batch.attempts
    assert (attempt.base_command, attempt.started_ms, attempt.outcome) == ("/test", CLOCK_MS, None)
    assert not ledger.has_news
    status.apply(ApiUsage("m", Usage(1, 2), whole=True))
    status.skip(State.COMPLETED, "")
    ledger.observe(used(status, 1))
    ledger.observe(AttemptEnded(status))
    batch = ledger.take()
    assert ids(batch) == ["run/one/1/2"] and batch.attempts[0].outcome == "completed"
    assert batch.attempts[0].ended_ms == CLOCK_MS


def test_a_price_of_nothing_is_recorded_once() -> None:
    ledger, status = book(), instance()
    ledger.observe(used(status, 0, 0, "claude"))
    assert ids(ledger.take()) == ["run/one/1/1"]
    ledger.observe(used(status, 0, 0, "claude"))
    ledger.observe(used(status, 0))
    assert ids(ledger.take()) == []


def test_notes() -> None:
    ledger, status = book(), instance()
    status.skip(State.SKIPPED, "not needed")
    ledger.observe(HoldChanged("one", "it grew"))
    ledger.observe(InstanceEnded(status, False))
    ledger.observe(InstanceEnded(status, True))
    ledger.observe(Steered("pause", "run", "pause", By("socket", "me")))
    ledger.observe(ApprovalEnded("1", "one", "Bash", "denied", By("web")))
    ledger.observe(CacheReported(("Prompt cache: 9% was read.", "Prompt cache: 7 tokens were written and never read.")))
    notes = [(note.kind, note.text, note.instance) for note in ledger.take().notes]
    assert notes == [
        ("adjust", "it grew", "one"),
        ("skipped", "not needed", "one"),
        ("steer", "pause (me by socket)", None),
        ("approval", "denied: Bash (web)", "one"),
        ("cache", "9% was read.", None),
        ("cache", "7 tokens were written and never read.", None),
    ]


def test_a_resumed_run_continues_with_what_the_ledger_has() -> None:
    ledger, status = book(), instance()
    totals = {("one", 1, "opus"): (Usage(10), 7, 2), ("one", 1, "haiku"): (Usage(1), None, 1)}
    known = AttemptRecord("run", "one", 1, 3, ended_ms=4, outcome="failed")
    journal = AttemptRecord("run", "one", 1, 9, usage=Usage(14), cost_nano_usd=9)
    other = AttemptRecord("run", "two", 1, 9, usage=Usage(2))
    ledger.start_from(totals, {known.key: known}, (journal, other))
    batch = ledger.take()
    first, second = batch.attempts
    assert (first.started_ms, first.ended_ms, first.outcome) == (3, 4, "failed") and second == other
    missing = {record.id: (record.usage, record.cost_nano_usd) for record in batch.records}
    assert missing == {"run/one/1/4": (Usage(3), 2), "run/two/1/1": (Usage(2), None)}
    ledger.observe(used(status, 5))
    assert ids(ledger.take()) == ["run/one/1/5"]


def test_records_of_a_run_that_never_entered_have_numbers_of_their_own() -> None:
    ledger, status = book(), instance()
    ledger.observe(used(status, 5))
    ledger.start_unknown()
    assert ids(ledger.take()) == [f"run/one/1/{CLOCK_MS + 1}"]


def test_of_two_batches_the_later_values_count() -> None:
    old, new = AttemptRecord("run", "one", 1, 5), AttemptRecord("run", "one", 1, 5, outcome="completed")
    records = [UsageRecord(name, "run", "one", 1, 1, "m", Usage(1)) for name in "ab"]
    notes = [NoteRecord(name, "run", 1, "adjust", name) for name in "ab"]
    both = LedgerBatch((old,), (records[0],), (notes[0],)).then(LedgerBatch((new,), (records[1],), (notes[1],)))
    assert both == LedgerBatch((new,), tuple(records), tuple(notes)) and both and not LedgerBatch()
