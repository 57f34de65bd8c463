"""Runs a plan: slots, holds, decisions. All in one event loop, so that a decision is atomic."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from claude_orchestrator.instance import InstanceStatus, State
from claude_orchestrator.launcher import Launcher
from claude_orchestrator.plan import LaunchSpec
from claude_orchestrator.retries import RATE_LIMIT, backoff_s, passing_cause, reset_wait_s, session_is_lost
from claude_orchestrator.session import ApiMeter, Level, Log, Records, Session, Unrecorded
from claude_orchestrator.settings import Settings
from token_budget.budget_manager import TokenBudgetManager
from token_budget.models import Action, CommandBudgetInfo, Hold, Scope

LOOK_AT_CLOCK_S = 30.0


class Supervisor:
    """Runs instances inside their budgets; `instances` tells at any time what each is doing.

    `say` gets each message for the user, `on_change` is called after whatever a display may want to show, `open_log`
    gives the place for the raw lines of an instance's attempt, `knows_command` tells whether a slash command that a
    session does not list is one all the same (an alias), in which folder; `journal` gets every launch, count, decision
    and ending; `hide` takes secrets out of what an instance said last; through
    `meter`, where there is one, instances talk to the API. `clock` is monotonic, in seconds.
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
        self.journal = journal or Unrecorded()
        self._sessions: dict[str, Session] = {}
        self._wake = asyncio.Event()
        self._next_launch_at = 0.0
        self._syncing: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Run every instance to its end; returns when nothing runs any more."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                pause_s = self._launch_what_may(tasks)
                if all(status.ended for status in self.instances):
                    break
                try:
                    await asyncio.wait_for(self._wake.wait(), pause_s)
                except TimeoutError:
                    continue

    def cancel(self, reason: str, *, at_once: bool = False) -> None:
        """Start nothing more and stop what runs; `at_once`: without grace."""
        self.cancelled = True
        for status in self.instances:
            if status.state in (State.PENDING, State.WAITING):
                self._skip(status, State.CANCELLED, reason)
        for session in list(self._sessions.values()):
            session.stop(State.CANCELLED, reason, grace_s=0.0 if at_once else self.settings.grace_s)
        self._wake.set()
        self.on_change()

    # -- admission --

    def _launch_what_may(self, tasks: asyncio.TaskGroup) -> float | None:
        """Launch what slots and budgets allow, in order; returns the seconds to the next look, or None.

        Who waits for a budget goes first: nobody who came later takes from that budget.
        """
        reserved: set[CommandBudgetInfo] = set()
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
            decision = self.manager.reserve(spec.base_command, spec.estimate_tokens, spec.name)
            if decision.action is Action.BLOCK:
                self._block(status, decision.reason)
            elif decision.hold is None:
                if decision.budget is not None:
                    reserved.add(decision.budget)
                self._wait(status, decision.reason)
            else:
                if decision.action is Action.WARN and decision.budget is not None:
                    self.say(Level.WARNING, f"{_would_exceed(decision.budget)} instance {spec.name} goes ahead")
                    self.journal.write("decision", instance=spec.name, action="warn", reason=decision.reason)
                self._launch(tasks, status, decision.hold)
        return min(pauses_s, default=None)

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
            hold=hold.remaining,
            session=spec.session_id,
            turns_done=spec.turns_before,
            goes_on=spec.goes_on,
        )
        session = Session(self, status, hold)
        self._sessions[status.name] = session
        tasks.create_task(self._supervise(session))

    async def _supervise(self, session: Session) -> None:
        status = session.status
        self.on_change()
        try:
            await self.journal.sync()
            await session.run()
        finally:
            del self._sessions[status.name]
            self.manager.release(session.hold)
            self._wake.set()
        self._record_end(status)
        if self._try_again(status):
            return
        await self.journal.sync()
        took_s = status.this_attempt.seconds
        said = f"{status.name}: {status.state} after {took_s:.1f} s, {status.total_tokens:,} tokens"
        level = Level.INFO if status.state is State.COMPLETED else Level.ERROR
        self.say(level, f"{said}: {status.reason}" if status.reason else said)
        self.on_change()
        if status.state in (State.FAILED, State.TIMED_OUT) and self.settings.fail_fast:
            self.cancel(f"cancelled because {status.name} failed")

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

    def budgets_of(self, spec: LaunchSpec) -> tuple[CommandBudgetInfo, ...]:
        """The budgets that this instance draws on."""
        return self.manager.budgets_for(spec.base_command, spec.name)

    def record(self, status: InstanceStatus, hold: Hold | None) -> None:
        """Book what an instance has used since the last time, then judge it."""
        if not status.take_news():
            return
        usage = status.tally.usage.counts
        self.journal.write(
            "usage", instance=status.name, attempt=status.attempts, usage=usage, cost_usd=status.tally.cost_usd
        )
        delta = status.take_delta(self.settings.token_weights)
        for budget in self.manager.record_usage(status.spec.base_command, delta, status.name, hold):
            self._crossed(budget)

    def _crossed(self, budget: CommandBudgetInfo) -> None:
        self.say(Level.WARNING, _exceeded(budget))
        self.journal.write("crossing", budget=budget.label, used=budget.used, limit=budget.limit)
        self._syncing = asyncio.ensure_future(self.journal.sync())  # not waited for: the stops come first
        if self.manager.enforcement_mode == "block":
            for session in list(self._sessions.values()):
                session.stop_if_over()
            self._wake.set()

    def over_budget(self, spec: LaunchSpec) -> CommandBudgetInfo | None:
        """In block mode, the budget of this instance whose limit is passed, if there is one."""
        if self.manager.enforcement_mode != "block":
            return None
        return next((budget for budget in self.budgets_of(spec) if budget.exceeded), None)


def _exceeded(budget: CommandBudgetInfo) -> str:
    label = "overall session" if budget.scope is Scope.OVERALL else budget.label
    return f"Budget exceeded for {label} (used: {budget.used}/{budget.limit} tokens)"


def _would_exceed(budget: CommandBudgetInfo) -> str:
    label = "overall session" if budget.scope is Scope.OVERALL else budget.label
    return f"Budget would be exceeded for {label} (used: {budget.used}/{budget.limit} tokens):"
