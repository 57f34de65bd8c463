"""The ledger store in one SQLite file.

A record's id is made from its run, instance, attempt and number, so that writing or importing it twice adds nothing.
Holds of running orchestrators stand beside the records and lapse by their lease, so that a crash frees them. A trigger
keeps sums by attempt and by quarters of an hour: years of records are added up in a moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from token_budget.ledger import sqlite_rows as rows
from token_budget.ledger.records import (
    FOREVER_MS,
    IMPORTED,
    AttemptRecord,
    HoldRequest,
    HoldState,
    InstanceRecord,
    Limit,
    NoteRecord,
    Reservation,
    RunRecord,
    UsageRecord,
    UsageSum,
)
from token_budget.ledger.sqlite_file import SqliteFile
from token_budget.ledger.store import HOUR_MS, MAY_RUN_MS, GroupBy
from token_budget.model_weights import TokenWeights, draw
from token_budget.models import Action, Amount, Unit, Usage

_COLUMNS: dict[GroupBy, str] = {
    "command": "a.base_command",
    "model": "r.model",
    "run": "a.run",
    "instance": "a.instance",
    "workspace": "a.workspace",
}


class SqliteLedger:
    """A LedgerStore in a file. Safe with many processes at once; one object is for one thread at a time."""

    def __init__(self, path: Path | str, *, create: bool = True) -> None:
        """Open it. Raises LedgerError where it cannot be opened, is damaged, or belongs to another program."""
        self._file = SqliteFile(path, create=create)
        self.path = self._file.path

    @property
    def name(self) -> str:
        """The file's path."""
        return str(self.path)

    def wait_at_most(self, seconds: float) -> None:
        """Wait no longer than that for other writers, also in a wait that has begun."""
        self._file.busy_s = seconds

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    # -- writing --

    def write(
        self,
        *,
        runs: Iterable[RunRecord] = (),
        attempts: Iterable[AttemptRecord] = (),
        records: Iterable[UsageRecord] = (),
        notes: Iterable[NoteRecord] = (),
        holds: Iterable[HoldState] = (),
    ) -> int:
        """Write all of it in one transaction, durably; returns how many usage records were new.

        A known run or attempt gets its session, model, end and outcome; `usage` and `cost_nano_usd` of attempts come
        from their records alone.
        """
        with self._file.transaction():
            self._file.db.executemany(rows.PUT_RUN, [rows.run_row(run) for run in runs])
            self._file.db.executemany(rows.PUT_ATTEMPT, [rows.attempt_row(attempt) for attempt in attempts])
            new = sum(self._file.db.execute(rows.PUT_RECORD, rows.record_row(record)).rowcount for record in records)
            self._file.db.executemany(
                "INSERT OR IGNORE INTO notes VALUES (?, ?, ?, ?, ?, ?)",
                [(note.id, note.run, note.at_ms, note.kind, note.instance, note.text) for note in notes],
            )
            for hold in holds:
                if hold.expires_ms:  # one that had lapsed while the machine slept stands again
                    values = (hold.key, hold.run, hold.amount.tokens, hold.amount.nano_usd, hold.expires_ms)
                    self._file.db.execute(rows.PUT_HOLD, values)
                else:
                    self._file.db.execute("DELETE FROM holds WHERE key = ?", (hold.key,))
        return new

    def reserve(self, request: HoldRequest, limits: Sequence[Limit], now_ms: int) -> Reservation:
        """Check every limit and hold the amount, in one step for all processes that use this file."""
        with self._file.transaction():
            self._file.db.execute("DELETE FROM holds WHERE expires_ms <= ? AND sent_ms IS NULL", (now_ms,))
            answer = self._judge(request, limits, now_ms)
            if answer.action in (Action.BLOCK, Action.WAIT):
                return answer
            amount = request.amount
            cursor = self._file.db.execute(
                "INSERT INTO holds (run, instance, tokens, cost_nano, expires_ms, sent_ms) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    *(request.run, request.instance, amount.tokens, amount.nano_usd),
                    *(now_ms + request.lease_ms, now_ms if request.sent else None),
                ),
            )
            return answer._replace(hold=cursor.lastrowid)

    def _judge(self, request: HoldRequest, limits: Sequence[Limit], now_ms: int) -> Reservation:
        elsewhere = self.held_by_others(request.run, now_ms)
        held = Amount(*self._file.row(f"SELECT {rows.HELD} FROM holds WHERE expires_ms > ?", (now_ms,)))
        answer = Reservation(Action.ALLOW)
        for index, limit in enumerate(limits):
            used, wanted = self._used(limit, request.weights, now_ms), request.amount.of(limit.unit)
            figures = used, held.of(limit.unit), elsewhere.of(limit.unit)
            if used + held.of(limit.unit) + wanted <= limit.limit:
                continue
            never = used + wanted > limit.limit
            if request.enforce:
                return Reservation(Action.BLOCK if never else Action.WAIT, None, index, *figures)
            if never and answer.action is Action.ALLOW:
                answer = Reservation(Action.WARN, None, index, *figures)
        return answer

    def claim_alerts(self, keys: Iterable[str], run: str, at_ms: int) -> set[str]:
        """Claim alerts, each of which one run can have; returns the keys that nobody had claimed."""
        new = set()
        with self._file.transaction():
            for key in keys:
                if self._file.db.execute("INSERT OR IGNORE INTO alerts VALUES (?, ?, ?)", (key, run, at_ms)).rowcount:
                    new.add(key)
        return new

    def claim_launch(self, most: int, run: str, now_ms: int) -> int:
        """Claim one of `most` launches in an hour; returns 0, or the milliseconds until one is free again."""
        with self._file.transaction():
            execute = self._file.db.execute
            # one of the future is left from a clock that was wrong
            execute("DELETE FROM launches WHERE at_ms <= ? OR at_ms > ?", (now_ms - HOUR_MS, now_ms + HOUR_MS))
            found = execute("SELECT at_ms FROM launches ORDER BY at_ms DESC LIMIT 1 OFFSET ?", (most - 1,)).fetchone()
            if found is not None:
                return max(1, int(found[0]) + HOUR_MS - now_ms)
            execute("INSERT INTO launches (run, at_ms) VALUES (?, ?)", (run, now_ms))
        return 0

    def release_run(self, run: str) -> None:
        """Release whatever an earlier orchestrator of this run held."""
        with self._file.transaction():
            self._file.db.execute("DELETE FROM holds WHERE run = ?", (run,))

    def prunable(self, before_ms: int, now_ms: int) -> tuple[int, int]:
        """How many attempts `prune` would delete, and the tokens that they used."""
        counts = "count(*), coalesce(sum(input + output + cache_write + cache_read), 0)"
        row = self._file.row(f"SELECT {counts} FROM attempts WHERE {rows.OLD}", (before_ms, now_ms - MAY_RUN_MS))
        return row[0], row[1]

    def prune(self, before_ms: int, now_ms: int) -> int:
        """Delete what ended before a moment; returns how many usage records that were."""
        old, moments = f"SELECT key FROM attempts WHERE {rows.OLD}", (before_ms, now_ms - MAY_RUN_MS)
        with self._file.transaction():
            db = self._file.db
            gone = db.execute(f"DELETE FROM records WHERE attempt IN ({old})", moments).rowcount
            db.execute(f"DELETE FROM quarters WHERE attempt IN ({old})", moments)
            db.execute(f"DELETE FROM attempts WHERE {rows.OLD}", moments)
            db.execute(f"DELETE FROM runs WHERE {rows.OLD} AND run NOT IN (SELECT run FROM attempts)", moments)
            db.execute("DELETE FROM notes WHERE at_ms < ? AND run NOT IN (SELECT run FROM runs)", (before_ms,))
            db.execute("DELETE FROM alerts WHERE at_ms < ?", (before_ms,))
            db.execute("DELETE FROM holds WHERE sent_ms < ? AND expires_ms <= ?", (before_ms, now_ms))
        return gone

    # -- reading --

    def used(self, limits: Sequence[Limit], weights: TokenWeights, now_ms: int) -> list[int]:
        """What all runs have used since each limit's beginning, in its unit, with what crashed runs had sent."""
        return [self._used(limit, weights, now_ms) for limit in limits]

    def held_by_others(self, run: str, now_ms: int) -> Amount:
        """What other runs hold now."""
        row = self._file.row(f"SELECT {rows.HELD} FROM holds WHERE run != ? AND expires_ms > ?", (run, now_ms))
        return Amount(*row)

    def _used(self, limit: Limit, weights: TokenWeights, now_ms: int) -> int:
        source, values = rows.between(limit.since_ms, FOREVER_MS)
        if limit.unit is Unit.USD:
            used = self._file.row(f"SELECT sum(cost_nano) FROM ({source})", values)[0] or 0
        else:
            found = self._file.rows(f"SELECT model, {rows.COUNTS} FROM ({source}) GROUP BY model", values)
            by_model = {row[0]: rows.read_usage(row[1:]) for row in found}
            used = draw(weights, sum(by_model.values(), Usage()), by_model)
        orphaned = Amount(*self._file.row(rows.ORPHANED, (limit.since_ms, now_ms)))
        return used + orphaned.of(limit.unit)

    def totals(self, run: str) -> dict[tuple[str, int, str], tuple[Usage, int | None, int]]:
        """What is recorded of a run, by instance, attempt and model: usage, cost, number of records."""
        found = self._file.rows(
            f"SELECT a.instance, a.attempt, r.model, {rows.COUNTS_OF_R}, sum(r.cost_nano), count(*) FROM records r"
            " JOIN attempts a ON a.key = r.attempt WHERE a.run = ? GROUP BY 1, 2, 3",
            (run,),
        )
        return {(row[0], row[1], row[2]): (rows.read_usage(row[3:7]), row[7], row[8]) for row in found}

    def sums(
        self, *by: GroupBy, since_ms: int = 0, until_ms: int = FOREVER_MS, by_time: bool = False
    ) -> list[UsageSum]:
        """What was used from a moment up to another, in groups, and with `by_time` by quarters of an hour."""
        columns = ["r.start_ms" if by_time else "NULL", *(_COLUMNS[name] for name in by)]
        places = ", ".join(str(number) for number in range(1, len(columns) + 1))
        source, values = rows.between(since_ms, until_ms)
        found = self._file.rows(
            f"SELECT {', '.join(columns)}, {rows.COUNTS_OF_R}, sum(r.cost_nano), {rows.UNPRICED} FROM ({source}) r"
            f" JOIN attempts a ON a.key = r.attempt GROUP BY {places} ORDER BY {places}",
            values,
        )
        end = len(columns)
        return [
            UsageSum(row[0], tuple(row[1:end]), rows.read_usage(row[end : end + 4]), row[end + 4], row[end + 5])
            for row in found
        ]

    def runs(self, *, since_ms: int = 0, run: str | None = None) -> list[RunRecord]:
        """Runs by their start, or the one that is named."""
        found = self._file.rows(
            "SELECT run, machine, started_ms, ended_ms, mode, budgets, exit_code FROM runs"
            " WHERE started_ms >= ? AND (? IS NULL OR run = ?) ORDER BY started_ms, run",
            (since_ms, run, run),
        )
        return [RunRecord(*row) for row in found]

    def attempts(
        self,
        *,
        run: str | None = None,
        base_command: str | None = None,
        instance: str | None = None,
        since_ms: int = 0,
        latest: int = -1,
        imported: bool = True,
    ) -> list[AttemptRecord]:
        """Attempts by their start, at most the `latest` of those that ended last."""
        wanted = {
            "run = ?": run,
            "base_command = ?": base_command,
            "instance = ?": instance,
            "coalesce(ended_ms, started_ms) >= ?": since_ms or None,
            "outcome IS NOT ?": None if imported else IMPORTED,
        }
        asked = {condition: value for condition, value in wanted.items() if value is not None}
        return self._attempts(asked, latest)

    def attempts_of_group(self, group: str, *, latest: int = -1) -> list[AttemptRecord]:
        """Attempts of the instances named `GROUP[…]` that an orchestrator ran."""
        after = chr(ord("[") + 1)
        return self._attempts(
            {"instance >= ?": f"{group}[", "instance < ?": f"{group}{after}", "outcome IS NOT ?": IMPORTED}, latest
        )

    def _attempts(self, asked: Mapping[str, str | int], latest: int) -> list[AttemptRecord]:
        found = self._file.rows(
            "SELECT run, instance, attempt, started_ms, session, command, base_command, model, ended_ms, outcome,"
            f" exact, input, output, cache_write, cache_read, cost_nano, other_sessions, workspace, verified,"
            " subagents"
            f" FROM attempts WHERE {' AND '.join(asked) or 'true'} ORDER BY ended_ms DESC LIMIT ?",
            (*asked.values(), latest),
        )
        attempts = [rows.read_attempt(*row) for row in found]
        return sorted(attempts, key=lambda attempt: (attempt.started_ms, attempt.instance, attempt.attempt))

    def instances(self, *, since_ms: int = 0, until_ms: int = FOREVER_MS) -> list[InstanceRecord]:
        """The instances that orchestrators ran, by the moment at which each ended, from a moment up to another."""
        # of a group with max() SQLite takes the other columns from that row: https://www.sqlite.org/lang_select.html
        found = self._file.rows(
            "SELECT run, instance, base_command, model, workspace, outcome, coalesce(ended_ms, started_ms) AS at_ms,"
            " sum(input + output + cache_write + cache_read), verified, max(attempt) FROM attempts"
            " WHERE outcome IS NOT ? GROUP BY run, instance HAVING at_ms >= ? AND at_ms < ?"
            " ORDER BY at_ms, run, instance",
            (IMPORTED, since_ms, until_ms),
        )
        return [InstanceRecord(*(*row[:8], rows.read_flag(row[8]))) for row in found]

    def costs_of_checked(self) -> dict[tuple[str, str], int]:
        """What each instance with a check has cost in all its attempts, in nano-dollars, by run and name."""
        found = self._file.rows(
            "SELECT a.run, a.instance, sum(r.cost_nano) FROM attempts a JOIN records r ON r.attempt = a.key"
            " WHERE (a.run, a.instance) IN (SELECT run, instance FROM attempts WHERE verified IS NOT NULL)"
            " AND r.cost_nano IS NOT NULL GROUP BY a.run, a.instance"
        )
        return {(run, instance): nano_usd for run, instance, nano_usd in found}

    def records(self, *, run: str | None = None) -> Iterator[UsageRecord]:
        """Records by time, of one run or of all."""
        found = self._file.rows(
            "SELECT r.id, a.run, a.instance, a.attempt, r.at_ms, r.model, r.input, r.output, r.cache_write,"
            " r.cache_read, r.cost_nano, r.cost_source, r.source, r.terms, r.write_1h, r.searches"
            " FROM records r JOIN attempts a ON a.key = r.attempt"
            " WHERE ? IS NULL OR a.run = ? ORDER BY r.at_ms, r.id",
            (run, run),
        )
        for row in found:
            yield rows.read_record(*row)

    def notes(self, *, run: str | None = None) -> list[NoteRecord]:
        """Notes by time, of one run or of all."""
        found = self._file.rows(
            "SELECT id, run, at_ms, kind, text, instance FROM notes WHERE ? IS NULL OR run = ? ORDER BY at_ms, id",
            (run, run),
        )
        return [NoteRecord(*row) for row in found]

    def alerts_sent(self) -> set[str]:
        """The keys of all alerts that were ever claimed."""
        return {row[0] for row in self._file.rows("SELECT key FROM alerts")}
