"""The SQL that every database of a ledger understands, and its rows as records. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from token_budget.ledger.records import FOREVER_MS, QUARTER_MS, AttemptRecord, RunRecord, UsageRecord
from token_budget.models import Amount, Usage
from token_budget.named_tuples import NamedTuple
from token_budget.portions import Subagent, Terms

if TYPE_CHECKING:
    from token_budget.ledger.database import Value

OLD = "coalesce(ended_ms, started_ms) < ? AND (ended_ms IS NOT NULL OR started_ms < ?)"
HOLDS = "SELECT run, tokens, cost_nano, expires_ms, sent_ms FROM holds WHERE (expires_ms > ? OR sent_ms >= ?)"
OF_ACCOUNT = " AND EXISTS (SELECT 1 FROM runs WHERE runs.run = holds.run AND runs.account = ?)"
JOIN_ACCOUNT = " JOIN attempts a ON a.key = u.attempt JOIN runs n ON n.run = a.run WHERE n.account = ?"
COUNTS_OF_U = "sum(u.input), sum(u.output), sum(u.cache_write), sum(u.cache_read)"
_USE = "attempt, model, input, output, cache_write, cache_read, cost_nano"
_QUARTERS = f"SELECT start_ms, {_USE} FROM quarters WHERE start_ms >= ? AND start_ms < ?"
_EDGE = f"SELECT at_ms / {QUARTER_MS} * {QUARTER_MS}, {_USE} FROM records WHERE at_ms >= ? AND at_ms < ?"
UNPRICED = "sum(CASE WHEN a.cost_nano IS NULL THEN r.input + r.output + r.cache_write + r.cache_read ELSE 0 END)"
COUNTS_OF_R = "sum(r.input), sum(r.output), sum(r.cache_write), sum(r.cache_read)"
TOKENS = "input + output + cache_write + cache_read"
PUT_RUN = """
INSERT INTO runs (run, machine, started_ms, ended_ms, mode, budgets, exit_code, account)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run) DO UPDATE SET ended_ms = coalesce(excluded.ended_ms, runs.ended_ms), mode = excluded.mode,
    budgets = excluded.budgets, exit_code = coalesce(excluded.exit_code, runs.exit_code)
"""
PUT_ATTEMPT = """
INSERT INTO attempts
    (run, instance, attempt, session, command, base_command, model, started_ms, ended_ms, outcome, exact,
    other_sessions, workspace, verified, subagents)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run, instance, attempt) DO UPDATE SET session = coalesce(excluded.session, attempts.session),
    model = coalesce(excluded.model, attempts.model), ended_ms = coalesce(excluded.ended_ms, attempts.ended_ms),
    outcome = coalesce(excluded.outcome, attempts.outcome), exact = excluded.exact,
    other_sessions = coalesce(nullif(excluded.other_sessions, '[]'), attempts.other_sessions),
    workspace = coalesce(excluded.workspace, attempts.workspace),
    verified = coalesce(excluded.verified, attempts.verified),
    subagents = coalesce(nullif(excluded.subagents, '[]'), attempts.subagents)
"""
PUT_NOTE = """
INSERT INTO notes (id, run, at_ms, kind, instance, text) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
MOST_HEARD = 10_000  # posts at once
HEARD = f"""
SELECT key, at_ms, text FROM posts WHERE topic = ? AND key > ? AND run != ? AND expires_ms > ? ORDER BY key
LIMIT {MOST_HEARD}
"""
NEW_POST = "INSERT INTO posts (topic, run, at_ms, expires_ms, text) VALUES (?, ?, ?, ?, ?)"
NEW_HOLD = "INSERT INTO holds (run, instance, tokens, cost_nano, expires_ms, sent_ms) VALUES (?, ?, ?, ?, ?, ?)"
PUT_HOLD = """
INSERT INTO holds (key, run, instance, tokens, cost_nano, expires_ms) VALUES (?, ?, '', ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET tokens = excluded.tokens, cost_nano = excluded.cost_nano,
    expires_ms = excluded.expires_ms
"""
PUT_LIMIT = """
INSERT INTO limits (account, period, unit, most) VALUES (?, ?, ?, ?)
ON CONFLICT (account, period, unit) DO UPDATE SET most = excluded.most
"""
RECORDS = """
SELECT r.id, a.run, a.instance, a.attempt, r.at_ms, r.model, r.input, r.output, r.cache_write, r.cache_read,
    r.cost_nano, r.cost_source, r.source, r.terms, r.write_1h, r.searches
FROM records r JOIN attempts a ON a.key = r.attempt
"""


class Dialect(NamedTuple):
    """Where the SQL of the databases differs: how NULLs are ordered, and the queries that each writes its own way."""

    nulls_first: str
    nulls_last: str
    instances: str


class Holds(NamedTuple):
    """Rows of HOLDS, as they are at a moment."""

    rows: tuple[tuple[str, int, int, int, int | None], ...]
    now_ms: int

    def held(self, *, but: str | None = None) -> Amount:
        """What runs hold, or all but one of them."""
        standing = [row for row in self.rows if row[3] > self.now_ms and row[0] != but]
        return Amount(sum(row[1] for row in standing), sum(row[2] for row in standing))

    def orphaned(self, since_ms: int) -> Amount:
        """What orchestrators that were killed had sent since then: nobody renews its hold, and the API bills it."""
        lapsed = [row for row in self.rows if row[3] <= self.now_ms and row[4] is not None and row[4] >= since_ms]
        return Amount(sum(row[1] for row in lapsed), sum(row[2] for row in lapsed))


def between(since_ms: int, until_ms: int) -> tuple[str, tuple[int, ...]]:
    """A query for the use from a moment up to another: by whole quarters of an hour, and records at the edges."""
    first = -(-max(0, since_ms) // QUARTER_MS) * QUARTER_MS
    last = max(first, until_ms // QUARTER_MS * QUARTER_MS)
    edges = [(since_ms, min(first, until_ms)), (max(last, since_ms), until_ms)]
    sources = [(_QUARTERS, (first, last)), *((_EDGE, edge) for edge in edges if edge[0] < edge[1] < FOREVER_MS)]
    return " UNION ALL ".join(sql for sql, _ in sources), tuple(ms for _, span in sources for ms in span)


def run_row(run: RunRecord) -> tuple[Value, ...]:
    """A run's values for PUT_RUN."""
    about = (run.run, run.machine, run.started_ms, run.ended_ms)
    return (*about, run.mode, run.budgets, run.exit_code, run.account)


def attempt_row(attempt: AttemptRecord) -> tuple[Value, ...]:
    """An attempt's values for PUT_ATTEMPT."""
    about = (attempt.session, attempt.command, attempt.base_command, attempt.model)
    end = (attempt.started_ms, attempt.ended_ms, attempt.outcome, int(attempt.exact))
    return (*attempt.key, *about, *end, *_places(attempt))


def _places(attempt: AttemptRecord) -> tuple[Value, ...]:
    sessions, agents = json.dumps(attempt.other_sessions), json.dumps(attempt.subagents)
    verified = None if attempt.verified is None else int(attempt.verified)
    return (sessions, attempt.workspace, verified, agents)


def record_row(record: UsageRecord) -> tuple[Value, ...]:
    """A usage record's values: its own, and then the three that name its attempt."""
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
