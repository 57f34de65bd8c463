"""A run's books: what it uses goes into the ledger of all runs, in batches and off the event loop; what others have
used and hold comes back from it; alerts are raised."""

from __future__ import annotations

import asyncio
import json
import platform
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import TypeVar

from claude_orchestrator.run.state import InstanceStatus
from token_budget.alerts import AlertBook
from token_budget.budget_manager import TokenBudgetManager, would_exceed
from token_budget.ledger.records import (
    WEIGHTS_KEY,
    AttemptRecord,
    HoldRequest,
    HoldState,
    Limit,
    NoteRecord,
    RunRecord,
    UsageRecord,
)
from token_budget.ledger.store import LedgerError, LedgerStore
from token_budget.models import Action, Amount, Budget, Decision, Hold, Scope, Usage, Weights
from token_budget.windows import Window, name_of, start_of, to_ms

_T = TypeVar("_T")
FLUSH_EVERY_S = 1.0
LEASE_MS = 60_000  # of a hold: so long after a crash it still stands
RENEW_EVERY_MS = 20_000
MAX_COMMAND_CHARS = 1_000
WINDOWS = {Scope.DAILY: Window.DAILY, Scope.WEEKLY: Window.WEEKLY, Scope.MONTHLY: Window.MONTHLY}


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """An attempt and what it has used at one moment; without `by_model` nobody knows which model used it."""

    attempt: AttemptRecord
    by_model: dict[str, Usage] | None
    cost_by_model: dict[str, int] = field(default_factory=dict)
    cost_source: str | None = None


@dataclass(slots=True)
class _Written:
    """What the ledger has of an attempt: by model, in money too, and how many records."""

    by_model: dict[str, Usage] = field(default_factory=dict)
    cost_by_model: Counter[str] = field(default_factory=Counter)
    priced: bool = False
    records: int = 0


class Books:
    """Keeps the books of one run. `now` is local time; `on_crossed` learns of a window's limit that was passed
    elsewhere, `on_room` of what other runs use and hold having changed; a ledger that cannot be written is said once,
    and the run goes on."""

    def __init__(
        self,
        ledger: LedgerStore | None,
        run: RunRecord,
        manager: TokenBudgetManager,
        weights: Weights,
        alerts: AlertBook,
        instances: Sequence[InstanceStatus] = (),
        *,
        complain: Callable[[str], None],
        alert: Callable[[str, dict[str, object]], None],
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.on_crossed: Callable[[Budget], None] = lambda budget: None
        self.on_room: Callable[[], None] = lambda: None
        self._ledger = ledger
        self._run = run
        self._manager = manager
        self.windows = manager.windows  # the budgets that all runs share; looking for them anew would take long
        self._weights = weights
        self._alerts = alerts
        self._instances = instances
        self._sent: list[str] = []
        alerts.on_sent = self._sent.append
        self._complain = complain
        self._alert = alert
        self._now = now
        self._complained = False
        self._dirty: dict[str, InstanceStatus] = {}
        self._ended: list[_Snapshot] = []
        self._started_ms: dict[tuple[str, int], int] = {}
        self._written: dict[tuple[str, int], _Written] = {}
        self._holds: dict[Hold, Amount] = {}  # as the ledger has them
        self._hold_keys: dict[Hold, int] = {}
        self._released: set[Hold] = set()
        self._renewed_ms = 0
        self._notes: list[NoteRecord] = []
        self._note_count = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._flushing = asyncio.Lock()

    # -- from start to end --

    async def begin(self, earlier: Iterable[AttemptRecord] = ()) -> None:
        """Enter the run; of one that is resumed, also what its journal has (`earlier`) and the ledger lacks."""
        if self._ledger is None:
            return
        ledger, run_id = self._ledger, self._run.run

        def enter() -> tuple[dict[tuple[str, int, str], tuple[Usage, int | None, int]], list[AttemptRecord]]:
            ledger.write(runs=[self._run])
            ledger.release_run(run_id)
            return ledger.totals(run_id), ledger.attempts(run=run_id)

        try:
            totals, known = await self._in_thread(enter)
        except LedgerError as error:
            self._failed(error)
            return
        for (instance, attempt, model), (usage, cost_nano, records) in totals.items():
            written = self._written.setdefault((instance, attempt), _Written())
            written.by_model[model] = usage
            written.cost_by_model[model] += cost_nano or 0
            written.priced = written.priced or cost_nano is not None
            written.records += records
        before = {attempt.key: attempt for attempt in known}
        self._ended = [_Snapshot(_completed_by(attempt, before.get(attempt.key)), None) for attempt in earlier]
        await self.flush(look=True)

    async def run(self) -> None:
        """Write, look at what others do and raise alerts at intervals, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            await self.flush(look=True)
            await self._raise_alerts()

    async def end(self, exit_code: int) -> None:
        """Write what is left, and that the run is over."""
        self._run = replace(self._run, ended_ms=to_ms(self._now()), exit_code=exit_code)
        await self.flush(look=True)
        await self._raise_alerts()
        await self.flush(whole=True)
        self._thread.shutdown(wait=True)
        if self._ledger is not None:
            self._ledger.close()

    # -- what the supervisor tells --

    async def admit(self, status: InstanceStatus, hold: Hold) -> Decision:
        """Hold it on the windows' budgets, for all orchestrators at once."""
        if not self.windows or self._ledger is None:
            return Decision(Action.ALLOW, hold=hold)
        await self.flush()  # what this run has used counts too
        reserving = asyncio.ensure_future(self._reserve(status, hold))
        try:
            return await asyncio.shield(reserving)
        except asyncio.CancelledError:
            reserving.add_done_callback(lambda _: self.released(hold))
            raise

    async def _reserve(self, status: InstanceStatus, hold: Hold) -> Decision:
        windows, ledger = self.windows, self._ledger
        assert ledger is not None
        amount = hold.remaining
        enforce = self._manager.enforcement_mode == "block"
        request = HoldRequest(self._run.run, status.name, amount, LEASE_MS, self._weights, enforce=enforce)
        reserve = partial(ledger.reserve, request, _limits(windows, self._now()), to_ms(self._now()))
        try:
            answer = await self._in_thread(reserve)
        except LedgerError as error:
            self._failed(error)
            return Decision(Action.ALLOW, hold=hold)
        if answer.hold is not None:
            self._hold_keys[hold], self._holds[hold] = answer.hold, amount
        if answer.action is Action.ALLOW:
            return Decision(Action.ALLOW, hold=hold)
        budget = windows[answer.limit_index]
        self._manager.update_shared(budget, max(budget.used, answer.used), answer.held_elsewhere)
        held = answer.held if answer.action is Action.WAIT else None
        reason = would_exceed(budget, amount.of(budget.unit), held)
        return Decision(answer.action, reason, budget, hold)

    def note(self, status: InstanceStatus) -> None:
        """It was launched, or more was counted: to be written soon."""
        self._dirty[status.name] = status
        self._started_ms.setdefault((status.name, status.attempts), to_ms(self._now()))

    async def sync(self) -> None:
        """Wait until what was noted outlives the machine."""
        await self.flush()

    def ended(self, status: InstanceStatus) -> None:
        """An attempt has ended: to be written as it is now."""
        self._dirty.pop(status.name, None)
        self._ended.append(self._snapshot(status))

    def adjusted(self, kind: str, text: str, instance: str | None = None) -> None:
        """A hold or a share was changed, with its reason."""
        self._note_count += 1
        run, at_ms = self._run.run, to_ms(self._now())
        self._notes.append(NoteRecord(f"{run}/{at_ms}/{self._note_count}", run, at_ms, kind, text, instance))

    def released(self, hold: Hold) -> None:
        """A hold is over."""
        if hold in self._holds:
            self._released.add(hold)

    # -- writing --

    async def flush(self, *, whole: bool = False, look: bool = False) -> None:
        """Write what is new and learn what others have used; `whole`: the run's own row too, `look`: ask even where
        nothing is new."""

        async def write() -> None:
            async with self._flushing:
                await self._write(whole, look)

        await asyncio.shield(asyncio.ensure_future(write()))  # what was begun is known to be written, or not

    async def _write(self, whole: bool, look: bool) -> None:
        ledger, windows = self._ledger, self.windows
        now_ms = to_ms(self._now())
        renew = bool(self._holds) and now_ms - self._renewed_ms >= RENEW_EVERY_MS
        holds = {hold: Amount() if hold in self._released else hold.remaining for hold in self._holds}
        news = bool(self._dirty or self._ended or self._notes or whole or renew or holds != self._holds)
        if ledger is None or not (news or (look and windows)):
            return
        dirty, self._dirty = self._dirty, {}
        ended, self._ended = self._ended, []
        notes, self._notes = self._notes, []
        released, keys = frozenset(self._released), dict(self._hold_keys)
        over = {snapshot.attempt.key for snapshot in ended}  # after a failure both can be there
        going_on = [self._snapshot(status) for status in dirty.values() if status.attempts]
        snapshots = ended + [snapshot for snapshot in going_on if snapshot.attempt.key not in over]
        attempts = [snapshot.attempt for snapshot in snapshots]
        records = [record for snapshot in snapshots for record in self._difference(snapshot, now_ms)]
        limits = _limits(windows, self._now())
        recorded = self._manager.total

        def write() -> tuple[list[int], Amount]:
            if news:
                runs = [self._run] if whole else []
                until = {hold: 0 if hold in released else now_ms + LEASE_MS for hold in holds}
                rows = [HoldState(keys[hold], self._run.run, left, until[hold]) for hold, left in holds.items()]
                ledger.write(runs=runs, attempts=attempts, records=records, notes=notes, holds=rows)
            if not windows:
                return [], Amount()
            return ledger.used(limits, self._weights), ledger.held_by_others(self._run.run, now_ms)

        try:
            used, held = await self._in_thread(write)
        except LedgerError as error:
            self._failed(error)
            self._dirty, self._ended = {**dirty, **self._dirty}, ended + self._ended
            self._notes = notes + self._notes
            return
        if news:
            self._renewed_ms = now_ms
        for record in records:
            self._take(record)
        self._holds.update(holds)
        for hold in released:
            del self._holds[hold], self._hold_keys[hold]
        self._released -= released
        before = [(budget.used, budget.held_elsewhere) for budget in windows]
        for budget, sum_used in zip(windows, used, strict=True):
            self._learn(budget, sum_used + (self._manager.total - recorded).of(budget.unit), held.of(budget.unit))
        if before != [(budget.used, budget.held_elsewhere) for budget in windows]:
            self.on_room()

    def _learn(self, budget: Budget, used: int, held: int) -> None:
        """Take over what the ledger has, and what this run recorded while the ledger was read."""
        if self._manager.update_shared(budget, used, held):
            self.on_crossed(budget)

    def _snapshot(self, status: InstanceStatus) -> _Snapshot:
        command, has_ended, now_ms = status.spec.command[:MAX_COMMAND_CHARS], status.ended, to_ms(self._now())
        attempt = AttemptRecord(
            run=self._run.run,
            instance=status.name,
            attempt=status.attempts,
            started_ms=self._started_ms.get((status.name, status.attempts), now_ms),
            session=status.session_id,
            command=command,
            base_command=status.spec.base_command,
            model=status.models[0] if status.models else None,
            ended_ms=now_ms if has_ended else None,
            outcome=str(status.state) if has_ended else None,
            exact=status.tally.exact,
            usage=status.tally.usage,
            cost_nano_usd=status.cost_nano,
        )
        return _Snapshot(attempt, status.tally.by_model, status.cost_by_model, status.cost_source)

    def _difference(self, snapshot: _Snapshot, at_ms: int) -> list[UsageRecord]:
        """The records that bring the ledger to what the snapshot says."""
        attempt = snapshot.attempt
        written = self._written.setdefault((attempt.instance, attempt.attempt), _Written())
        totals, costs = snapshot.by_model, snapshot.cost_by_model
        if totals is None:
            missing = attempt.usage - sum(written.by_model.values(), Usage())
            totals = {**written.by_model, "": written.by_model.get("", Usage()) + missing}
            cost = (attempt.cost_nano_usd or 0) - written.cost_by_model.total()
            costs = {**written.cost_by_model, "": written.cost_by_model[""] + max(0, cost)}
        found: list[UsageRecord] = []
        for model in {**totals, **costs, **written.by_model, **written.cost_by_model}:
            counts = zip(totals.get(model, Usage()).counts, written.by_model.get(model, Usage()).counts, strict=True)
            delta = Usage(*(now - before for now, before in counts))
            cost_nano = costs.get(model, 0) - written.cost_by_model[model]
            free = attempt.cost_nano_usd is not None and not written.priced and not found  # to be told from unknown
            if any(delta.counts) or cost_nano or free:
                record = UsageRecord(
                    f"{attempt.run}/{attempt.instance}/{attempt.attempt}/{written.records + len(found) + 1}",
                    *attempt.key,
                    at_ms=at_ms,
                    model=model,
                    usage=delta,
                    cost_nano_usd=None if attempt.cost_nano_usd is None else cost_nano,
                    cost_source=None if attempt.cost_nano_usd is None else snapshot.cost_source,
                )
                found.append(record)
        return found

    def _take(self, record: UsageRecord) -> None:
        """It is in the ledger now."""
        written = self._written[record.instance, record.attempt]
        before = written.by_model.get(record.model, Usage())
        written.by_model[record.model] = before + record.usage
        written.cost_by_model[record.model] += record.cost_nano_usd or 0
        written.priced = written.priced or record.cost_nano_usd is not None
        written.records += 1

    def _in_thread(self, work: Callable[[], _T]) -> Awaitable[_T]:
        try:
            return asyncio.get_running_loop().run_in_executor(self._thread, work)
        except RuntimeError as error:  # "can't start new thread"
            raise LedgerError(f"{self._ledger and self._ledger.name}: {error}") from None

    def _failed(self, error: LedgerError) -> None:
        if not self._complained:
            self._complain(f"the ledger: {error}: the run goes on, limits across runs hold for this run alone")
        self._complained = True

    # -- alerts --

    async def _raise_alerts(self) -> None:
        now = self._now()

        def window_of(budget: Budget) -> str:
            return name_of(WINDOWS[budget.scope], now) if budget.scope in WINDOWS else f"run {self._run.run}"

        found = self._alerts.due(self._manager.budgets, window_of, self._run.run)
        for budget, expected in self._expected().items() if self._alerts.thresholds else ():
            overrun = self._alerts.overrun(budget, budget.used + expected, window_of(budget), self._run.run)
            found += [overrun] if overrun is not None else []
        if not self._sent:
            return
        claimed = set(self._sent)
        self._sent.clear()
        if self._ledger is not None:
            try:
                claim = partial(self._ledger.claim_alerts, sorted(claimed), self._run.run, to_ms(now))
                claimed = await self._in_thread(claim)
            except LedgerError as error:
                self._failed(error)
        for alert in found:
            if alert.key in claimed:
                self._alert(alert.text, alert.payload(now.astimezone().isoformat()))

    def _expected(self) -> Counter[Budget]:
        """What those who draw on each budget will still use by their forecasts, where there are any."""
        left: Counter[Budget] = Counter()
        for status in self._instances:
            spec = status.spec
            if status.ended:
                continue
            used = Amount(self._weights.draw(status.usage), status.cost_nano or 0)
            more = {
                unit: max(0, (forecast.given(used.of(unit)).p50 or 0) - used.of(unit))
                for unit, forecast in spec.forecasts.items()
                if forecast.known
            }
            budgets = self._manager.budgets_for(spec.base_command, spec.name)
            left.update({budget: more[budget.unit] for budget in budgets if budget.unit in more})
        return left


def _completed_by(attempt: AttemptRecord, known: AttemptRecord | None) -> AttemptRecord:
    """What the journal has of an attempt; where the ledger knew its end, that is what it was."""
    if known is None or known.outcome is None:
        return attempt
    return replace(attempt, started_ms=known.started_ms, ended_ms=known.ended_ms, outcome=known.outcome)


def _limits(windows: Iterable[Budget], now: datetime) -> list[Limit]:
    return [Limit(to_ms(start_of(WINDOWS[budget.scope], now)), budget.limit, budget.unit) for budget in windows]


def look_at_others(ledger: LedgerStore, manager: TokenBudgetManager, weights: Weights) -> None:
    """What all runs use and hold now of the windows' budgets, for a look without a run."""
    now, windows = datetime.now(), manager.windows
    held = ledger.held_by_others("", to_ms(now))
    for budget, used in zip(windows, ledger.used(_limits(windows, now), weights), strict=True):
        manager.update_shared(budget, used, held.of(budget.unit))


def budgets_text(manager: TokenBudgetManager, weights: Weights) -> str:
    """A run's limits as JSON, by their labels: tokens, or nano-dollars for costs; and its weights, if not flat."""
    limits: dict[str, int | str] = {budget.label: budget.limit for budget in manager.budgets}
    return json.dumps(limits if weights == Weights() else {**limits, WEIGHTS_KEY: weights.describe()})


def this_machine() -> str:
    """The machine's name in the ledger."""
    return platform.node() or "unknown"
