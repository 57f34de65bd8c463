"""What a run has used that the ledger lacks, and the rows that it becomes there. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from claude_orchestrator.engine.ledger_batch import Key, Unwritten
from claude_orchestrator.engine.run_events import (
    ApprovalEnded,
    AttemptEnded,
    CacheReported,
    HoldChanged,
    InstanceEnded,
    Launched,
    RunEvent,
    Steered,
    UsageRecorded,
)
from claude_orchestrator.engine.state import InstanceStatus, State
from claude_orchestrator.engine.usage_delta import PortionDelta, UsageDelta
from token_budget.ledger.records import AttemptRecord, NoteRecord, UsageRecord
from token_budget.models import Amount, Usage
from token_budget.named_tuples import NamedTuple
from token_budget.portions import Portion, Spent

MAX_COMMAND_CHARS = 1_000
CACHE_BEGINS = "Prompt cache: "  # each line about it, which the kind of a note names too
Totals = Mapping[tuple[str, int, str], tuple[Usage, int | None, int]]


class LedgerBatch(NamedTuple):
    """Rows for the ledger. Its records have their ids already, so it is written unchanged until that succeeds."""

    attempts: tuple[AttemptRecord, ...] = ()
    records: tuple[UsageRecord, ...] = ()
    notes: tuple[NoteRecord, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.attempts or self.records or self.notes)

    def then(self, later: LedgerBatch) -> LedgerBatch:
        """Both batches as one. Of two rows for an attempt, the later one counts."""
        attempts = {attempt.key: attempt for attempt in (*self.attempts, *later.attempts)}
        return LedgerBatch(tuple(attempts.values()), self.records + later.records, self.notes + later.notes)


class LedgerBook:
    """Observes a run and makes batches for the ledger. `now_ms` is the time that the ledger has."""

    def __init__(self, run: str, now_ms: Callable[[], int]) -> None:
        self._run = run
        self._now_ms = now_ms
        self._running: dict[Key, InstanceStatus] = {}  # with news that the ledger lacks
        self._unwritten = Unwritten()
        self._started_ms: dict[Key, int] = {}
        self._ended_ms: dict[Key, int] = {}
        self._records: dict[Key, int] = {}  # how many there are of an attempt
        self._first = 0
        self._priced: set[Key] = set()
        self._note_count = 0

    @property
    def has_news(self) -> bool:
        """Whether there is anything for a batch."""
        return bool(self._running or self._unwritten)

    def observe(self, event: RunEvent) -> None:
        """Note what the ledger will have to hold."""
        match event:
            case Launched(status):
                self._note(status)
            case UsageRecorded(status, delta):
                self._note(status)
                self._unwritten.add((status.name, status.attempts), delta)
            case AttemptEnded(status):
                key = status.name, status.attempts
                self._running.pop(key, None)
                self._ended_ms[key] = self._now_ms()
                self._unwritten.attempts[key] = self._attempt(status)
            case HoldChanged(instance, text, _):
                self._add_note("adjust", text, instance)
            case InstanceEnded(status, False) if status.state is State.SKIPPED:
                self._add_note("skipped", status.reason, status.name)
            case Steered(_, _, text, by):
                self._add_note("steer", f"{text} ({by})", None)
            case CacheReported(lines):
                for line in lines:
                    self._add_note("cache", line.removeprefix(CACHE_BEGINS), None)
            case ApprovalEnded(_, instance, text, outcome, by):
                self._add_note("approval", f"{outcome}: {text} ({by})", instance)
            case _:
                pass

    def _add_note(self, kind: str, text: str, instance: str | None) -> None:
        self._note_count += 1
        at_ms = self._now_ms()
        note = NoteRecord(f"{self._run}/{at_ms}/{self._note_count}", self._run, at_ms, kind, text, instance)
        self._unwritten.notes.append(note)

    def _note(self, status: InstanceStatus) -> None:
        key = status.name, status.attempts
        self._running[key] = status
        self._started_ms.setdefault(key, self._now_ms())

    def start_from(
        self, totals: Totals, known: Mapping[tuple[str, str, int], AttemptRecord], earlier: tuple[AttemptRecord, ...]
    ) -> None:
        """Continue from what the ledger has of this run, and add what only the journal (`earlier`) has."""
        written: dict[Key, tuple[Usage, int]] = {}
        for (instance, number, _), (usage, cost_nano_usd, records) in totals.items():
            key = instance, number
            before, cost_before = written.get(key, (Usage(), 0))
            written[key] = before + usage, cost_before + (cost_nano_usd or 0)
            self._records[key] = self._records.get(key, 0) + records
            self._priced |= {key} if cost_nano_usd is not None else set()
        for attempt in earlier:
            self._complete(attempt, known.get(attempt.key), *written.get(attempt.key[1:], (Usage(), 0)))

    def start_unknown(self) -> None:
        """Number the records so that they clash with none in the ledger, which could not be read."""
        self._first = self._now_ms()

    def _complete(self, attempt: AttemptRecord, known: AttemptRecord | None, usage: Usage, cost_nano_usd: int) -> None:
        """Note what the journal has of an attempt beyond what the ledger has; the ledger knows its end better."""
        if known is not None and known.outcome is not None:
            attempt = attempt._replace(started_ms=known.started_ms, ended_ms=known.ended_ms, outcome=known.outcome)
        key = attempt.instance, attempt.attempt
        self._unwritten.attempts.setdefault(key, attempt)
        cost = max(0, (attempt.cost_nano_usd or 0) - cost_nano_usd)
        missing = PortionDelta(Spent(attempt.usage - usage), cost)
        source = None if attempt.cost_nano_usd is None else "claude"
        self._unwritten.add(key, UsageDelta(Amount(), {Portion(): missing}, source))

    def take(self) -> LedgerBatch:
        """Take out everything that is new, as rows."""
        unwritten, self._unwritten = self._unwritten, Unwritten()
        running, self._running = self._running, {}
        for key, status in running.items():
            unwritten.attempts.setdefault(key, self._attempt(status))
        records = self._records_of(unwritten, self._now_ms())
        return LedgerBatch(tuple(unwritten.attempts.values()), tuple(records), tuple(unwritten.notes))

    def _records_of(self, unwritten: Unwritten, at_ms: int) -> list[UsageRecord]:
        found: list[UsageRecord] = []
        for key, portions in unwritten.use.items():
            number = self._records.get(key, self._first)
            for portion, use in portions.items():
                is_priced = use.cost_source is not None
                # a first price of nothing tells what is free from what has no price
                if not (use.spent or use.nano_usd or (is_priced and key not in self._priced)):
                    continue
                number += 1
                found.append(
                    UsageRecord(
                        f"{self._run}/{key[0]}/{key[1]}/{number}",
                        self._run,
                        *key,
                        at_ms=at_ms,
                        model=portion.model,
                        usage=use.spent.usage,
                        cost_nano_usd=use.nano_usd if is_priced else None,
                        cost_source=use.cost_source,
                        source=portion.source,
                        terms=portion.terms,
                        written_for_1h_tokens=use.spent.written_for_1h_tokens,
                        web_searches=use.spent.web_searches,
                    )
                )
            self._records[key] = number
            self._priced |= {key} if any(use.cost_source is not None for use in portions.values()) else set()
        return found

    def _attempt(self, status: InstanceStatus) -> AttemptRecord:
        has_ended, now_ms = status.ended, self._now_ms()
        return AttemptRecord(
            run=self._run,
            instance=status.name,
            attempt=status.attempts,
            started_ms=self._started_ms.get((status.name, status.attempts), now_ms),
            session=status.session_id,
            command=status.spec.command[:MAX_COMMAND_CHARS],
            base_command=status.spec.base_command,
            model=status.models[0] if status.models else None,
            ended_ms=self._ended_ms.get((status.name, status.attempts), now_ms) if has_ended else None,
            outcome=str(status.state) if has_ended else None,
            exact=status.tally.exact,
            usage=status.tally.usage,
            cost_nano_usd=status.attempt.costs.nano_usd,
            other_sessions=tuple(session for session in status.attempt.sessions if session != status.session_id),
            workspace=status.spec.origin or status.spec.cwd,
            verified=status.verified,
            subagents=tuple(status.tally.attribution.subagents.values()),
        )
