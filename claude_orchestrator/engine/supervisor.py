"""Runs a plan: decides when each instance starts, and handles its end. One event loop makes each decision atomic."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable
from functools import partial
from typing import TYPE_CHECKING

from claude_orchestrator.claude.argv import model_of
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.engine.eligibility import (
    Eligible,
    NotYet,
    Queued,
    StartConditions,
    eligibility,
)
from claude_orchestrator.engine.hidden_use import HiddenUse
from claude_orchestrator.engine.hold_policy import HoldPolicy
from claude_orchestrator.engine.instance_runner import InstanceRunner, figures
from claude_orchestrator.engine.instances import Instances
from claude_orchestrator.engine.launch_decisions import LaunchDecisions
from claude_orchestrator.engine.launch_pace import LaunchPace
from claude_orchestrator.engine.retries import plan_retry
from claude_orchestrator.engine.run_context import RunContext
from claude_orchestrator.engine.run_events import (
    AttemptEnded,
    Changed,
    ChangesKept,
    Checked,
    Crossed,
    Decided,
    Foreseen,
    InstanceEnded,
    Launched,
    Level,
    Message,
    ModelChosen,
    Paced,
    RateLimited,
    RateLimitsRead,
    Reopened,
    RetryPlanned,
    RoomChanged,
    RunEvent,
    RunStopping,
    UsageRecorded,
)
from claude_orchestrator.engine.sharing.first_turns import FirstTurns
from claude_orchestrator.engine.slots import Slots
from claude_orchestrator.engine.state import InstanceStatus, State
from claude_orchestrator.launch.background import run_in_thread
from token_budget.budget_manager import WINDOW_SCOPES
from token_budget.fields import BadValue
from token_budget.models import Action, Budget, Decision, Hold, Scope
from token_budget.text import counted

if TYPE_CHECKING:
    from claude_orchestrator.engine.sharing.cache_keeping import CacheKeeping

WAITS_FOR_NODE = "waits for a place on a node that has what it needs"
RECHECK_PACE_S = 0.25  # while more instances would only wait, for the API's rate limits or for the machine
SHARED_BY_ALL = frozenset({Scope.OVERALL, *WINDOW_SCOPES})  # budgets that every instance draws on


class Supervisor:
    """Runs instances inside their budgets; `instances` always shows what each is doing.

    It observes the run's events: a crossing stops instances, and more room lets waiting ones start.
    """

    def __init__(self, instances: list[InstanceStatus], context: RunContext) -> None:
        self.instances = instances
        self.manager = context.manager
        self.cancelled = self.begun = False
        self.slots = Slots(context.settings.max_parallel)
        wait_s = context.settings.cache_wait_s
        self._first_turns = FirstTurns(wait_s, context.clock.monotonic) if wait_s else None
        self._keeping = self._keeping_in(context)
        services = context.services._replace(first_turns=self._first_turns, keeping=self._keeping)
        context = context._replace(services=services)
        self._context = context
        self._settings = context.settings
        self._bus = context.bus
        self._holds = HoldPolicy(context)
        self._hidden = HiddenUse(context.settings.stop_margin, context.settings.token_weights)
        self._decisions = LaunchDecisions(context, self._holds)
        self._runners: dict[str, InstanceRunner] = {}
        self._graph = Instances(instances)
        self._wake = asyncio.Event()
        self._next_launch_at = 0.0
        self._pace = LaunchPace()
        self._is_spread = False
        self._syncing: asyncio.Task[None] | None = None
        self._bus.attach(self)

    async def run(self) -> None:
        """Run every instance to its end."""
        self.begun = True
        await self._take_up(self.instances)
        async with self._keeping or contextlib.nullcontext():
            await self._run()

    async def _run(self) -> None:
        """Launch what may start, until nothing is active."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                pause_s = await self._launch_eligible(tasks)
                if not self._graph.active:
                    break
                try:
                    await asyncio.wait_for(self._wake.wait(), pause_s)
                except TimeoutError:
                    continue

    def observe(self, event: RunEvent) -> None:
        """React to what changes who may run."""
        match event:
            case Crossed():
                self._stop_over_budget()
            case Foreseen(budget, tokens) if not (self._decisions.is_foreseen(budget) or budget.exceeded):
                self._stop_before(budget, tokens)
            case Checked(instance, _, verdict, _) if verdict.passed:
                self._settle_race(instance)
            case UsageRecorded(status, delta) if self._first_turns is not None and delta.reads_input:
                self._first_turns.responded(status.name)
            case RoomChanged():
                self.recheck()
            case RateLimitsRead():
                self._check_rate_limits(event)
            case RateLimited():
                self._slow_down()
            case _:
                pass

    def cancel(self, reason: str, *, at_once: bool = False) -> None:
        """Start nothing more and stop what runs; `at_once` leaves no grace time."""
        self._stop_all(State.CANCELLED, State.CANCELLED, reason, 0.0 if at_once else self._settings.grace_s)

    def recheck(self) -> None:
        """Budgets may have more room: let waiting instances and requests proceed."""
        self._wake.set()
        self._decisions.forget_windows()
        if self._context.services.meter is not None:
            self._context.services.meter.recheck()

    # -- what a person changes --

    def pause(self, paused: bool) -> None:
        """Launch nothing more, or launch again."""
        self.slots.pause(paused)
        self._changed()

    def set_max_parallel(self, most: int) -> None:
        """From now on so many instances may run at once."""
        self.slots.allow(most)
        self._changed()

    def stop(self, status: InstanceStatus, reason: str) -> None:
        """Stop an instance, or do not launch it."""
        if status.name in self._runners:
            self._runners[status.name].stop(State.STOPPED, reason)
        elif not status.ended:
            self._skip(status, State.STOPPED, reason)

    def reopen(self, budgets: Collection[Budget]) -> None:
        """Limits have changed: instances that were blocked may start, if all their budgets allow it now."""
        self._decisions.forget(budgets)
        for status in [one for one in self.instances if one.state is State.BLOCKED]:
            spec = status.spec
            if not any(budget in budgets for budget in self._context.budgets_of(spec)):
                continue
            if self.manager.decide(spec.base_command, spec.estimate, spec.name).action is not Action.BLOCK:
                for one in self._graph.reopen(status):
                    one.reopen()
                    self._bus.publish(Reopened(one))
        self._wake.set()

    def _changed(self) -> None:
        self._wake.set()
        self._bus.publish(Changed())

    # -- admission --

    async def _launch_eligible(self, tasks: asyncio.TaskGroup) -> float | None:
        """Launch what slots and budgets allow, in order; returns the seconds until the next check, or None.

        An instance that waits for a budget has priority: no later one may draw on that budget.
        """
        reserved: set[Budget] = set()
        pauses_s: list[float] = []
        passed: list[InstanceStatus] = []
        while (status := self._graph.take()) is not None:
            if status.planned.grows is not None:
                await self._grow(status)
                continue
            passed.append(status)
            self._choose_model(status)
            match eligibility(status, self._context.budgets_of(status.spec), self._moment(reserved)):
                case NotYet(pause_s, for_all):
                    pauses_s += [] if pause_s is None else [pause_s]
                    if for_all:
                        break
                case Queued(reason):
                    self._wait(status, Decision(Action.WAIT, reason))
                case Eligible() if not self._has_place(status):
                    self._wait(status, Decision(Action.WAIT, WAITS_FOR_NODE))
                case Eligible():
                    decision, pause_s = await self._decide(status)
                    pauses_s += [pause_s] if pause_s else []
                    await self._act(tasks, status, decision)
                    if decision.action is Action.WAIT and decision.budget is not None:
                        reserved.add(decision.budget)
            if any(budget.scope in SHARED_BY_ALL for budget in reserved) and not self._graph.undecided:
                break  # every other one is queued already
        self._graph.put_back(passed)
        return min(pauses_s, default=None)

    def _moment(self, reserved: set[Budget]) -> StartConditions:
        """What eligibility depends on now."""
        clock, meter = self._context.clock, self._context.services.meter
        now = clock.monotonic()
        next_launch_at = max(self._next_launch_at, self._pace.next_at(now))
        starts = self._context.services.starts
        if (meter is not None and meter.is_slow) or (starts is not None and starts.is_crowded(now)):
            next_launch_at = max(next_launch_at, now + RECHECK_PACE_S)
        slots, places = self.slots.free(len(self._runners)), self._context.services.places
        slots = slots if places is None else min(slots, places.free)
        return StartConditions(now, clock.wall(), next_launch_at, slots, frozenset(reserved))

    def _keeping_in(self, context: RunContext) -> CacheKeeping | None:
        """What keeps the prompt cache warm, if that is asked for."""
        meter = context.services.meter
        if meter is None or meter.keeper is None:
            return None
        from claude_orchestrator.engine.sharing.cache_keeping import CacheKeeping  # seldom needed

        return CacheKeeping(context, meter.keeper, self.instances, self._starts_in_s)

    def _starts_in_s(self, status: InstanceStatus) -> float:
        """How long an instance has to wait at least."""
        clock = self._context.clock
        by_time = max(self._next_launch_at, status.not_before) - clock.monotonic()
        return max(0.0, by_time, status.not_before_wall - clock.wall())

    def _has_place(self, status: InstanceStatus) -> bool:
        """Whether the cluster, if there is one, has a place for an instance."""
        places = self._context.services.places
        return places is None or places.has_room(status.spec)

    def _choose_model(self, status: InstanceStatus) -> None:
        """Give an instance another model before its first start, if little of its budgets is left."""
        low = self._settings.model_when_low
        if low is None or status.launched or status.chosen_model or status.spec.session_id is not None:
            return
        from claude_orchestrator.engine.low_budget import low_budget

        budget = low_budget(low, self._context.budgets_of(status.spec))
        if budget is not None and model_of(status.spec.argv) != low.model:
            status.use_model(low.model)
            self._bus.publish(ModelChosen(status.name, low.model, budget))

    async def _decide(self, status: InstanceStatus) -> tuple[Decision, float]:
        """Whether an instance may be launched, and how long the launch rate delays every launch."""
        holders = ((name, runner.hold) for name, runner in self._runners.items())
        decision = await self._decisions.decide(status, holders)
        decision, pause_s = await self._decisions.within_launch_rate(decision)
        if pause_s:
            self._next_launch_at = self._context.clock.monotonic() + pause_s
        return decision, pause_s

    async def _act(self, tasks: asyncio.TaskGroup, status: InstanceStatus, decision: Decision) -> None:
        spec = None
        if decision.hold is not None:
            spec = await self._filled(status)
        if status.ended or self.cancelled:  # it was stopped meanwhile, or its texts cannot be filled
            self._context.release(decision.hold)
        elif decision.action is Action.BLOCK:
            self._block(status, decision)
        elif decision.hold is None or spec is None:
            self._wait(status, decision)
        else:
            if decision.action is Action.WARN:
                self._bus.publish(Decided(status.name, Action.WARN, decision.reason, decision.budget))
            status.attempt.fill(spec)
            self._launch(tasks, status, decision.hold)

    async def _grow(self, group: InstanceStatus) -> None:
        """Replace a group, whose upstream has ended, by its instances. If that is not possible, the group fails."""
        try:
            work = partial(self._graph.members, group.planned, self._context.services.answers)
            instances, repeated = await run_in_thread(work)
            if group.ended or self.cancelled:
                return
            members = self._context.services.enter(group.planned, instances, self._bus)
        except BadValue as error:
            if not (group.ended or self.cancelled):
                self._fail(group, f"cannot be expanded: {error.brief}")
            return
        if repeated:
            self._bus.warn(f"{group.name}: {counted(repeated, 'repeated item')} left out: each item is one instance")
        if not members:
            self._bus.publish(Message(Level.INFO, f"{group.name}: the list is empty: there is nothing to do"))
        self._graph.grow(group, members)
        await self._take_up(members)

    async def _filled(self, status: InstanceStatus) -> LaunchSpec | None:
        """The spec with the results of others in its texts. If they cannot be filled in, the instance fails."""
        if status.spec.late is None:
            return status.spec
        try:
            work = partial(self._graph.filled, status.spec, self._context.services.answers)
            return await run_in_thread(work)
        except BadValue as error:
            why = error.brief
        except OSError as error:
            why = f"the results cannot be kept in a file: {error.strerror or error}"
        if not (status.ended or self.cancelled):
            self._fail(status, f"cannot be launched: {why}")
        return None

    def _fail(self, status: InstanceStatus, reason: str) -> None:
        """Fail an instance without a launch."""
        self._skip(status, State.FAILED, reason)
        self._bus.publish(Message(Level.ERROR, f"{status.name}: failed: {reason}"))
        self._fail_fast(status)

    def _wait(self, status: InstanceStatus, decision: Decision) -> None:
        is_new = status.state is State.PENDING
        self._graph.undecided.discard(status.name)
        status.wait(decision.reason)
        self._bus.publish(Decided(status.name, Action.WAIT, decision.reason) if is_new else Changed())

    def _block(self, status: InstanceStatus, decision: Decision) -> None:
        if status.failed_before:
            self._skip(status, State.FAILED, f"{status.failed_before}; not retried: {decision.reason}")
        else:
            self._skip(status, State.BLOCKED, decision.reason)
        self._bus.publish(Decided(status.name, Action.BLOCK, decision.reason, decision.budget))

    def _skip(self, status: InstanceStatus, state: State, reason: str, *, unneeded: bool = False) -> None:
        """End an instance without a further launch."""
        status.skip(state, reason, unneeded=unneeded)
        self._bus.publish(InstanceEnded(status, launched=False))
        self._ended(status)

    def _ended(self, status: InstanceStatus) -> None:
        """Nothing more will happen to an instance: others are ready now, or are skipped."""
        for skipped, reason, unneeded in tuple(self._graph.end(status)):
            if not self.cancelled:
                self._skip(skipped, State.SKIPPED, reason, unneeded=unneeded)
        self._wake.set()

    # -- one attempt --

    def _launch(self, tasks: asyncio.TaskGroup, status: InstanceStatus, hold: Hold) -> None:
        now = self._context.clock.monotonic()
        self._next_launch_at = now + self._settings.startup_delay_s
        self._pace.launched(now)
        status.begin(now)
        if self._context.services.starts is not None:
            self._context.services.starts.began(status.name, now)
        if self._is_spread:
            self._publish_pace()
        self._graph.undecided.discard(status.name)
        if self._context.services.places is not None:
            self._context.services.places.take(status.spec)
        runner = InstanceRunner(self._context, status, hold, self._holds, self._hidden)
        self._runners[status.name] = runner
        self._bus.publish(Launched(status, hold))
        tasks.create_task(self._supervise(runner))

    async def _supervise(self, runner: InstanceRunner) -> None:
        status = runner.status
        try:
            await self._bus.sync()
            await runner.run()
        finally:
            del self._runners[status.name]
            if self._context.services.starts is not None:
                self._context.services.starts.ended(status.name)
            if self._context.services.places is not None:
                self._context.services.places.give_back(status.name)
            if self._first_turns is not None:
                self._first_turns.ended(status.name)
            self._context.release(runner.hold)
            self._wake.set()
        self._bus.publish(AttemptEnded(status))
        await self._keep_changes(status)
        if self._plan_retry(status):
            return
        await self._bus.sync()
        self._bus.publish(InstanceEnded(status, launched=True))
        status.attempt.unfill()
        self._fail_fast(status)
        self._ended(status)

    def _fail_fast(self, status: InstanceStatus) -> None:
        if self._settings.fail_fast and self._graph.failure_of(status) in ("failed", "timed out"):
            self.cancel(f"cancelled because {status.name} failed")

    async def _keep_changes(self, status: InstanceStatus) -> None:
        """Keep what the instance has changed in its worktree, if it has one."""
        worktrees = self._context.services.worktrees
        if worktrees is not None and status.worktree is not None:
            status.keep_changes(await worktrees.close(status.spec, status.worktree))
            self._bus.publish(ChangesKept(status.name, status.changes))

    async def _take_up(self, statuses: Iterable[InstanceStatus]) -> None:
        """Keep the changes of instances that ended in an earlier start, and settle their races."""
        ended = [status for status in statuses if status.ended]
        await self._keep_earlier_changes(ended)
        for status in ended:
            self._ended(status)
            if status.state is State.COMPLETED:
                self._settle_race(status.name)

    async def _keep_earlier_changes(self, ended: Iterable[InstanceStatus]) -> None:
        """Keep what instances had changed when an earlier start was killed just after they completed."""
        worktrees = self._context.services.worktrees
        if worktrees is None:
            return
        for status in ended:
            if status.planned.worktree:
                found = await worktrees.find(status.planned)
                if found is None:
                    continue
                status.work_in(found)
                if not status.changes_known:
                    await self._keep_changes(status)

    def _plan_retry(self, status: InstanceStatus) -> bool:
        """Prepare another attempt if one should follow; returns whether one does."""
        retry = None if self.cancelled else plan_retry(status, self._settings, self._context.clock)
        if retry is None:
            return False
        attempt = status.attempts
        status.retry_later(retry)
        self._graph.put_back([status])
        self._bus.publish(RetryPlanned(status, attempt, retry.cause, retry.wait_s))
        self._wake.set()
        return True

    # -- stops --

    def _settle_race(self, winner: str) -> None:
        """Stop the other attempts of a race, because one is verified."""
        race = self._graph.race_of(winner)
        reason = f"{winner} was verified first"
        for status in race:
            if status.name == winner or status.state is State.COMPLETED:
                continue
            status.lose_race()
            if status.name in self._runners:
                self._runners[status.name].stop(State.STOPPED, reason)
            elif not status.ended:
                self._skip(status, State.STOPPED, reason, unneeded=True)

    def _stop_over_budget(self) -> None:
        """In block mode stop every instance that draws on a budget whose limit is passed."""
        self._syncing = asyncio.ensure_future(self._bus.sync())  # not awaited: the stops come first
        if self._context.enforces:
            for runner in list(self._runners.values()):
                runner.stop_if_over()
            self._wake.set()

    def _slow_down(self) -> None:
        """The API refuses requests: spread the launches that are still to come."""
        if self._pace.refused(self._context.clock.monotonic()):
            text = self._publish_pace()
            if text is not None:
                self._bus.publish(Message(Level.WARNING, text))

    def _publish_pace(self) -> str | None:
        still = any(status.state in (State.PENDING, State.WAITING) for status in self.instances)
        text = self._pace.describe(self._context.clock.monotonic()) if still else None
        self._is_spread = text is not None
        self._bus.publish(Paced(text))
        return text

    def _stop_before(self, budget: Budget, tokens: int) -> None:
        """Stop every instance that draws on a budget which is spent once the responses in progress are counted."""
        in_progress = f" and at least {counted(tokens, 'token')} of responses in progress" if tokens else ""
        margin = self._hidden.margin_percent
        why = figures(budget) + in_progress + (f", with a margin of {margin:g} %" if margin else "")
        self._decisions.foresee(budget, why)
        self._syncing = asyncio.ensure_future(self._bus.sync())  # not awaited: the stops come first
        for runner in list(self._runners.values()):
            runner.stop_for(budget, why)
        self._wake.set()

    def _check_rate_limits(self, event: RateLimitsRead) -> None:
        """Stop the run if a subscription's limit is used up to the percentage that was set."""
        percent = self._settings.stop_at_rate_limit
        if percent is None or self.cancelled:
            return
        from claude_orchestrator.engine.rate_limits import rate_limit_rows

        for name, used, resets_at in rate_limit_rows(event.limits):
            if used >= percent:
                when = f", resets at {resets_at}" if resets_at else ""
                reason = f"{name} limit of the subscription: {used:g} % used, the run stops at {percent:g} %{when}"
                self._bus.publish(RunStopping(reason))
                self._stop_all(State.STOPPED, State.BLOCKED, reason)
                return

    def _stop_all(self, running: State, waiting: State, reason: str, grace_s: float | None = None) -> None:
        """Start nothing more and stop what runs. `running` and `waiting` are the final states of such instances."""
        self.cancelled = True
        if self._keeping is not None:
            self._keeping.stop()
        for status in self.instances:
            if status.state in (State.PENDING, State.WAITING):
                self._skip(status, waiting, reason)
        for runner in list(self._runners.values()):
            runner.stop(running, reason, grace_s=grace_s)
        self._wake.set()
        self._bus.publish(Changed())
