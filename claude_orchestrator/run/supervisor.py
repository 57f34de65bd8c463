"""Runs a plan: slots, holds, decisions. All in one event loop, so that a decision is atomic."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from claude_orchestrator.claude.events import Price
from claude_orchestrator.claude.failures import RATE_LIMIT
from claude_orchestrator.config.plan import LaunchSpec
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.launch.local import Launcher
from claude_orchestrator.run.instance_runner import (
    Accounts,
    ApiMeter,
    Level,
    Log,
    Records,
    Session,
    Unaccounted,
    Unrecorded,
)
from claude_orchestrator.run.retries import backoff_s, passing_cause, reset_wait_s, session_is_lost
from claude_orchestrator.run.state import InstanceStatus, State, rate_limit_rows
from token_budget.budget_manager import TokenBudgetManager
from token_budget.holds import GROW_BELOW, LEAST_SHARE_TOKENS, Adjustment, floor_of, max_min_shares
from token_budget.models import Action, Budget, Decision, Hold, Scope, Unit
from token_budget.text import NANO

LOOK_AT_CLOCK_S = 30.0
MAX_ADJUSTMENTS = 1_000


class Supervisor:
    """Runs instances inside their budgets; `instances` tells at any time what each is doing.

    `say` gets each message for the user, `on_change` is called after whatever a display may want to show, `open_log`
    gives the place for the raw lines of an instance's attempt, `knows_command` tells whether a slash command that a
    session does not list is one all the same (an alias), in which folder; `journal` gets every launch, count, decision
    and ending; `hide` takes secrets out of what an instance said last; through
    `meter`, where there is one, instances talk to the API; `accounts` are the books of all runs; `price` reckons what
    the CLI has no figure for. `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        instances: Sequence[InstanceStatus],
        settings: Settings,
        launcher: Launcher,
        manager: TokenBudgetManager,
        *,
        say: Callable[[Level, str], None],
        on_change: Callable[[], None] = lambda: None,
        open_log: Callable[[LaunchSpec, int], Log | None] = lambda spec, attempt: None,
        knows_command: Callable[[str, str], bool] = lambda folder, command: False,
        journal: Records | None = None,
        hide: Callable[[str], str] = str,
        meter: ApiMeter | None = None,
        accounts: Accounts | None = None,
        price: Price | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.instances = tuple(instances)
        self.manager = manager
        self.clock = clock
        self.now = now
        self.jitter = jitter
        self.cancelled = False
        self.settings = settings
        self.launcher = launcher
        self.say = say
        self.on_change = on_change
        self.open_log = open_log
        self.knows_command = knows_command
        self.hide = hide
        self.meter = meter
        self.accounts = accounts or Unaccounted()
        self.price = price
        self.adjustments: list[Adjustment] = []
        self.rate_limits: Mapping[str, Any] = {}
        self.journal = journal or Unrecorded()
        self._sessions: dict[str, Session] = {}
        self._wake = asyncio.Event()
        self._next_launch_at = 0.0
        self._syncing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Run every instance to its end; returns when nothing runs any more."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                pause_s = await self._launch_what_may(tasks)
                if all(status.ended for status in self.instances):
                    break
                try:
                    await asyncio.wait_for(self._wake.wait(), pause_s)
                except TimeoutError:
                    continue

    def cancel(self, reason: str, *, at_once: bool = False) -> None:
        """Start nothing more and stop what runs; `at_once`: without grace."""
        self.stop_all(State.CANCELLED, State.CANCELLED, reason, grace_s=0.0 if at_once else self.settings.grace_s)

    def look_again(self) -> None:
        """Budgets may have more room: let those go who wait for it."""
        self._wake.set()
        if self.meter is not None:
            self.meter.look_again()

    def stop_all(self, running: State, waiting: State, reason: str, grace_s: float | None = None) -> None:
        """Start nothing more and stop what runs; `running` and `waiting` are what becomes of those."""
        self.cancelled = True
        for status in self.instances:
            if status.state in (State.PENDING, State.WAITING):
                self._skip(status, waiting, reason)
        for session in list(self._sessions.values()):
            session.stop(running, reason, grace_s=grace_s)
        self._wake.set()
        self.on_change()

    # -- admission --

    async def _launch_what_may(self, tasks: asyncio.TaskGroup) -> float | None:
        """Launch what slots and budgets allow, in order; returns the seconds to the next look, or None.

        Who waits for a budget goes first: nobody who came later takes from that budget.
        """
        reserved: set[Budget] = set()
        pauses_s: list[float] = []
        for status in self.instances:
            if status.state not in (State.PENDING, State.WAITING):
                continue
            if len(self._sessions) >= self.settings.max_parallel:
                return None
            delay_s = self._next_launch_at - self.clock()
            if delay_s > 0:
                pauses_s.append(delay_s)
                break
            delay_s = max(status.not_before - self.clock(), status.not_before_wall - self.now())
            if delay_s > 0:
                # a machine may sleep meanwhile: look at its clock from time to time
                pauses_s.append(min(delay_s, LOOK_AT_CLOCK_S))
                continue
            spec = status.spec
            if not reserved.isdisjoint(self.budgets_of(spec)):
                self._wait(status, "others wait for the same budget")
                continue
            decision = await self._decide(status)
            if status.ended or self.cancelled:  # while others were asked
                self._give_back(decision.hold)
            elif decision.action is Action.BLOCK:
                self._block(status, decision.reason)
            elif decision.action is Action.WAIT or decision.hold is None:
                if decision.budget is not None:
                    reserved.add(decision.budget)
                self._wait(status, decision.reason)
            else:
                if decision.action is Action.WARN and decision.budget is not None:
                    would = _would_exceed(decision.budget)
                    self.say(Level.WARNING, f"{would} instance {spec.name} goes ahead ({decision.reason})")
                    self.journal.write("decision", instance=spec.name, action="warn", reason=decision.reason)
                self._launch(tasks, status, decision.hold)
        return min(pauses_s, default=None)

    async def _decide(self, status: InstanceStatus) -> Decision:
        """Whether an instance may be launched: by the budgets of this run, then by those that all runs share."""
        spec = status.spec
        decision = self.manager.reserve(spec.base_command, spec.estimate, spec.name)
        if decision.action is Action.WAIT and decision.budget is not None and self.settings.hold_policy == "fair":
            share_tokens = self._share(spec, decision.budget)
            if share_tokens is not None:
                decision = self.manager.reserve(
                    spec.base_command, replace(spec.estimate, tokens=share_tokens), spec.name
                )
        if decision.hold is None:
            return decision
        shared = await self.accounts.admit(status, decision.hold)
        if shared.action in (Action.BLOCK, Action.WAIT):
            self._give_back(decision.hold)
            return replace(shared, hold=None)
        return shared if shared.action is Action.WARN else decision

    def _give_back(self, hold: Hold | None) -> None:
        if hold is not None:
            self.manager.release(hold)
            self.accounts.released(hold)

    # -- adjustment: holds change, limits never --

    def _share(self, spec: LaunchSpec, budget: Budget) -> int | None:
        """Make room for one that would wait: everybody's hold becomes its max-min fair share of what is left.

        Returns what it may hold, or None where that is too little to start with.
        """
        holders = [session for session in self._sessions.values() if budget in session.hold.budgets]
        wanted = [*(session.hold.remaining.tokens for session in holders), spec.estimate.tokens]
        *shares, own = max_min_shares(budget.limit - budget.used - budget.held_elsewhere, wanted)
        if budget.unit is Unit.USD or own < floor_of(spec.estimate.tokens):
            return None
        for session, share in zip(holders, shares, strict=True):
            less = self.manager.shrink(session.hold, share)
            if less:
                why = f"so that {spec.name} can start: fair shares of what the {budget.label} budget has left"
                self._adjusted(session.status.name, f"hold of {session.status.name} down by {less:,} tokens, {why}")
        if own < spec.estimate.tokens:
            what = f"{spec.name} starts with {own:,} of {spec.estimate.tokens:,} tokens"
            self._adjusted(spec.name, f"{what}: its fair share of what the {budget.label} budget has left")
        return own

    def _grow(self, status: InstanceStatus, hold: Hold) -> None:
        """Let the hold of an instance that nears it grow, as far as there is room."""
        spec = status.spec
        if self.manager.enforcement_mode != "block" or self.settings.hold_policy == "off" or status.tally.metered:
            return
        if status.ending or status.work_done or hold.remaining.tokens >= GROW_BELOW * spec.estimate.tokens:
            return
        further, drawn = spec.estimate.tokens, self.settings.token_weights.draw(status.usage)
        forecast = spec.forecasts.get(Unit.TOKENS)
        if forecast is not None:
            expected = forecast.given(drawn).p50
            further = max(LEAST_SHARE_TOKENS, expected - drawn) if expected is not None else further
        room = min((budget.free for budget in hold.budgets if budget.unit is Unit.TOKENS), default=0)
        if room >= LEAST_SHARE_TOKENS:
            more = self.manager.grow(hold, further)
            text = f"hold of {spec.name} up by {more:,} tokens: it has used {status.total_tokens:,}"
            self._adjusted(spec.name, text, more)

    def _adjusted(self, instance: str, text: str, more_tokens: int = 0) -> None:
        self.journal.write("adjust", instance=instance, reason=text)
        self.accounts.adjusted("adjust", text, instance)
        if len(self.adjustments) < MAX_ADJUSTMENTS:
            self.adjustments.append(Adjustment(instance, text, more_tokens))

    def _wait(self, status: InstanceStatus, reason: str) -> None:
        if status.state is State.PENDING:
            self.say(Level.INFO, f"{status.name} waits: {reason}")
            self.journal.write("decision", instance=status.name, action="wait", reason=reason)
        status.state, status.reason = State.WAITING, reason
        self.on_change()

    def _block(self, status: InstanceStatus, reason: str) -> None:
        if status.failed_before:
            self._skip(status, State.FAILED, f"{status.failed_before}; not tried again: {reason}")
        else:
            self._skip(status, State.BLOCKED, reason)
        self.say(Level.ERROR, f"BLOCK MODE: Budget exceeded for instance {status.name}. Skipping. ({reason})")
        self.on_change()

    def _skip(self, status: InstanceStatus, state: State, reason: str) -> None:
        """It ends without a further launch."""
        status.skip(state, reason)
        self.journal.write("end", instance=status.name, attempt=0, state=state, reason=reason)

    def _launch(self, tasks: asyncio.TaskGroup, status: InstanceStatus, hold: Hold) -> None:
        self._next_launch_at = self.clock() + self.settings.startup_delay_s
        status.reason = status.failed_before = ""
        status.begin(self.clock())
        spec = status.spec
        self.journal.write(
            "launch",
            instance=status.name,
            attempt=status.attempts,
            hold=hold.remaining.tokens,
            session=spec.session_id,
            turns_done=spec.turns_before,
            goes_on=spec.goes_on,
        )
        self.accounts.note(status)
        session = Session(self, status, hold)
        self._sessions[status.name] = session
        tasks.create_task(self._supervise(session))

    async def _supervise(self, session: Session) -> None:
        status = session.status
        self.on_change()
        try:
            await self._sync()
            await session.run()
        finally:
            del self._sessions[status.name]
            self._give_back(session.hold)
            self._wake.set()
        self._record_end(status)
        if self._try_again(status):
            return
        await self._sync()
        took_s = status.this_attempt.seconds
        said = f"{status.name}: {status.state} after {took_s:.1f} s, {status.total_tokens:,} tokens"
        level = Level.INFO if status.state is State.COMPLETED else Level.ERROR
        self.say(level, f"{said}: {status.reason}" if status.reason else said)
        self.on_change()
        if status.state in (State.FAILED, State.TIMED_OUT) and self.settings.fail_fast:
            self.cancel(f"cancelled because {status.name} failed")

    async def _sync(self) -> None:
        """Wait until journal and ledger have what was written so far."""
        await asyncio.gather(self.journal.sync(), self.accounts.sync())

    def _try_again(self, status: InstanceStatus) -> bool:
        """Whether an ended attempt is followed by another, which is then made ready."""
        cause = passing_cause(status)
        if self.cancelled or (cause is None and not session_is_lost(status)):
            return False
        reset_s = None
        if cause == RATE_LIMIT and self.settings.wait_for_reset:
            reset_s = reset_wait_s(status.limit_resets_at, self.now(), self.jitter())
        if cause is None:
            wait_s, why = 0.0, "its session is lost: anew"
        elif reset_s is not None:
            wait_s, why = reset_s, "when its rate limit resets"
        elif status.retries_used < status.spec.retries:
            status.retries_used += 1
            wait_s = backoff_s(status.retries_used, self.jitter())
            why = f"retry {status.retries_used} of {status.spec.retries}"
        else:
            return False
        at = datetime.fromtimestamp(self.now() + wait_s)
        when = f"{at:%H:%M:%S}" if wait_s < 43_200 else f"{at:%Y-%m-%d %H:%M}"
        failed, attempt = status.reason, status.attempts
        status.again(afresh=cause is None)
        status.failed_before, status.state = failed, State.WAITING
        status.reason = f"goes on at {when} ({why}) after: {failed}"
        status.not_before, status.not_before_wall = self.clock() + wait_s, float("-inf")
        if reset_s is not None:
            status.not_before, status.not_before_wall = float("-inf"), self.now() + wait_s
        self.journal.write("retry", instance=status.name, attempt=attempt, cause=cause, wait_s=round(wait_s, 3))
        self.say(Level.WARNING, f"{status.name}: attempt {attempt} failed, {status.reason}")
        self._wake.set()
        self.on_change()
        return True

    def _record_end(self, status: InstanceStatus) -> None:
        self.accounts.ended(status)
        attempt = status.this_attempt
        self.journal.write(
            "end",
            instance=status.name,
            attempt=status.attempts,
            state=status.state,
            reason=status.reason,
            usage=attempt.usage.counts,
            exact=attempt.exact,
            cost_usd=attempt.cost_usd,
            seconds=round(attempt.seconds, 3),
            done=status.done,
            session=status.session_id,
            turns_done=status.turns_completed,
            exit_code=status.exit_code,
        )

    # -- budgets --

    def budgets_of(self, spec: LaunchSpec) -> tuple[Budget, ...]:
        """The budgets that this instance draws on."""
        return self.manager.budgets_for(spec.base_command, spec.name)

    def release(self, hold: Hold) -> None:
        """Give back what is left of a hold."""
        self.manager.release(hold)

    def record(self, status: InstanceStatus, hold: Hold | None) -> None:
        """Book what an instance has used since the last time, then judge it."""
        if not status.take_news():
            return
        self.accounts.note(status)
        usage = status.tally.usage.counts
        self.journal.write(
            "usage", instance=status.name, attempt=status.attempts, usage=usage, cost_usd=status.tally.cost_usd
        )
        delta = status.take_delta(self.settings.token_weights)
        command, name = status.spec.base_command, status.name
        for budget in self.manager.record(command, delta, name, hold):
            self.crossed(budget)
        if hold is not None:
            self._grow(status, hold)

    def rate_limits_told(self, limits: Mapping[str, Any]) -> None:
        """A subscription's limits: kept for the reports, and a reason to stop where that was asked for."""
        self.rate_limits = limits
        percent = self.settings.stop_at_rate_limit
        if percent is None or self.cancelled:
            return
        for name, used, resets_at in rate_limit_rows(limits):
            if used >= percent:
                when = f", resets at {resets_at}" if resets_at else ""
                reason = f"{name} limit of the subscription: {used:g} % used, to stop at {percent:g} %{when}"
                self.say(Level.ERROR, f"stopping: {reason}")
                self.stop_all(State.STOPPED, State.BLOCKED, reason)
                return

    def max_usd_of(self, spec: LaunchSpec, hold: Hold) -> str | None:
        """What an instance may spend at most, as text, where its budgets in money are enforced."""
        if self.manager.enforcement_mode != "block":
            return None
        budgets = [budget for budget in self.budgets_of(spec) if budget.unit is Unit.USD]
        left = min((budget.limit - budget.used for budget in budgets), default=0)
        return f"{left / NANO:.6f}" if left > 1000 else None

    def crossed(self, budget: Budget) -> None:
        self.say(Level.WARNING, _exceeded(budget))
        self.journal.write("crossing", budget=budget.label, used=budget.used, limit=budget.limit)
        self._syncing = asyncio.ensure_future(self._sync())  # not waited for: the stops come first
        if self.manager.enforcement_mode == "block":
            for session in list(self._sessions.values()):
                session.stop_if_over()
            self._wake.set()

    def over_budget(self, spec: LaunchSpec) -> Budget | None:
        """In block mode, the budget of this instance whose limit is passed, if there is one."""
        if self.manager.enforcement_mode != "block":
            return None
        return next((budget for budget in self.budgets_of(spec) if budget.exceeded), None)


def _exceeded(budget: Budget) -> str:
    return f"Budget exceeded for {_label(budget)} ({_figures(budget)})"


def _would_exceed(budget: Budget) -> str:
    return f"Budget would be exceeded for {_label(budget)} ({_figures(budget)}):"


def _label(budget: Budget) -> str:
    return budget.label.replace("overall", "overall session") if budget.scope is Scope.OVERALL else budget.label


def _figures(budget: Budget) -> str:
    if budget.unit is Unit.USD:
        return f"used: {budget.figures()}"
    return f"used: {budget.used}/{budget.limit} tokens"
