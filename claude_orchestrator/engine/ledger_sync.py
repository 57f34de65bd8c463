"""Keeps the ledger of all runs in step with a run: writes what it uses in batches, off the event loop, and reads what
other runs use and hold."""

from __future__ import annotations

import asyncio
import contextlib
import platform
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.launches import Launches
from claude_orchestrator.engine.ledger_batch import Key, Unwritten
from claude_orchestrator.engine.ledger_pending import keep, take_in
from claude_orchestrator.engine.run_events import (
    ApprovalEnded,
    AttemptEnded,
    Crossed,
    HoldChanged,
    InstanceEnded,
    Launched,
    RoomChanged,
    RunEvent,
    Steered,
    UsageRecorded,
)
from claude_orchestrator.engine.state import InstanceStatus, State
from claude_orchestrator.engine.usage_delta import PortionDelta, UsageDelta
from token_budget.budget_manager import TokenBudgetManager, would_exceed
from token_budget.ledger.records import (
    AttemptRecord,
    HoldRequest,
    HoldState,
    Limit,
    NoteRecord,
    Post,
    Posted,
    RunRecord,
    UsageRecord,
)
from token_budget.ledger.store import LedgerError, LedgerStore
from token_budget.model_weights import TokenWeights
from token_budget.models import Action, Amount, Budget, Decision, Hold, Scope, Usage
from token_budget.portions import Portion, Spent
from token_budget.windows import Window, start_of, to_ms

_T = TypeVar("_T")
LEASE_MS = 60_000  # of a hold: so long after a crash it still stands
RENEW_EVERY_MS = 20_000
SAY_AFTER_S = 1.0  # that a start waits
SYNC_S = 2.0  # for a launch or a stop to wait, while another program has the ledger locked
HOLD_S = 0.25  # how long a request waits for a hold that decides nothing
POST_S = 0.5  # for a post, while another program has the ledger locked
END_S = 3.0  # the same for the end of a run
MAX_COMMAND_CHARS = 1_000
WINDOWS = {Scope.DAILY: Window.DAILY, Scope.WEEKLY: Window.WEEKLY, Scope.MONTHLY: Window.MONTHLY}


class LedgerSync:
    """Keeps the ledger in step with one run; `now` is local time.

    A ledger that cannot be written is reported once, and the run continues without it.
    """

    def __init__(
        self,
        ledger: LedgerStore | None,
        run: RunRecord,
        manager: TokenBudgetManager,
        weights: TokenWeights,
        bus: Bus,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.windows = manager.windows
        self._ledger = ledger
        self._run = run
        self._manager = manager
        self._weights = weights
        self._bus = bus
        self._now = now
        self._reported = False
        self._is_ending = self._gave_up = False
        self._holds_earlier = True  # an earlier start of this run may have holds
        self._running: dict[Key, InstanceStatus] = {}  # with news that the ledger lacks
        self._unwritten = Unwritten()
        self._started_ms: dict[Key, int] = {}
        self._records: dict[Key, int] = {}  # how many the ledger has of an attempt
        self._priced: set[Key] = set()
        self._held: dict[Hold, Amount] = {}  # as the ledger has it
        self._hold_keys: dict[Hold, int] = {}
        self._released: set[Hold] = set()
        self._reserving: set[Hold] = set()
        self._ended_early: set[Hold] = set()
        self._renewed_ms = 0
        self._note_count = 0
        self._launches = Launches()
        self._posting: asyncio.Future[Posted] | None = None  # that takes too long
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._flushing = asyncio.Lock()

    # -- from start to end --

    async def begin(self, earlier: Iterable[AttemptRecord] = (), *, output_dir: Path | None = None) -> None:
        """Enter the run; of a resumed one also what its journal has (`earlier`) and the ledger lacks.

        Takes in what earlier runs in `output_dir` could not write at their ends.
        """
        if self._ledger is None:
            return
        ledger, run_id = self._ledger, self._run.run
        said: list[str] = []

        def enter() -> tuple[dict[tuple[str, int, str], tuple[Usage, int | None, int]], list[AttemptRecord]]:
            ledger.write(runs=[self._run])
            if output_dir is not None:
                take_in(output_dir, ledger, said.append)
            return ledger.totals(run_id), ledger.attempts(run=run_id)

        try:
            entering = asyncio.ensure_future(self._in_thread(enter))
            if not (await asyncio.wait([entering], timeout=SAY_AFTER_S))[0]:
                self._bus.warn(f"the ledger: {ledger.name}: another program has it locked: waiting for up to a minute")
            totals, known = await entering
        except LedgerError as error:
            self._failed(error)
            return
        for text in said:
            self._bus.warn(text)
        written: dict[Key, tuple[Usage, int]] = {}
        for (instance, number, _), (usage, cost_nano_usd, records) in totals.items():
            key = instance, number
            before, cost_before = written.get(key, (Usage(), 0))
            written[key] = before + usage, cost_before + (cost_nano_usd or 0)
            self._records[key] = self._records.get(key, 0) + records
            self._priced |= {key} if cost_nano_usd is not None else set()
        ended = {attempt.key: attempt for attempt in known}
        for attempt in earlier:
            self._complete(attempt, ended.get(attempt.key), *written.get(attempt.key[1:], (Usage(), 0)))
        await self.flush(check=True)

    def _complete(self, attempt: AttemptRecord, known: AttemptRecord | None, usage: Usage, cost_nano_usd: int) -> None:
        """Note what the journal has of an attempt beyond what the ledger has; the ledger knows its end better."""
        if known is not None and known.outcome is not None:
            attempt = attempt._replace(started_ms=known.started_ms, ended_ms=known.ended_ms, outcome=known.outcome)
        key = attempt.instance, attempt.attempt
        self._unwritten.attempts[key] = attempt
        cost = max(0, (attempt.cost_nano_usd or 0) - cost_nano_usd)
        missing = PortionDelta(Spent(attempt.usage - usage), cost)
        source = None if attempt.cost_nano_usd is None else "claude"
        self._unwritten.add(key, UsageDelta(Amount(), {Portion(): missing}, source))

    def hurry(self) -> None:
        """The run is over: from now on wait only a few seconds for a ledger that another program has locked."""
        self._is_ending = True
        if self._ledger is not None:
            self._ledger.wait_at_most(END_S)

    async def end(self, exit_code: int, *, directory: Path | None = None) -> None:
        """Write what is left, and that the run is over; what cannot be written is kept in `directory`."""
        self.hurry()
        self._run = self._run._replace(ended_ms=to_ms(self._now()), exit_code=exit_code)
        await self.flush(whole=True)
        self._thread.shutdown(wait=True)
        if self._ledger is not None:
            if self._gave_up and directory is not None:
                self._keep_unwritten(self._ledger.name, directory)
            self._ledger.close()

    def _keep_unwritten(self, ledger: str, directory: Path) -> None:
        from token_budget.ledger.import_reader import Parcel  # seldom needed

        unwritten = self._take_unwritten()
        records = self._records_of(unwritten, to_ms(self._now()))
        attempts, notes = tuple(unwritten.attempts.values()), tuple(unwritten.notes)
        parcel = Parcel((self._run,), attempts, tuple(records), notes)
        try:
            path = keep(directory, ledger, parcel)
        except OSError as error:
            self._bus.warn(f"the ledger: what it lacks of this run cannot be kept: {error.strerror or error}")
        else:
            self._bus.warn(f"the ledger: the next run takes in what it lacks of this one: {path}")

    # -- what it observes --

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
                self._unwritten.attempts[key] = self._attempt(status)
            case HoldChanged(instance, text, _):
                self._add_note("adjust", text, instance)
            case InstanceEnded(status, False) if status.state is State.SKIPPED:
                self._add_note("skipped", status.reason, status.name)
            case Steered(_, _, text, by):
                self._add_note("steer", f"{text} ({by})", None)
            case ApprovalEnded(_, instance, text, outcome, by):
                self._add_note("approval", f"{outcome}: {text} ({by})", instance)
            case _:
                pass

    def _add_note(self, kind: str, text: str, instance: str | None) -> None:
        self._note_count += 1
        run, at_ms = self._run.run, to_ms(self._now())
        note = NoteRecord(f"{run}/{at_ms}/{self._note_count}", run, at_ms, kind, text, instance)
        self._unwritten.notes.append(note)

    def _note(self, status: InstanceStatus) -> None:
        key = status.name, status.attempts
        self._running[key] = status
        self._started_ms.setdefault(key, to_ms(self._now()))

    async def sync(self) -> None:
        """Wait until what was observed outlives the machine, but not long: the journal has it too."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SYNC_S):
                await self.flush()

    # -- the limits that all runs share --

    async def admit(self, instance: str, hold: Hold, *, sent: bool = False) -> Decision:
        """Reserve a hold on the windows' budgets, for all orchestrators at once.

        A request that is `sent` is held even if this run has no such budgets: the limits of other runs count it, also
        when this run is killed. It does not wait long for that, since nothing here depends on the answer.
        """
        if self._ledger is None or self._gave_up or not (self.windows or sent):
            return Decision(Action.ALLOW, hold=hold)
        if self.windows:
            await self.flush()  # what this run has used counts too
        self._reserving.add(hold)
        reserving = asyncio.ensure_future(self._reserve(self._ledger, instance, hold, sent))
        if not self.windows:
            await asyncio.wait([reserving], timeout=HOLD_S)
            return Decision(Action.ALLOW, hold=hold)
        try:
            return await asyncio.shield(reserving)
        except asyncio.CancelledError:
            reserving.add_done_callback(lambda _: self.released(hold))
            raise

    async def _reserve(self, ledger: LedgerStore, instance: str, hold: Hold, sent: bool) -> Decision:
        amount = hold.remaining
        enforce = self._manager.enforcement_mode == "block"
        request = HoldRequest(self._run.run, instance, amount, LEASE_MS, self._weights, enforce, sent)
        reserve = partial(ledger.reserve, request, _limits(self.windows, self._now()), to_ms(self._now()))
        try:
            answer = await self._in_thread(reserve)
        except LedgerError as error:
            self._failed(error)
            self._ended_early.discard(hold)
            return Decision(Action.ALLOW, hold=hold)
        finally:
            self._reserving.discard(hold)
        if answer.hold is not None:
            self._hold_keys[hold], self._held[hold] = answer.hold, amount
            self._released |= {hold} & self._ended_early
        self._ended_early.discard(hold)
        if answer.action is Action.ALLOW:
            return Decision(Action.ALLOW, hold=hold)
        budget = self.windows[answer.limit_index]
        self._manager.update_shared(budget, max(budget.used, answer.used), answer.held_elsewhere)
        held = answer.held if answer.action is Action.WAIT else None
        return Decision(answer.action, would_exceed(budget, amount.of(budget.unit), held), budget, hold)

    def released(self, hold: Hold) -> None:
        """A hold has ended."""
        if hold in self._held:
            self._released.add(hold)
        elif hold in self._reserving:  # the ledger is slow
            self._ended_early.add(hold)

    async def claim_launch(self, most: int) -> float:
        """Claim one of `most` launches in an hour of all orchestrators; returns 0, or the seconds until one is free.

        Without a ledger, only the launches of this run count.
        """
        now_ms = to_ms(self._now())
        if self._ledger is None or self._gave_up:
            return self._launches.claim(most, now_ms) / 1000
        try:
            return await self._in_thread(partial(self._ledger.claim_launch, most, self._run.run, now_ms)) / 1000
        except LedgerError as error:
            self._failed(error)
            return self._launches.claim(most, now_ms) / 1000

    async def post(
        self, topic: str, text: str, lifetime_s: float, seen: int | None
    ) -> tuple[int, list[tuple[float, str]]] | None:
        """Tell other runs something about a topic, unless they have done so since `seen`; see `Board`.

        Whoever waits for it waits for a request: if the ledger is slow, nothing is shared.
        """
        if self._ledger is None or self._gave_up or self._posting is not None:
            return None
        now_ms = to_ms(self._now())
        post = Post(topic, self._run.run, now_ms, round(lifetime_s * 1000), text)
        posting = asyncio.ensure_future(self._in_thread(partial(self._ledger.post, post, seen)))
        done, _ = await asyncio.wait([posting], timeout=POST_S)
        if not done:
            self._posting = posting
            posting.add_done_callback(self._posted_late)
            return None
        try:
            answer = posting.result()
        except LedgerError as error:
            self._failed(error)
            return None
        return answer.seen, [(other.age_ms / 1000, other.text) for other in answer.others]

    def _posted_late(self, posting: asyncio.Future[Posted]) -> None:
        self._posting = None
        if not posting.cancelled() and isinstance(error := posting.exception(), LedgerError):
            self._failed(error)

    async def claim_alerts(self, keys: list[str]) -> set[str]:
        """Those of the alerts that no other process has sent: of many orchestrators one sends an alert."""
        if self._ledger is None or self._gave_up:
            return set(keys)
        try:
            claim = partial(self._ledger.claim_alerts, sorted(keys), self._run.run, to_ms(self._now()))
            return await self._in_thread(claim)
        except LedgerError as error:
            self._failed(error)
            return set(keys)

    # -- writing --

    async def flush(self, *, whole: bool = False, check: bool = False) -> None:
        """Write what is new and read what others have used.

        `whole`: write the run's own row too; `check`: read even if nothing is new.
        """

        async def write() -> None:
            async with self._flushing:
                await self._write(whole, check)

        await asyncio.shield(asyncio.ensure_future(write()))  # once begun, it is known to be written or not

    async def _write(self, whole: bool, check: bool) -> None:
        ledger, now_ms = self._ledger, to_ms(self._now())
        renew = bool(self._held) and now_ms - self._renewed_ms >= RENEW_EVERY_MS
        holds = {hold: Amount() if hold in self._released else hold.remaining for hold in self._held}
        is_new = bool(self._running or self._unwritten or whole or renew or holds != self._held)
        holds_earlier = self._holds_earlier and not self._hold_keys
        if ledger is None or self._gave_up or not (is_new or holds_earlier or (check and self.windows)):
            return
        unwritten, released = self._take_unwritten(), frozenset(self._released)
        records = self._records_of(unwritten, now_ms)
        limits, recorded = _limits(self.windows, self._now()), self._manager.total
        hold_rows = [
            HoldState(self._hold_keys[hold], self._run.run, left, LEASE_MS * (hold not in released))
            for hold, left in holds.items()
        ]

        def write() -> tuple[list[int], Amount]:
            if is_new:
                runs, attempts = [self._run] if whole else [], list(unwritten.attempts.values())
                ledger.write(
                    runs=runs, attempts=attempts, records=records, notes=unwritten.notes, holds=hold_rows, now_ms=now_ms
                )
            if holds_earlier:  # what those were for is in the records by now
                ledger.release_run(self._run.run)
            if not self.windows:
                return [], Amount()
            return ledger.used(limits, self._weights, now_ms), ledger.held_by_others(self._run.run, now_ms)

        try:
            used, held = await self._in_thread(write)
        except LedgerError as error:
            self._failed(error)
            self._unwritten.put_back(unwritten)
            return
        self._holds_earlier = False
        self._renewed_ms = now_ms if is_new else self._renewed_ms
        self._written(records, holds, released)
        self._take_shared(used, held, recorded)

    def _take_unwritten(self) -> Unwritten:
        unwritten, self._unwritten = self._unwritten, Unwritten()
        running, self._running = self._running, {}
        for key, status in running.items():
            unwritten.attempts.setdefault(key, self._attempt(status))
        return unwritten

    def _records_of(self, unwritten: Unwritten, at_ms: int) -> list[UsageRecord]:
        found: list[UsageRecord] = []
        for key, portions in unwritten.use.items():
            number = self._records.get(key, 0)
            for portion, use in portions.items():
                is_priced = use.cost_source is not None
                # a first price of nothing tells what is free from what has no price
                if not (use.spent or use.nano_usd or (is_priced and key not in self._priced)):
                    continue
                number += 1
                found.append(
                    UsageRecord(
                        f"{self._run.run}/{key[0]}/{key[1]}/{number}",
                        self._run.run,
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
        return found

    def _written(self, records: list[UsageRecord], holds: dict[Hold, Amount], released: frozenset[Hold]) -> None:
        for record in records:
            key = record.instance, record.attempt
            self._records[key] = self._records.get(key, 0) + 1
            self._priced |= {key} if record.cost_nano_usd is not None else set()
        self._held.update(holds)
        for hold in released:
            del self._held[hold], self._hold_keys[hold]
        self._released -= released

    def _take_shared(self, used: list[int], held: Amount, recorded: Amount) -> None:
        """Take over what the ledger has, and what this run recorded while the ledger was read."""
        before = [(budget.used, budget.held_elsewhere) for budget in self.windows]
        since = self._manager.total - recorded
        for budget, sum_used in zip(self.windows, used, strict=True):
            if self._manager.update_shared(budget, sum_used + since.of(budget.unit), held.of(budget.unit)):
                self._bus.publish(Crossed(budget))
        if before != [(budget.used, budget.held_elsewhere) for budget in self.windows]:
            self._bus.publish(RoomChanged())

    def _attempt(self, status: InstanceStatus) -> AttemptRecord:
        has_ended, now_ms = status.ended, to_ms(self._now())
        return AttemptRecord(
            run=self._run.run,
            instance=status.name,
            attempt=status.attempts,
            started_ms=self._started_ms.get((status.name, status.attempts), now_ms),
            session=status.session_id,
            command=status.spec.command[:MAX_COMMAND_CHARS],
            base_command=status.spec.base_command,
            model=status.models[0] if status.models else None,
            ended_ms=now_ms if has_ended else None,
            outcome=str(status.state) if has_ended else None,
            exact=status.tally.exact,
            usage=status.tally.usage,
            cost_nano_usd=status.attempt.costs.nano_usd,
            other_sessions=tuple(session for session in status.attempt.sessions if session != status.session_id),
            workspace=status.spec.origin or status.spec.cwd,
            verified=status.verified,
            subagents=tuple(status.tally.attribution.subagents.values()),
        )

    def _in_thread(self, work: Callable[[], _T]) -> Awaitable[_T]:
        try:
            return asyncio.get_running_loop().run_in_executor(self._thread, work)
        except RuntimeError as error:  # "can't start new thread"
            raise LedgerError(f"{self._ledger and self._ledger.name}: {error}") from None

    def _failed(self, error: LedgerError) -> None:
        if not self._reported:
            self._bus.warn(
                f"the ledger: {error}: the run continues, and daily, weekly and monthly limits count this run alone"
            )
        self._reported = True
        self._gave_up = self._is_ending


def _limits(windows: Iterable[Budget], now: datetime) -> list[Limit]:
    return [Limit(to_ms(start_of(WINDOWS[budget.scope], now)), budget.limit, budget.unit) for budget in windows]


def read_shared(ledger: LedgerStore, manager: TokenBudgetManager, weights: TokenWeights) -> None:
    """Read what all runs use and hold now of the windows' budgets, without being a run."""
    now, windows = datetime.now(), manager.windows
    held = ledger.held_by_others("", to_ms(now))
    for budget, used in zip(windows, ledger.used(_limits(windows, now), weights, to_ms(now)), strict=True):
        manager.update_shared(budget, used, held.of(budget.unit))


def this_machine() -> str:
    """The machine's name in the ledger."""
    return platform.node() or "unknown"
