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
from typing import TYPE_CHECKING, TypeVar

from claude_orchestrator.engine.accounts import Charged, SharedWindows
from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.launches import Launches
from claude_orchestrator.engine.ledger_book import LedgerBatch, LedgerBook, Totals
from claude_orchestrator.engine.ledger_holds import LedgerHolds
from claude_orchestrator.engine.ledger_pending import keep, take_in
from claude_orchestrator.engine.run_events import Crossed, Level, Message, RoomChanged, RunEvent
from token_budget.budget_manager import TokenBudgetManager, would_exceed
from token_budget.ledger.address import is_address
from token_budget.ledger.errors import LedgerError
from token_budget.ledger.records import (
    AccountRecord,
    AttemptRecord,
    HoldRequest,
    HoldState,
    Post,
    Posted,
    Reservation,
    RunRecord,
)
from token_budget.model_weights import TokenWeights
from token_budget.models import Action, Amount, Budget, Decision, Hold
from token_budget.named_tuples import NamedTuple
from token_budget.windows import to_ms

if TYPE_CHECKING:
    from token_budget.ledger.store import LedgerStore

_T = TypeVar("_T")
LEASE_MS = 60_000  # of a hold: so long after a crash it still stands
RENEW_EVERY_MS = 20_000
SAY_AFTER_S = 1.0  # that a start waits
SYNC_S = 2.0  # for a launch or a stop to wait, while another program has the ledger locked
HOLD_S = 0.25  # how long a request waits for a hold that decides nothing
POST_S = 0.5  # for a post, while another program has the ledger locked
END_S = 3.0  # the same for the end of a run
ASK_AGAIN_S = 1.0  # for a launch to be claimed, while the ledger cannot be used


class Sharing(NamedTuple):
    """How a run shares limits: the account that it charges, and whether it `continues` in block mode while the ledger
    cannot be used. `now` is local time."""

    charged: Charged = Charged()
    continues: bool = False
    now: Callable[[], datetime] = datetime.now


class _Read(NamedTuple):
    """What the ledger says: what is used of each shared budget, what others hold, the account, and how far its clock
    is ahead of this machine's."""

    used: list[int]
    held: Amount
    account: AccountRecord | None
    ahead_ms: int


class LedgerSync:
    """Keeps the ledger in step with one run.

    While the ledger cannot be used, a run in block mode starts nothing that its shared limits apply to, unless it
    `continues`. Its use in the meantime is written later, once.
    """

    def __init__(
        self,
        ledger: LedgerStore | None,
        run: RunRecord,
        manager: TokenBudgetManager,
        weights: TokenWeights,
        bus: Bus,
        sharing: Sharing = Sharing(),  # noqa: B008 - it is frozen
    ) -> None:
        self.windows = SharedWindows(manager, sharing.charged)
        self._ledger = ledger
        self._run = run
        self._manager = manager
        self._weights = weights
        self._bus = bus
        self._sharing = sharing
        self._ahead_ms = 0  # of this machine's clock
        self._book = LedgerBook(run.run, self.now_ms)
        self._batch = LedgerBatch()  # written, but nobody knows whether the ledger has it
        self._earlier: tuple[AttemptRecord, ...] = ()
        self._output_dir: Path | None = None
        self._has_entered = False
        self._down = ""  # why the ledger cannot be used
        self._is_ending = self._gave_up = False
        self._may_stray = True  # an earlier start, or a reservation that failed, may have left holds
        self._holds = LedgerHolds()
        self._own_keys: set[int] = set()  # of the ledger's thread alone
        self._renewed_ms = 0
        self._launches = Launches()
        self._posting: asyncio.Future[Posted] | None = None  # that takes too long
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._flushing = asyncio.Lock()

    def now_ms(self) -> int:
        """The time that the ledger has, as far as it is known."""
        return to_ms(self._sharing.now()) + self._ahead_ms

    # -- from start to end --

    async def begin(self, earlier: Iterable[AttemptRecord] = (), *, output_dir: Path | None = None) -> None:
        """Record the run. For a resumed run, add what only its journal (`earlier`) has.

        Also takes in what earlier runs in `output_dir` could not write at their ends. If the ledger cannot be used now,
        all of this happens as soon as it can.
        """
        if self._ledger is None:
            return
        self._earlier, self._output_dir = tuple(earlier), output_dir
        first = asyncio.ensure_future(self.flush(check=True))
        if not (await asyncio.wait([first], timeout=SAY_AFTER_S))[0]:
            name = self._ledger.name
            why = "it does not answer yet" if is_address(name) else "another program has it locked"
            self._bus.warn(f"the ledger: {name}: {why}: waiting for up to a minute")
        await first

    async def _enter(self, ledger: LedgerStore) -> None:
        said: list[str] = []

        def enter() -> tuple[int, Totals, list[AttemptRecord]]:
            ahead_ms = self._clock_of(ledger)
            ledger.write(runs=[self._run])
            ledger.forget_posts(self.now_ms())
            if self._output_dir is not None:
                take_in(self._output_dir, ledger, said.append)
            return ahead_ms, ledger.totals(self._run.run), ledger.attempts(run=self._run.run)

        self._ahead_ms, totals, known = await self._in_thread(enter)
        self._book.start_from(totals, {attempt.key: attempt for attempt in known}, self._earlier)
        self._has_entered = True
        for text in said:
            self._bus.warn(text)

    def _clock_of(self, ledger: LedgerStore) -> int:
        """How far the ledger's clock is ahead of this machine's."""
        before_ms = to_ms(self._sharing.now())
        its_ms = ledger.now_ms(before_ms)
        return 0 if its_ms == before_ms else its_ms - (before_ms + to_ms(self._sharing.now())) // 2

    def hurry(self) -> None:
        """The run is over: from now on wait only a few seconds for a ledger that another program has locked."""
        self._is_ending = True
        if self._ledger is not None:
            self._ledger.wait_at_most(END_S)

    async def end(self, exit_code: int, *, directory: Path | None = None) -> None:
        """Write what is left, and that the run is over; what cannot be written is kept in `directory`."""
        self.hurry()
        self._run = self._run._replace(ended_ms=self.now_ms(), exit_code=exit_code)
        await self.flush(whole=True)
        self._thread.shutdown(wait=True)
        if self._ledger is not None:
            if self._gave_up and directory is not None:
                self._keep_unwritten(self._ledger.name, directory)
            self._ledger.close()

    def _keep_unwritten(self, ledger: str, directory: Path) -> None:
        from token_budget.ledger.import_reader import ImportData  # seldom needed

        if not self._has_entered:
            self._book.start_unknown()
        batch = self._batch.then(self._book.take())
        parcel = ImportData((self._run,), batch.attempts, batch.records, batch.notes)
        try:
            path = keep(directory, ledger, parcel)
        except OSError as error:
            self._bus.warn(
                f"the ledger: the records that it lacks of this run cannot be kept: {error.strerror or error}"
            )
        else:
            self._bus.warn(f"the ledger: the next run adds the records that it lacks of this one: {path}")

    def observe(self, event: RunEvent) -> None:
        """Note what the ledger will have to hold."""
        self._book.observe(event)

    async def sync(self) -> None:
        """Wait briefly until what was observed survives a crash of the machine. The journal has it too."""
        if self._down:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SYNC_S):
                await self.flush()

    # -- the limits that all runs share --

    @property
    def unusable(self) -> str:
        """Why nothing that needs the ledger may start; empty if it may."""
        if not self._down or self._sharing.continues or self._manager.enforcement_mode != "block":
            return ""
        return f"the ledger cannot be used: {self._down}"

    async def admit(self, instance: str, hold: Hold, *, sent: bool = False) -> Decision:
        """Reserve a hold on the windows' budgets, for all orchestrators at once.

        A request that is `sent` is held even if this run has no such budgets, because the limits of other runs count
        it, even if this run is killed. Nothing here depends on the answer, so the request does not wait long.
        """
        is_limited = bool(self.windows.budgets)
        if self._ledger is None or self._gave_up or not (is_limited or sent):
            return Decision(Action.ALLOW, hold=hold)
        if is_limited and not self._down:
            await self.flush()  # what this run has used counts too
        if self._down:
            return self._without_ledger(hold) if is_limited else Decision(Action.ALLOW, hold=hold)
        self._holds.reserve(hold)
        reserving = asyncio.ensure_future(self._reserve(self._ledger, instance, hold, sent))
        if not is_limited:
            await asyncio.wait([reserving], timeout=HOLD_S)
            return Decision(Action.ALLOW, hold=hold)
        try:
            return await asyncio.shield(reserving)
        except asyncio.CancelledError:
            reserving.add_done_callback(lambda _: self.released(hold))
            raise

    def _without_ledger(self, hold: Hold) -> Decision:
        return Decision(Action.WAIT, self.unusable, hold=hold) if self.unusable else Decision(Action.ALLOW, hold=hold)

    async def _reserve(self, ledger: LedgerStore, instance: str, hold: Hold, sent: bool) -> Decision:
        amount = hold.remaining
        enforce = self._manager.enforcement_mode == "block"
        request = HoldRequest(
            self._run.run, instance, amount, LEASE_MS, self._weights, enforce, sent, self.windows.account
        )
        budgets, now_ms = self.windows.budgets, self.now_ms()
        limits = self.windows.limits(now_ms)

        def reserve() -> Reservation:
            answer = ledger.reserve(request, limits, now_ms)
            if answer.hold is not None:
                self._own_keys.add(answer.hold)
            return answer

        try:
            answer = await self._in_thread(reserve)
        except LedgerError as error:
            self._failed(error)
            self._holds.answered(hold, None, amount)
            return self._without_ledger(hold)
        self._holds.answered(hold, answer.hold, amount)
        if answer.action is Action.ALLOW:
            return Decision(Action.ALLOW, hold=hold)
        budget = budgets[answer.limit_index]
        self._manager.update_shared(budget, max(budget.used, answer.used), answer.held_elsewhere)
        held = answer.held if answer.action is Action.WAIT else None
        return Decision(answer.action, would_exceed(budget, amount.of(budget.unit), held), budget, hold)

    def released(self, hold: Hold) -> None:
        """A hold has ended."""
        self._holds.released(hold)

    async def claim_launch(self, most: int) -> float:
        """Claim one of `most` launches in an hour of all orchestrators; returns 0, or the seconds until one is free.

        Without a ledger, only the launches of this run count.
        """
        now_ms = self.now_ms()
        if self._ledger is not None and not self._down and not self._gave_up:
            try:
                return await self._in_thread(partial(self._ledger.claim_launch, most, self._run.run, now_ms)) / 1000
            except LedgerError as error:
                self._failed(error)
        return ASK_AGAIN_S if self.unusable else self._launches.claim(most, now_ms) / 1000

    async def post(
        self, topic: str, text: str, lifetime_s: float, seen: int | None
    ) -> tuple[int, list[tuple[float, str]]] | None:
        """Tell other runs something about a topic, unless they have done so since `seen`; see `Board`.

        A request waits for this. So nothing is shared if the ledger is slow or cannot be used.
        """
        if self._ledger is None or self._gave_up or self._down or self._posting is not None:
            return None
        post = Post(topic, self._run.run, self.now_ms(), round(lifetime_s * 1000), text)
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
        """The alerts that no other process has sent. So only one of many orchestrators sends an alert."""
        if self._ledger is None or self._gave_up or self._down:
            return set(keys)
        try:
            return await self._in_thread(partial(self._ledger.claim_alerts, sorted(keys), self._run.run, self.now_ms()))
        except LedgerError as error:
            self._failed(error)
            return set(keys)

    # -- writing --

    async def flush(self, *, whole: bool = False, check: bool = False) -> None:
        """Write what is new and read what others have used.

        `whole`: write the run's own row too; `check`: read even if nothing is new, and find out whether the ledger can
        be used again.
        """

        async def write() -> None:
            async with self._flushing:
                if self._ledger is not None and not self._gave_up and (whole or check or not self._down):
                    await self._try(self._ledger, whole, check)

        await asyncio.shield(asyncio.ensure_future(write()))  # once begun, it is known to be written or not

    async def _try(self, ledger: LedgerStore, whole: bool, check: bool) -> None:
        try:
            if not self._has_entered:
                await self._enter(ledger)
            if self._batch:  # as it was, in case the ledger has it
                attempts, records, notes = self._batch
                await self._in_thread(partial(ledger.write, attempts=attempts, records=records, notes=notes))
                self._batch = LedgerBatch()
            await self._write(ledger, whole or bool(self._down), check)
        except LedgerError as error:
            self._failed(error)
            return
        if self._down:
            self._down = ""
            self._bus.publish(Message(Level.INFO, f"the ledger: {ledger.name}: it can be used again"))
            self._bus.publish(RoomChanged())

    async def _write(self, ledger: LedgerStore, whole: bool, check: bool) -> None:
        now_ms = self.now_ms()
        renew = bool(self._holds) and now_ms - self._renewed_ms >= RENEW_EVERY_MS
        holds = self._holds.changes()
        is_new = bool(self._book.has_news or whole or renew or self._holds.differ(holds))
        if not (is_new or self._may_stray or (check and self.windows.budgets)):
            return
        self._batch, may_stray = self._book.take(), self._may_stray
        attempts, records, notes = self._batch
        recorded, budgets = self._manager.total, self.windows.budgets
        states = [
            HoldState(
                self._holds.key(hold), self._run.run, left, LEASE_MS * (hold not in holds.ended), self.windows.account
            )
            for hold, left in holds.left.items()
        ]

        def write() -> _Read:
            if is_new:
                runs = [self._run] if whole else []
                ledger.write(runs=runs, attempts=attempts, records=records, notes=notes, holds=states, now_ms=now_ms)
            self._own_keys.difference_update(holds.ended.values())
            if may_stray:  # what those holds were for is in the records by now
                ledger.release_run(self._run.run, keep=frozenset(self._own_keys))
            return self._read(ledger)

        self._may_stray = False
        read = await self._in_thread(write)
        self._batch = LedgerBatch()
        self._renewed_ms = now_ms if is_new else self._renewed_ms
        self._holds.written(holds)
        self._take_shared(budgets, read, recorded)

    def _read(self, ledger: LedgerStore) -> _Read:
        """What the ledger has of the shared limits; in its thread."""
        ahead_ms, account = self._clock_of(ledger), self.windows.account
        now_ms = to_ms(self._sharing.now()) + ahead_ms
        limits = self.windows.limits(now_ms)
        if not limits:
            return _Read([], Amount(), None, ahead_ms)
        used, held = ledger.shared(limits, self._weights, now_ms, account, run=self._run.run)
        found = ledger.accounts(account) if account else []
        return _Read(used, held, found[0] if found else None, ahead_ms)

    def _take_shared(self, budgets: tuple[Budget, ...], read: _Read, recorded: Amount) -> None:
        """Take over what the ledger has, and what this run recorded while the ledger was read."""
        self._ahead_ms = read.ahead_ms
        before = [(budget.used, budget.held_elsewhere) for budget in budgets]
        since = self._manager.total - recorded
        for budget, used in zip(budgets, read.used, strict=False):
            if self._manager.update_shared(budget, used + since.of(budget.unit), read.held.of(budget.unit)):
                self._bus.publish(Crossed(budget))
        changed = self.windows.take(read.account) if read.account is not None else []
        for budget, is_crossed in changed:
            self._bus.publish(Message(Level.INFO, f"the limit of the {budget.label} budget: {budget.figures()}"))
            if is_crossed:
                self._bus.publish(Crossed(budget))
        if changed or before != [(budget.used, budget.held_elsewhere) for budget in budgets]:
            self._bus.publish(RoomChanged())

    def _in_thread(self, work: Callable[[], _T]) -> Awaitable[_T]:
        try:
            return asyncio.get_running_loop().run_in_executor(self._thread, work)
        except RuntimeError as error:  # "can't start new thread"
            raise LedgerError(f"{self._ledger and self._ledger.name}: {error}") from None

    def _failed(self, error: LedgerError) -> None:
        was_down, self._down, self._may_stray = self._down, str(error), True
        if not was_down:
            self._bus.warn(f"the ledger: {error}: {self._what_follows()}")
        self._gave_up = self._is_ending

    def _what_follows(self) -> str:
        if self.unusable and self.windows.budgets:
            return "nothing new starts until it can be used (--ledger-outage continue starts without it)"
        return "the run continues, and daily, weekly and monthly limits count this run alone"


def read_shared(
    ledger: LedgerStore,
    manager: TokenBudgetManager,
    weights: TokenWeights,
    charged: Charged = Charged(),  # noqa: B008
) -> None:
    """Read what all runs use and hold of the shared budgets now, outside of a run."""
    windows, now_ms = SharedWindows(manager, charged), ledger.now_ms(to_ms(datetime.now()))
    all_used, held = ledger.shared(windows.limits(now_ms), weights, now_ms, windows.account)
    for budget, used in zip(windows.budgets, all_used, strict=True):
        manager.update_shared(budget, used, held.of(budget.unit))


def this_machine() -> str:
    """The machine's name in the ledger."""
    return platform.node() or "unknown"
