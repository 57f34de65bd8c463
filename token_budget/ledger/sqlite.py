"""An append-only ledger of what was used, across runs and orchestrators: SQLite in WAL mode, one file.

A record is what one model has used for one attempt at an instance since the attempt's record before; its id is made
from those, so that writing or importing it twice adds nothing. Holds of running orchestrators stand beside the
records and lapse by their lease, so that a crash frees them. Sums by attempt and by quarters of an hour are kept up to
date beside the records: years of them are added up in a moment. All times are milliseconds since 1970 in UTC.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from token_budget.ledger.records import FOREVER_MS, IMPORTED, Answer, Attempt, Instance, Limit, Note, Record, Run, Sum
from token_budget.ledger.schema import APPLICATION_ID, MIGRATIONS, QUARTER_MS, statements
from token_budget.models import Action, Amount, Unit, Usage, Weights

BUSY_S = 60.0  # for a writer to wait for others
BUSY_AGAIN_S = 0.01
MAY_RUN_MS = 7 * 86_400_000  # what has no end after that had none


_PLACE_FAULTS = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)


class LedgerError(Exception):
    """The ledger cannot be used; the message says why and what to do."""


class LedgerUnwritable(LedgerError):
    """The ledger is sound, but its place does not take it: full, read-only, no permission, locked."""


class Ledger:
    """A ledger file. Safe with many processes at once; one object is for one thread at a time."""

    def __init__(self, path: Path | str, *, create: bool = True) -> None:
        """Open it. Raises LedgerError where it cannot be opened, is damaged, or was made by something else."""
        self.path = Path(path)
        if not create and not self.path.exists():
            raise LedgerError(f"{self.path}: no ledger there yet: it begins with the first run")
        try:
            if create:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self.path.touch(mode=0o600, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise LedgerUnwritable(f"{self.path}: cannot be opened: {_why(error)}") from None
        try:
            self._prepare_with_others()
        except sqlite3.Error as error:
            self._db.close()
            raise self._fault(error, "read") from None
        except LedgerError:
            self._db.close()
            raise

    def _prepare_with_others(self) -> None:
        """Several may make it at once, and SQLite does not wait by itself for one that turns WAL on."""
        until = time.monotonic() + BUSY_S
        while True:
            try:
                self._prepare()
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
                self._roll_back()
                time.sleep(BUSY_AGAIN_S)

    def _prepare(self) -> None:
        self._db.execute("BEGIN")  # one moment for all that is asked: another may be making it
        application, version = self._pragma("application_id"), self._pragma("user_version")
        tables = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        self._db.execute("COMMIT")
        if application != APPLICATION_ID and (tables or application):
            raise LedgerError(f"{self.path}: is a database of another program: name another file with --ledger")
        if version > len(MIGRATIONS):
            raise LedgerError(f"{self.path}: was written by a newer version of this program (schema {version})")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA foreign_keys = ON")
        if version < len(MIGRATIONS):
            with self._transaction():
                for number in range(self._pragma("user_version"), len(MIGRATIONS)):  # another may have been first
                    for statement in statements(MIGRATIONS[number]):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version = {number + 1}")
                self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    def _pragma(self, name: str) -> int:
        value: int = self._db.execute(f"PRAGMA {name}").fetchone()[0]
        return value

    def _fault(self, error: sqlite3.Error, done: str) -> LedgerError:
        # an extended result code has the primary one in its low byte: https://www.sqlite.org/rescode.html
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _PLACE_FAULTS:
            return LedgerUnwritable(f"{self.path}: cannot be {done}: {error}")
        return LedgerError(
            f"{self.path}: cannot be {done} ({error}): nothing was changed; move it away to begin a new one, recover "
            f"it with sqlite3's .recover, or run with --ledger off"
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of it or nothing, durably. Raises LedgerError where it cannot be written."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            self._roll_back()
            if isinstance(error, sqlite3.Error):
                raise self._fault(error, "written") from None
            if isinstance(error, OverflowError | UnicodeError):  # what SQLite has no place for
                raise LedgerError(f"{self.path}: cannot be written: {error}") from None
            raise

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # SQLite may have done so already
            self._db.execute("ROLLBACK")

    def _rows(self, sql: str, values: Sequence[str | int | None] = ()) -> Iterator[Any]:
        """The rows of a question, as they are read. Raises LedgerError where it cannot be read."""
        try:
            yield from self._db.execute(sql, values)
        except sqlite3.Error as error:
            raise self._fault(error, "read") from None

    def _row(self, sql: str, values: Sequence[str | int | None] = ()) -> Any:
        """The row of a question that has just one."""
        (row,) = self._rows(sql, values)
        return row

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # -- writing --

    def write(
        self,
        *,
        runs: Iterable[Run] = (),
        attempts: Iterable[Attempt] = (),
        records: Iterable[Record] = (),
        notes: Iterable[Note] = (),
        holds: Iterable[tuple[int, str, int, int, int]] = (),
    ) -> int:
        """Write all of it in one transaction, durably; returns how many records were new.

        Runs and attempts that are there already get their session, model, end and outcome; `usage` and `cost_nano` of
        attempts come from their records alone. Holds are (key, run, tokens, cost_nano, expires_ms): what is left of
        each; one that expires at 0 is taken away.
        """
        with self._transaction():
            self._db.executemany(_PUT_RUN, [_run_row(run) for run in runs])
            self._db.executemany(_PUT_ATTEMPT, [_attempt_row(attempt) for attempt in attempts])
            new = sum(self._db.execute(_PUT_RECORD, _record_row(record)).rowcount for record in records)
            self._db.executemany(
                "INSERT OR IGNORE INTO notes VALUES (?, ?, ?, ?, ?, ?)",
                [(note.id, note.run, note.at_ms, note.kind, note.instance, note.text) for note in notes],
            )
            for key, run, *amounts, expires_ms in holds:
                if expires_ms:  # one that had lapsed meanwhile (the machine slept) stands again
                    self._db.execute(_PUT_HOLD, (key, run, *amounts, expires_ms))
                else:
                    self._db.execute("DELETE FROM holds WHERE key = ?", (key,))
        return new

    def reserve(
        self,
        run: str,
        instance: str,
        amount: Amount,
        limits: Sequence[Limit],
        *,
        weights: Weights,
        now_ms: int,
        lease_ms: int,
        enforce: bool,
    ) -> Answer:
        """Hold so much against every limit, in one step for all processes that use this ledger.

        With `enforce`, what can never fit is a BLOCK and what only others' holds keep out a WAIT; without it all is
        held, and a WARN tells of the first that does not fit.
        """
        with self._transaction():
            self._db.execute("DELETE FROM holds WHERE expires_ms <= ?", (now_ms,))
            elsewhere = self.held_by_others(run, now_ms)
            held = Amount(*self._row(f"SELECT {_HELD} FROM holds"))
            answer = Answer(Action.ALLOW)
            for place, limit in enumerate(limits):
                used = self._used(limit, weights)
                wanted, held_by_all = amount.of(limit.unit), held.of(limit.unit)
                figures = used, held_by_all, elsewhere.of(limit.unit)
                if used + held_by_all + wanted <= limit.limit:
                    continue
                never = used + wanted > limit.limit
                if enforce:
                    return Answer(Action.BLOCK if never else Action.WAIT, None, place, *figures)
                if never and answer.action is Action.ALLOW:
                    answer = Answer(Action.WARN, None, place, *figures)
            cursor = self._db.execute(
                "INSERT INTO holds (run, instance, tokens, cost_nano, expires_ms) VALUES (?, ?, ?, ?, ?)",
                (run, instance, amount.tokens, amount.nano_usd, now_ms + lease_ms),
            )
            return replace(answer, hold=cursor.lastrowid)

    def claim_alerts(self, keys: Iterable[str], run: str, at_ms: int) -> set[str]:
        """Those of the keys that nobody had claimed: of many processes one sends an alert."""
        new = set()
        with self._transaction():
            for key in keys:
                if self._db.execute("INSERT OR IGNORE INTO alerts VALUES (?, ?, ?)", (key, run, at_ms)).rowcount:
                    new.add(key)
        return new

    def release_run(self, run: str) -> None:
        """Take away what an earlier orchestrator of this run held."""
        with self._transaction():
            self._db.execute("DELETE FROM holds WHERE run = ?", (run,))

    def old(self, before_ms: int, now_ms: int) -> tuple[int, int]:
        """How many attempts `prune` would take away, and the tokens that they used."""
        counts = "count(*), coalesce(sum(input + output + cache_write + cache_read), 0)"
        row = self._row(f"SELECT {counts} FROM attempts WHERE {_OLD}", (before_ms, now_ms - MAY_RUN_MS))
        return row[0], row[1]

    def prune(self, before_ms: int, now_ms: int) -> int:
        """Take away what ended before a moment; returns how many records went.

        What has no end is old where it began before that moment, and more than a week ago: it does not run any more.
        """
        old, moments = f"SELECT key FROM attempts WHERE {_OLD}", (before_ms, now_ms - MAY_RUN_MS)
        with self._transaction():
            gone = self._db.execute(f"DELETE FROM records WHERE attempt IN ({old})", moments).rowcount
            self._db.execute(f"DELETE FROM quarters WHERE attempt IN ({old})", moments)
            self._db.execute(f"DELETE FROM attempts WHERE {_OLD}", moments)
            self._db.execute(f"DELETE FROM runs WHERE {_OLD} AND run NOT IN (SELECT run FROM attempts)", moments)
            self._db.execute("DELETE FROM notes WHERE at_ms < ? AND run NOT IN (SELECT run FROM runs)", (before_ms,))
            self._db.execute("DELETE FROM alerts WHERE at_ms < ?", (before_ms,))
        return gone

    # -- reading --

    def used(self, limits: Sequence[Limit], weights: Weights) -> list[int]:
        """What all runs have drawn (or spent) since the beginning of each limit."""
        return [self._used(limit, weights) for limit in limits]

    def held_by_others(self, run: str, now_ms: int) -> Amount:
        """What other runs hold now."""
        return Amount(*self._row(f"SELECT {_HELD} FROM holds WHERE run != ? AND expires_ms > ?", (run, now_ms)))

    def _used(self, limit: Limit, weights: Weights) -> int:
        source, values = _between(limit.since_ms, FOREVER_MS)
        row = self._row(f"SELECT {_COUNTS}, sum(cost_nano) FROM ({source})", values)
        return row[4] or 0 if limit.unit is Unit.USD else weights.draw(_usage(row[:4]))

    def totals(self, run: str) -> dict[tuple[str, int, str], tuple[Usage, int | None, int]]:
        """What is recorded of a run, by instance, attempt and model: usage, cost, number of records."""
        rows = self._rows(
            f"SELECT a.instance, a.attempt, r.model, {_COUNTS_OF_R}, sum(r.cost_nano), count(*) FROM records r"
            " JOIN attempts a ON a.key = r.attempt WHERE a.run = ? GROUP BY 1, 2, 3",
            (run,),
        )
        return {(row[0], row[1], row[2]): (_usage(row[3:7]), row[7], row[8]) for row in rows}

    def sums(
        self, by: str | None = None, *, since_ms: int = 0, until_ms: int = FOREVER_MS, by_time: bool = False
    ) -> list[Sum]:
        """What was used, grouped by `command`, `model`, `run` or nothing, and with `by_time` by quarters of an hour."""
        column = {None: "NULL", "command": "a.base_command", "model": "r.model", "run": "a.run"}[by]
        quarter = "r.start_ms" if by_time else "NULL"
        unpriced = (
            "sum(CASE WHEN a.cost_nano IS NULL THEN r.input + r.output + r.cache_write + r.cache_read ELSE 0 END)"
        )
        source, values = _between(since_ms, until_ms)
        rows = self._rows(
            f"SELECT {quarter}, {column}, {_COUNTS_OF_R}, sum(r.cost_nano), {unpriced} FROM ({source}) r"
            " JOIN attempts a ON a.key = r.attempt GROUP BY 1, 2 ORDER BY 1, 2",
            values,
        )
        return [Sum(row[0], row[1], _usage(row[2:6]), row[6], row[7]) for row in rows]

    def runs(self, *, since_ms: int = 0, run: str | None = None) -> list[Run]:
        """Runs by their start; `run`: that one alone."""
        rows = self._rows(
            "SELECT run, machine, started_ms, ended_ms, mode, budgets, exit_code FROM runs"
            " WHERE started_ms >= ? AND (? IS NULL OR run = ?) ORDER BY started_ms, run",
            (since_ms, run, run),
        )
        return [Run(*row) for row in rows]

    def attempts(
        self,
        *,
        run: str | None = None,
        base_command: str | None = None,
        since_ms: int = 0,
        latest: int = -1,
        imported: bool = True,
    ) -> list[Attempt]:
        """Attempts by their start, at most the `latest` of those that ended last; of one run or base command; without
        `imported`, those that orchestrators ran."""
        wanted = {
            "run = ?": run,
            "base_command = ?": base_command,
            "coalesce(ended_ms, started_ms) >= ?": since_ms or None,
            "outcome IS NOT ?": None if imported else IMPORTED,
        }
        asked = {condition: value for condition, value in wanted.items() if value is not None}
        rows = self._rows(
            "SELECT run, instance, attempt, started_ms, session, command, base_command, model, ended_ms, outcome,"
            f" exact, input, output, cache_write, cache_read, cost_nano FROM attempts"
            f" WHERE {' AND '.join(asked) or 'true'} ORDER BY ended_ms DESC LIMIT ?",
            (*asked.values(), latest),
        )
        found = [_attempt(*row) for row in rows]
        return sorted(found, key=lambda attempt: (attempt.started_ms, attempt.instance, attempt.attempt))

    def instances(self, *, since_ms: int = 0, until_ms: int = FOREVER_MS) -> list[Instance]:
        """The instances that orchestrators ran, by the moment in which each ended, from a moment up to another."""
        # of a group with max() SQLite takes the other columns from that row: https://www.sqlite.org/lang_select.html
        rows = self._rows(
            "SELECT run, base_command, model, outcome, coalesce(ended_ms, started_ms) AS at_ms,"
            " sum(input + output + cache_write + cache_read), max(attempt) FROM attempts WHERE outcome IS NOT ?"
            " GROUP BY run, instance HAVING at_ms >= ? AND at_ms < ? ORDER BY at_ms, run, instance",
            (IMPORTED, since_ms, until_ms),
        )
        return [Instance(*row[:6]) for row in rows]

    def records(self, *, run: str | None = None) -> Iterator[Record]:
        """Records by time, of one run or of all."""
        rows = self._rows(
            "SELECT r.id, a.run, a.instance, a.attempt, r.at_ms, r.model, r.input, r.output, r.cache_write,"
            " r.cache_read, r.cost_nano, r.cost_source FROM records r JOIN attempts a ON a.key = r.attempt"
            " WHERE ? IS NULL OR a.run = ? ORDER BY r.at_ms, r.id",
            (run, run),
        )
        for row in rows:
            yield _record(*row)

    def notes(self, *, run: str | None = None) -> list[Note]:
        """Notes by time, of one run or of all."""
        rows = self._rows(
            "SELECT id, run, at_ms, kind, text, instance FROM notes WHERE ? IS NULL OR run = ? ORDER BY at_ms, id",
            (run, run),
        )
        return [Note(*row) for row in rows]

    def alerts_sent(self) -> set[str]:
        """The keys of all alerts that were ever sent."""
        return {row[0] for row in self._rows("SELECT key FROM alerts")}


_OLD = "coalesce(ended_ms, started_ms) < ? AND (ended_ms IS NOT NULL OR started_ms < ?)"
_HELD = "coalesce(sum(tokens), 0), coalesce(sum(cost_nano), 0)"
_USE = "attempt, model, input, output, cache_write, cache_read, cost_nano"
_QUARTERS = f"SELECT start_ms, {_USE} FROM quarters WHERE start_ms >= ? AND start_ms < ?"
_EDGE = f"SELECT at_ms / {QUARTER_MS} * {QUARTER_MS}, {_USE} FROM records WHERE at_ms >= ? AND at_ms < ?"
_COUNTS = "sum(input), sum(output), sum(cache_write), sum(cache_read)"
_COUNTS_OF_R = "sum(r.input), sum(r.output), sum(r.cache_write), sum(r.cache_read)"
_PUT_RUN = """
INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run) DO UPDATE SET ended_ms = coalesce(excluded.ended_ms, ended_ms), mode = excluded.mode,
    budgets = excluded.budgets, exit_code = coalesce(excluded.exit_code, exit_code)
"""
_PUT_ATTEMPT = """
INSERT INTO attempts
    (run, instance, attempt, session, command, base_command, model, started_ms, ended_ms, outcome, exact)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run, instance, attempt) DO UPDATE SET session = coalesce(excluded.session, session),
    model = coalesce(excluded.model, model), ended_ms = coalesce(excluded.ended_ms, ended_ms),
    outcome = coalesce(excluded.outcome, outcome), exact = excluded.exact
"""
_PUT_HOLD = """
INSERT INTO holds (key, run, instance, tokens, cost_nano, expires_ms) VALUES (?, ?, '', ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET tokens = excluded.tokens, cost_nano = excluded.cost_nano,
    expires_ms = excluded.expires_ms
"""
_PUT_RECORD = """
INSERT INTO records
SELECT ?, key, ?, ?, ?, ?, ?, ?, ?, ? FROM attempts WHERE run = ? AND instance = ? AND attempt = ?
ON CONFLICT DO NOTHING
"""


def _between(since_ms: int, until_ms: int) -> tuple[str, tuple[int, ...]]:
    """A question for the use from a moment up to another: by whole quarters of an hour, and records at the edges."""
    first = -(-max(0, since_ms) // QUARTER_MS) * QUARTER_MS
    last = max(first, until_ms // QUARTER_MS * QUARTER_MS)
    edges = [(since_ms, min(first, until_ms)), (max(last, since_ms), until_ms)]
    sources = [(_QUARTERS, (first, last)), *((_EDGE, edge) for edge in edges if edge[0] < edge[1] < FOREVER_MS)]
    return " UNION ALL ".join(sql for sql, _ in sources), tuple(ms for _, span in sources for ms in span)


def _run_row(run: Run) -> tuple[str | int | None, ...]:
    return (run.run, run.machine, run.started_ms, run.ended_ms, run.mode, run.budgets, run.exit_code)


def _attempt_row(attempt: Attempt) -> tuple[str | int | None, ...]:
    of = (attempt.session, attempt.command, attempt.base_command, attempt.model)
    return (*attempt.key, *of, attempt.started_ms, attempt.ended_ms, attempt.outcome, int(attempt.exact))


def _record_row(record: Record) -> tuple[str | int | None, ...]:
    usage, cost = record.usage, (record.cost_nano, record.cost_source)
    counts = (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_creation_input_tokens,
        usage.cache_read_input_tokens,
    )
    return (record.id, record.at_ms, record.model, *counts, *cost, record.run, record.instance, record.attempt)


def _attempt(*row: Any) -> Attempt:
    return Attempt(*row[:10], **{"exact": bool(row[10]), "usage": _usage(row[11:15]), "cost_nano": row[15]})


def _record(*row: Any) -> Record:
    return Record(*row[:6], **{"usage": _usage(row[6:10]), "cost_nano": row[10], "cost_source": row[11]})


def _usage(row: Sequence[int | None]) -> Usage:
    return Usage(*(count or 0 for count in row))


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
