"""The SQL of a ledger's file, and its rows as records. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from token_budget.ledger.records import FOREVER_MS, AttemptRecord, RunRecord, UsageRecord
from token_budget.ledger.schema import QUARTER_MS
from token_budget.models import Usage
from token_budget.portions import Subagent, Terms

OLD = "coalesce(ended_ms, started_ms) < ? AND (ended_ms IS NOT NULL OR started_ms < ?)"
HELD = "coalesce(sum(tokens), 0), coalesce(sum(cost_nano), 0)"
# what an orchestrator that was killed had sent: nobody renews its hold, and the API bills it
ORPHANED = f"SELECT {HELD} FROM holds WHERE sent_ms >= ? AND expires_ms <= ?"
_USE = "attempt, model, input, output, cache_write, cache_read, cost_nano"
_QUARTERS = f"SELECT start_ms, {_USE} FROM quarters WHERE start_ms >= ? AND start_ms < ?"
_EDGE = f"SELECT at_ms / {QUARTER_MS} * {QUARTER_MS}, {_USE} FROM records WHERE at_ms >= ? AND at_ms < ?"
COUNTS = "sum(input), sum(output), sum(cache_write), sum(cache_read)"
UNPRICED = "sum(CASE WHEN a.cost_nano IS NULL THEN r.input + r.output + r.cache_write + r.cache_read ELSE 0 END)"
COUNTS_OF_R = "sum(r.input), sum(r.output), sum(r.cache_write), sum(r.cache_read)"
PUT_RUN = """
INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run) DO UPDATE SET ended_ms = coalesce(excluded.ended_ms, ended_ms), mode = excluded.mode,
    budgets = excluded.budgets, exit_code = coalesce(excluded.exit_code, exit_code)
"""
PUT_ATTEMPT = """
INSERT INTO attempts
    (run, instance, attempt, session, command, base_command, model, started_ms, ended_ms, outcome, exact,
    other_sessions, workspace, verified, subagents)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run, instance, attempt) DO UPDATE SET session = coalesce(excluded.session, session),
    model = coalesce(excluded.model, model), ended_ms = coalesce(excluded.ended_ms, ended_ms),
    outcome = coalesce(excluded.outcome, outcome), exact = excluded.exact,
    other_sessions = coalesce(nullif(excluded.other_sessions, '[]'), other_sessions),
    workspace = coalesce(excluded.workspace, workspace), verified = coalesce(excluded.verified, verified),
    subagents = coalesce(nullif(excluded.subagents, '[]'), subagents)
"""
PUT_HOLD = """
INSERT INTO holds (key, run, instance, tokens, cost_nano, expires_ms) VALUES (?, ?, '', ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET tokens = excluded.tokens, cost_nano = excluded.cost_nano,
    expires_ms = excluded.expires_ms
"""
PUT_RECORD = """
INSERT INTO records
    (id, attempt, at_ms, model, input, output, cache_write, cache_read, cost_nano, cost_source, source, terms, write_1h,
    searches)
SELECT ?, key, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM attempts WHERE run = ? AND instance = ? AND attempt = ?
ON CONFLICT DO NOTHING
"""


def between(since_ms: int, until_ms: int) -> tuple[str, tuple[int, ...]]:
    """A query for the use from a moment up to another: by whole quarters of an hour, and records at the edges."""
    first = -(-max(0, since_ms) // QUARTER_MS) * QUARTER_MS
    last = max(first, until_ms // QUARTER_MS * QUARTER_MS)
    edges = [(since_ms, min(first, until_ms)), (max(last, since_ms), until_ms)]
    sources = [(_QUARTERS, (first, last)), *((_EDGE, edge) for edge in edges if edge[0] < edge[1] < FOREVER_MS)]
    return " UNION ALL ".join(sql for sql, _ in sources), tuple(ms for _, span in sources for ms in span)


def run_row(run: RunRecord) -> tuple[str | int | None, ...]:
    """A run's values for PUT_RUN."""
    return (run.run, run.machine, run.started_ms, run.ended_ms, run.mode, run.budgets, run.exit_code)


def attempt_row(attempt: AttemptRecord) -> tuple[str | int | None, ...]:
    """An attempt's values for PUT_ATTEMPT."""
    about = (attempt.session, attempt.command, attempt.base_command, attempt.model)
    end = (attempt.started_ms, attempt.ended_ms, attempt.outcome, int(attempt.exact))
    return (*attempt.key, *about, *end, *_places(attempt))


def _places(attempt: AttemptRecord) -> tuple[str | int | None, ...]:
    sessions, agents = json.dumps(attempt.other_sessions), json.dumps(attempt.subagents)
    return (sessions, attempt.workspace, attempt.verified, agents)


def record_row(record: UsageRecord) -> tuple[str | int | None, ...]:
    """A usage record's values for PUT_RECORD."""
    cost = (record.cost_nano_usd, record.cost_source)
    return (
        record.id,
        record.at_ms,
        record.model,
        *record.usage.counts,
        *cost,
        record.source,
        json.dumps(record.terms) if any(record.terms) else "[]",
        record.written_for_1h_tokens,
        record.web_searches,
        record.run,
        record.instance,
        record.attempt,
    )


def read_attempt(*row: Any) -> AttemptRecord:
    """An attempt from its columns, in the order of the record's fields."""
    sessions = tuple(json.loads(row[16])) if row[16] != "[]" else ()
    agents = tuple(Subagent(*one) for one in json.loads(row[19])) if row[19] != "[]" else ()
    values = (*row[:10], bool(row[10]), read_usage(row[11:15]), row[15], sessions, row[17], read_flag(row[18]), agents)
    return AttemptRecord(*values)


def read_record(*row: Any) -> UsageRecord:
    """A usage record from its columns, in the order of the record's fields."""
    values = (*row[:6], read_usage(row[6:10]), *row[10:13], Terms(*json.loads(row[13])), *row[14:16])
    return UsageRecord(*values)


def read_flag(value: int | None) -> bool | None:
    """A flag that may be unknown."""
    return None if value is None else bool(value)


def read_usage(row: Sequence[int | None]) -> Usage:
    """The four counts; a sum over nothing is zero."""
    return Usage(*(count or 0 for count in row))
