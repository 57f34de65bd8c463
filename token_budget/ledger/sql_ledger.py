"""The ledger store in SQL, whatever database it is in.

A record's id is made from its run, instance, attempt and number, so that writing or importing it twice adds nothing.
Holds of running orchestrators stand beside the records and lapse by their lease, so that a crash frees them. A trigger
keeps sums by attempt and by quarters of an hour: years of records are added up in a moment.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from token_budget.ledger import sql_rows as rows
from token_budget.ledger.records import (
    FOREVER_MS,
    HOUR_MS,
    IMPORTED,
    MAY_RUN_MS,
    UTC_ZONE,
    AccountLimit,
    AccountRecord,
    AttemptRecord,
    Heard,
    HoldRequest,
    HoldState,
    InstanceRecord,
    Limit,
    NoteRecord,
    Post,
    Posted,
    Reservation,
    RunRecord,
    Shared,
    UsageRecord,
    UsageSum,
)
from token_budget.model_weights import TokenWeights, draw
from token_budget.models import Action, Unit, Usage
from token_budget.windows import Window

if TYPE_CHECKING:
    from token_budget.ledger.database import Database
    from token_budget.ledger.store import GroupBy

PAGE = 10_000  # records in one query
FORGET_EVERY = 64  # posts
_COLUMNS: dict[GroupBy, str] = {
    "command": "a.base_command",
    "model": "r.model",
    "run": "a.run",
    "instance": "a.instance",
    "workspace": "a.workspace",
}


class SqlLedger:
    """A LedgerStore in a database. One object is for one thread at a time."""

    def __init__(self, database: Database) -> None:
        self._db = database

    @property
    def name(self) -> str:
        """What messages call it: its file or address."""
        return self._db.name

    def now_ms(self, now_ms: int) -> int:
        """The time that this ledger judges by: its server's, or the caller's where it has no server."""
        return self._db.now_ms(now_ms)

    def wait_at_most(self, seconds: float) -> None:
        """Wait no longer than that for other writers or a server, also in a wait that has begun."""
        self._db.wait_at_most(seconds)

    def close(self) -> None:
        """Close the file, or disconnect from the server."""
        self._db.close()

    # -- writing --

    def write(
        self,
        *,
        runs: Iterable[RunRecord] = (),
        attempts: Iterable[AttemptRecord] = (),
        records: Iterable[UsageRecord] = (),
        notes: Iterable[NoteRecord] = (),
        holds: Collection[HoldState] = (),
        now_ms: int = 0,
    ) -> int:
        """Write all of it in one transaction, durably; returns how many usage records were new.

        A known run or attempt gets its session, model, end and outcome; `usage` and `cost_nano_usd` of attempts come
        from their records alone.
        """
        with self._db.transaction({hold.account for hold in holds}):
            now_ms = self._db.now_ms(now_ms) if holds else 0
            self._db.execute_many(rows.PUT_RUN, map(rows.run_row, runs))
            self._db.execute_many(rows.PUT_ATTEMPT, map(rows.attempt_row, attempts))
            new = self._db.insert_records(records)
            values = [(note.id, note.run, note.at_ms, note.kind, note.instance, note.text) for note in notes]
            self._db.execute_many(rows.PUT_NOTE, values)
            if holds:
                self._db.execute("DELETE FROM holds WHERE expires_ms <= ? AND sent_ms IS NULL", (now_ms,))
            kept = [hold for hold in holds if hold.lease_ms]
            amounts = [(hold.key, hold.run, *hold.amount, now_ms + hold.lease_ms) for hold in kept]
            self._db.execute_many(rows.PUT_HOLD, amounts)  # one that had lapsed while the machine slept stands again
            self._db.execute_many(
                "DELETE FROM holds WHERE key = ?", [(hold.key,) for hold in holds if not hold.lease_ms]
            )
        return new

    def reserve(self, request: HoldRequest, limits: Sequence[Limit], now_ms: int) -> Reservation:
        """Check every limit and hold the amount, in one atomic step."""
        with self._db.transaction([request.account], alone=bool(limits)):
            now_ms = self._db.now_ms(now_ms)
            answer = self._judge(request, limits, now_ms)
            if answer.action in (Action.BLOCK, Action.WAIT):
                return answer
            values = (request.run, request.instance, *request.amount, now_ms + request.lease_ms)
            key = self._db.insert_keyed(rows.NEW_HOLD, (*values, now_ms if request.sent else None))
            return answer._replace(hold=key)

    def _judge(self, request: HoldRequest, limits: Sequence[Limit], now_ms: int) -> Reservation:
        holds = self._holds(limits, now_ms, request.account)
        held, elsewhere = holds.held(), holds.held(but=request.run)
        answer = Reservation(Action.ALLOW)
        for index, limit in enumerate(limits):
            used = self._used(limit, request.weights, holds, request.account)
            wanted = request.amount.of(limit.unit)
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
        """Claim alerts. Only one run can claim each. Returns the keys that nobody had claimed."""
        put = "INSERT INTO alerts (key, run, at_ms) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
        with self._db.transaction():
            return {key for key in sorted(keys) if self._db.execute(put, (key, run, at_ms))}

    def claim_launch(self, most: int, run: str, now_ms: int) -> int:
        """Claim one of `most` launches in an hour; returns 0, or the milliseconds until one is free again."""
        with self._db.transaction([""], alone=True):
            now_ms = self._db.now_ms(now_ms)
            # one of the future is left from a clock that was wrong
            gone = (now_ms - HOUR_MS, now_ms + HOUR_MS)
            self._db.execute("DELETE FROM launches WHERE at_ms <= ? OR at_ms > ?", gone)
            latest = "SELECT at_ms FROM launches ORDER BY at_ms DESC LIMIT 1 OFFSET ?"
            found = next(iter([*self._db.rows(latest, (most - 1,))]), None)
            if found is not None:
                return max(1, int(found[0]) + HOUR_MS - now_ms)
            self._db.execute("INSERT INTO launches (run, at_ms) VALUES (?, ?)", (run, now_ms))
        return 0

    def post(self, post: Post, seen: int | None) -> Posted:
        """Tell other runs something about a topic; with `seen`, only if none of them has posted since."""
        with self._db.transaction([f"posts on {post.topic}"], alone=True, durable=False):
            now_ms = self._db.now_ms(post.at_ms)
            if seen is not None:
                found = [*self._db.rows(rows.HEARD, (post.topic, seen, post.run, now_ms))]
                if found:
                    return Posted(found[-1][0], tuple(Heard(max(0, now_ms - at_ms), text) for _, at_ms, text in found))
            values = (post.topic, post.run, now_ms, now_ms + post.lifetime_ms, post.text)
            key = self._db.insert_keyed(rows.NEW_POST, values)
            if key % FORGET_EVERY == 0:  # it looks at all posts on the topic
                self._db.execute("DELETE FROM posts WHERE topic = ? AND expires_ms <= ?", (post.topic, now_ms))
            return Posted(key)

    def forget_posts(self, now_ms: int) -> None:
        """Delete the posts that have expired."""
        with self._db.transaction([""], alone=True):
            self._db.execute("DELETE FROM posts WHERE expires_ms <= ?", (self._db.now_ms(now_ms),))

    def release_run(self, run: str, *, keep: Collection[int] = ()) -> None:
        """Release whatever a run holds, except the holds to keep."""
        with self._db.transaction():
            held = [key for (key,) in self._db.rows("SELECT key FROM holds WHERE run = ?", (run,)) if key not in keep]
            self._db.execute_many("DELETE FROM holds WHERE key = ?", [(key,) for key in held])

    def prunable(self, before_ms: int, now_ms: int) -> tuple[int, int]:
        """How many attempts `prune` would delete, and the tokens that they used."""
        counts = f"count(*), coalesce(sum({rows.TOKENS}), 0)"
        row = self._db.row(f"SELECT {counts} FROM attempts WHERE {rows.OLD}", (before_ms, now_ms - MAY_RUN_MS))
        return row[0], row[1]

    def prune(self, before_ms: int, now_ms: int) -> int:
        """Delete what ended before a moment; returns how many usage records that were."""
        old, moments = f"SELECT key FROM attempts WHERE {rows.OLD}", (before_ms, now_ms - MAY_RUN_MS)
        with self._db.transaction([""], alone=True):
            execute = self._db.execute
            gone = execute(f"DELETE FROM records WHERE attempt IN ({old})", moments)
            execute(f"DELETE FROM quarters WHERE attempt IN ({old})", moments)
            execute(f"DELETE FROM attempts WHERE {rows.OLD}", moments)
            execute(f"DELETE FROM runs WHERE {rows.OLD} AND run NOT IN (SELECT run FROM attempts)", moments)
            execute("DELETE FROM notes WHERE at_ms < ? AND run NOT IN (SELECT run FROM runs)", (before_ms,))
            execute("DELETE FROM alerts WHERE at_ms < ?", (before_ms,))
            execute("DELETE FROM posts WHERE expires_ms <= ?", (now_ms,))
            execute("DELETE FROM holds WHERE sent_ms < ? AND expires_ms <= ?", (before_ms, now_ms))
        return gone

    # -- accounts --

    def accounts(self, account: str | None = None) -> list[AccountRecord]:
        """The accounts that have limits by their names, or the one that is named."""
        where, values = ("", ()) if account is None else (" WHERE account = ?", (account,))
        found: dict[tuple[str, str], list[AccountLimit]] = {}
        order = {window: place for place, window in enumerate(Window)}
        columns = f"account, coalesce(zone, '{UTC_ZONE}'), period, unit, most"
        sql = f"SELECT {columns} FROM limits LEFT JOIN accounts USING (account){where}"
        for name, zone, period, unit, most in self._db.rows(sql, values):
            found.setdefault((name, zone), []).append(AccountLimit(Window(period), Unit(unit), most))
        return [
            AccountRecord(name, zone, tuple(sorted(of, key=lambda one: (order[one[0]], one[1]))))
            for (name, zone), of in sorted(found.items())
        ]

    def set_limits(self, account: str, limits: Iterable[AccountLimit], *, zone: str | None = None) -> None:
        """Set limits of an account, and the zone in which its days begin; others that it has stay."""
        new = "INSERT INTO accounts (account, zone) VALUES (?, ?) ON CONFLICT DO NOTHING"
        with self._db.transaction([account], alone=True):
            self._db.execute(new, (account, zone or UTC_ZONE))
            if zone is not None:
                self._db.execute("UPDATE accounts SET zone = ? WHERE account = ?", (zone, account))
            self._db.execute_many(rows.PUT_LIMIT, [(account, str(one[0]), str(one[1]), one[2]) for one in limits])

    def remove_limits(self, account: str, limits: Iterable[tuple[Window, Unit]] = ()) -> int:
        """Remove these limits of an account, or all if none is named; returns how many there were."""
        named = [(str(window), str(unit)) for window, unit in limits]
        with self._db.transaction([account], alone=True):
            if not named:
                gone = self._db.execute("DELETE FROM limits WHERE account = ?", (account,))
            else:
                one = "DELETE FROM limits WHERE account = ? AND period = ? AND unit = ?"
                gone = sum(self._db.execute(one, (account, *what)) for what in named)
            rest = "DELETE FROM accounts WHERE account = ? AND account NOT IN (SELECT account FROM limits)"
            self._db.execute(rest, (account,))
        return gone

    # -- reading --

    def shared(
        self, limits: Sequence[Limit], weights: TokenWeights, now_ms: int, account: str = "", *, run: str = ""
    ) -> Shared:
        """What all runs, or those of an account, have used of each limit since its beginning, and what they hold now.
        The use includes what crashed runs had sent. The holds leave out one `run`."""
        holds = self._holds(limits, self._db.now_ms(now_ms), account)
        return Shared([self._used(limit, weights, holds, account) for limit in limits], holds.held(but=run))

    def _holds(self, limits: Sequence[Limit], now_ms: int, account: str) -> rows.Holds:
        """The holds that stand now, and those that count as used for one of the limits."""
        since_ms = min((limit.since_ms for limit in limits), default=FOREVER_MS)
        of, where = ((account,), rows.OF_ACCOUNT) if account else ((), "")
        return rows.Holds(tuple(self._db.rows(rows.HOLDS + where, (now_ms, since_ms, *of))), now_ms)

    def _used(self, limit: Limit, weights: TokenWeights, holds: rows.Holds, account: str) -> int:
        source, values = rows.between(limit.since_ms, FOREVER_MS)
        of, joined = ((account,), rows.JOIN_ACCOUNT) if account else ((), "")
        if limit.unit is Unit.USD:
            used = self._db.row(f"SELECT sum(u.cost_nano) FROM ({source}) u{joined}", (*values, *of))[0] or 0
        else:
            sql = f"SELECT u.model, {rows.COUNTS_OF_U} FROM ({source}) u{joined} GROUP BY u.model"
            by_model = {row[0]: rows.read_usage(row[1:]) for row in self._db.rows(sql, (*values, *of))}
            used = draw(weights, sum(by_model.values(), Usage()), by_model)
        return used + holds.orphaned(limit.since_ms).of(limit.unit)

    def totals(self, run: str) -> dict[tuple[str, int, str], tuple[Usage, int | None, int]]:
        """What is recorded of a run, by instance, attempt and model: usage, cost, number of records."""
        found = self._db.rows(
            f"SELECT a.instance, a.attempt, r.model, {rows.COUNTS_OF_R}, sum(r.cost_nano), count(*) FROM records r"
            " JOIN attempts a ON a.key = r.attempt WHERE a.run = ? GROUP BY 1, 2, 3",
            (run,),
        )
        return {(row[0], row[1], row[2]): (rows.read_usage(row[3:7]), row[7], row[8]) for row in found}

    def sums(
        self, *by: GroupBy, since_ms: int = 0, until_ms: int = FOREVER_MS, by_time: bool = False
    ) -> list[UsageSum]:
        """What was used from a moment up to another, in groups, and with `by_time` by quarters of an hour."""
        columns = ["r.start_ms" if by_time else "CAST(NULL AS BIGINT)", *(_COLUMNS[name] for name in by)]
        numbers = [str(number) for number in range(1, len(columns) + 1)]
        places, order = ", ".join(numbers), ", ".join(f"{one}{self._db.dialect.nulls_first}" for one in numbers)
        source, values = rows.between(since_ms, until_ms)
        found = self._db.rows(
            f"SELECT {', '.join(columns)}, {rows.COUNTS_OF_R}, sum(r.cost_nano), {rows.UNPRICED} FROM ({source}) r"
            f" JOIN attempts a ON a.key = r.attempt GROUP BY {places} ORDER BY {order}",
            values,
        )
        end = len(columns)
        return [
            UsageSum(row[0], tuple(row[1:end]), rows.read_usage(row[end : end + 4]), row[end + 4], row[end + 5])
            for row in found
        ]

    def runs(self, *, since_ms: int = 0, run: str | None = None) -> list[RunRecord]:
        """Runs by their start, or the one that is named."""
        named, values = (" AND run = ?", (run,)) if run is not None else ("", ())
        found = self._db.rows(
            "SELECT run, machine, started_ms, ended_ms, mode, budgets, exit_code, account FROM runs"
            f" WHERE started_ms >= ?{named} ORDER BY started_ms, run",
            (since_ms, *values),
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
            "coalesce(outcome, '') != ?": None if imported else IMPORTED,
        }
        asked = {condition: value for condition, value in wanted.items() if value is not None}
        return self._attempts(asked, latest)

    def attempts_of_group(self, group: str, *, latest: int = -1) -> list[AttemptRecord]:
        """Attempts of the instances named `GROUP[…]` that an orchestrator ran."""
        after = chr(ord("[") + 1)
        return self._attempts(
            {"instance >= ?": f"{group}[", "instance < ?": f"{group}{after}", "coalesce(outcome, '') != ?": IMPORTED},
            latest,
        )

    def _attempts(self, asked: Mapping[str, str | int], latest: int) -> list[AttemptRecord]:
        found = self._db.rows(
            "SELECT run, instance, attempt, started_ms, session, command, base_command, model, ended_ms, outcome,"
            f" exact, input, output, cache_write, cache_read, cost_nano, other_sessions, workspace, verified,"
            " subagents"
            f" FROM attempts WHERE {' AND '.join(asked) or 'true'}"
            f" ORDER BY ended_ms DESC{self._db.dialect.nulls_last} LIMIT ?",
            (*asked.values(), latest if latest >= 0 else FOREVER_MS),
        )
        attempts = [rows.read_attempt(*row) for row in found]
        return sorted(attempts, key=lambda attempt: (attempt.started_ms, attempt.instance, attempt.attempt))

    def instances(self, *, since_ms: int = 0, until_ms: int = FOREVER_MS) -> list[InstanceRecord]:
        """The instances that orchestrators ran, by the moment at which each ended, from a moment up to another."""
        found = self._db.rows(self._db.dialect.instances, (IMPORTED, since_ms, until_ms))
        return [InstanceRecord(*(*row[:8], rows.read_flag(row[8]))) for row in found]

    def costs_of_checked(self) -> dict[tuple[str, str], int]:
        """What each instance with a check has cost in all its attempts, in nano-dollars, by run and name."""
        found = self._db.rows(
            "SELECT a.run, a.instance, sum(r.cost_nano) FROM attempts a JOIN records r ON r.attempt = a.key"
            " WHERE (a.run, a.instance) IN (SELECT run, instance FROM attempts WHERE verified IS NOT NULL)"
            " AND r.cost_nano IS NOT NULL GROUP BY a.run, a.instance"
        )
        return {(run, instance): nano_usd for run, instance, nano_usd in found}

    def records(self, *, run: str | None = None) -> Iterator[UsageRecord]:
        """Records by time, of one run or of all. What is written meanwhile may be missing."""
        sql = f"{rows.RECORDS} WHERE (r.at_ms, r.id) > (?, ?){'' if run is None else ' AND a.run = ?'}"
        after: tuple[int, str] | None = (-FOREVER_MS, "")
        while after is not None:
            of = (*after,) if run is None else (*after, run)
            page = [*self._db.rows(f"{sql} ORDER BY r.at_ms, r.id LIMIT ?", (*of, PAGE))]
            after = (page[-1][4], page[-1][0]) if len(page) == PAGE else None
            for row in page:
                yield rows.read_record(*row)

    def notes(self, *, run: str | None = None) -> list[NoteRecord]:
        """Notes by time, of one run or of all."""
        where, values = (" WHERE run = ?", (run,)) if run is not None else ("", ())
        found = self._db.rows(
            f"SELECT id, run, at_ms, kind, text, instance FROM notes{where} ORDER BY at_ms, id", values
        )
        return [NoteRecord(*row) for row in found]

    def alerts_sent(self) -> set[str]:
        """The keys of all alerts that were ever claimed."""
        return {row[0] for row in self._db.rows("SELECT key FROM alerts")}
