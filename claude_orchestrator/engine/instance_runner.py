"""One launched instance: sends its turns, asks for its usage, reacts to what it prints, and stops it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from claude_orchestrator.claude.events import (
    CommandsAnswer,
    ControlCancelled,
    ControlRequest,
    Event,
    Init,
    Result,
    Retry,
    Task,
    UsageAnswer,
)
from claude_orchestrator.claude.input_messages import control_request, not_supported, permission, turn
from claude_orchestrator.claude.prompt_cache import FOLDER_FREE_REQUEST
from claude_orchestrator.claude.stream import LineBatch, only_answers
from claude_orchestrator.claude.unknown_models import unrecognized_models
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.engine.activity import Activity, ActivityTracker, Doing
from claude_orchestrator.engine.approvals import Reply
from claude_orchestrator.engine.attempt_recorder import AttemptRecorder
from claude_orchestrator.engine.command_check import ANSWER_S, CommandCheck
from claude_orchestrator.engine.hidden_use import HiddenUse
from claude_orchestrator.engine.hold_policy import HoldPolicy
from claude_orchestrator.engine.permissions import Permissions
from claude_orchestrator.engine.refused_request import RefusedRequest
from claude_orchestrator.engine.run_context import RunContext
from claude_orchestrator.engine.run_events import (
    Changed,
    RateLimited,
    RateLimitsRead,
    Stopping,
    WorkEnded,
)
from claude_orchestrator.engine.sharing.first_turns import WAITS_FOR_CACHE
from claude_orchestrator.engine.state import InstanceStatus, State
from claude_orchestrator.engine.timers import Timers
from claude_orchestrator.engine.usage_poller import UsagePoller
from claude_orchestrator.launch.base import Exit, Running
from token_budget.models import Budget, Hold, Unit
from token_budget.text import NANO

if TYPE_CHECKING:
    from claude_orchestrator.engine.check_runner import CheckRunner
    from claude_orchestrator.engine.metering import Metering
    from claude_orchestrator.engine.ports import Log
    from claude_orchestrator.engine.verification import Verification

LINGER_S = 30.0  # of silence, for a process whose work is done and whose input is closed
EXIT_S = 5.0  # for a process that has closed its output
BACKGROUND_S = 600.0  # how long a finished turn waits for what works in the background
FOLLOW_UP_S = 2.0  # the CLI's time to begin its own turn after a background subagent has ended
LEAST_NANO_USD = 1_000  # a limit below this would round to nothing


class InstanceRunner:
    """One attempt at an instance, from launch to end."""

    def __init__(
        self, context: RunContext, status: InstanceStatus, hold: Hold, holds: HoldPolicy, hidden: HiddenUse
    ) -> None:
        self.status = status
        self.hold = hold
        self._context = context
        self._bus = context.bus
        self._services = context.services
        self._grace_s = context.settings.grace_s
        stops = context.budgets_of(status.spec) if context.enforces else ()
        self._recorder = AttemptRecorder(context, status, hold, holds, hidden, stops)
        self._poller = UsagePoller(status, self._send, hidden, stops)
        self._folder = ""  # where the process works, if that is no folder here
        self._activity = ActivityTracker(lambda: self._folder or status.spec.cwd)
        self._permissions = Permissions(
            status.spec, context.services.approvals, context.bus, self._answer, self._asks_or_not
        )
        self._commands = CommandCheck(status.spec, context.services.found_command)
        self._running: Running | None = None
        self._metering: Metering | None = None
        self._refusals = RefusedRequest(self._await_refused)
        self._stop_grace_s: float | None = None
        self._timers = Timers()
        verification = status.verification
        self._checks = self._make_checks(verification) if verification is not None else None
        self._checking: asyncio.Future[None] | None = None
        self._waits = self._waited = False  # for the shared prompt cache

    def _make_checks(self, verification: Verification) -> CheckRunner:
        from claude_orchestrator.engine.check_runner import CheckRunner

        return CheckRunner(self._context, self.status, verification)

    async def run(self) -> None:
        """Launch, read to the end, judge. A check that was interrupted comes before the launch."""
        timeout_s = self.status.spec.timeout_s
        if timeout_s is not None:
            timed_out = partial(self.stop, State.TIMED_OUT, f"timed out after {timeout_s:g} s")
            self._timers.set("timeout", timeout_s, timed_out)
        try:
            await self._enter_worktree()
            if not self.status.attempt.turns and not self.status.ending:
                await self._check()
            running = self._running = None if self.status.verified else await self._launch()
            if running is None:
                self.status.finish(self._context.clock.monotonic(), None, "")
            else:
                await self._run(running)
        finally:
            self._permissions.close()
            self._timers.close()

    async def _run(self, running: Running) -> None:
        log = self._services.open_log(self.status.spec, self.status.attempts)
        self.status.log_to(log.path if log else None)
        beat = asyncio.ensure_future(self._poller.beat())
        try:
            self._begin(running)
            await self._read(running, log)
            if self._checking is not None:
                await self._checking
            self._timers.set("exit", EXIT_S, self._end_process)
            exit = await running.wait()
            await self._leave_meter()
        except BaseException:
            running.stop(0.0)
            if self._checking is not None:
                self._checking.cancel()
                await asyncio.wait([self._checking])
            await running.wait()
            raise
        finally:
            beat.cancel()
            self._poller.close()
            if log:
                log.close()
        self._judge(exit)

    async def _enter_worktree(self) -> None:
        """Work in a worktree, if the instance asks for one; without it the instance cannot be launched."""
        worktrees, spec = self._services.worktrees, self.status.spec
        if worktrees is None or not spec.worktree:
            return
        try:
            self.status.work_in(await worktrees.open(spec))
        except OSError as error:
            self.status.cannot_launch(None, f"worktree: {error.strerror or error}")

    async def _launch(self) -> Running | None:
        """Start the process; None if it cannot be started, or if its end is decided already."""
        status, meter = self.status, self._services.meter
        if status.ending:
            return None
        spec = self._with_cost_limit(status.spec)
        try:
            if meter is not None:
                from claude_orchestrator.engine.metering import Metering

                self._metering = Metering(
                    self._context, meter, status, self.hold, self._recorder.record, self._refusals
                )
                if self._services.keeping is not None:
                    self._services.keeping.began(self._metering, status)
                spec = self._metering.through(spec)
            return await self._context.launcher.launch(spec)
        except (OSError, ValueError) as error:  # ValueError: an argument that no system accepts
            await self._leave_meter()
            why = (error.strerror if isinstance(error, OSError) else None) or error
            status.cannot_launch(error.errno if isinstance(error, OSError) else None, str(why))
            return None

    def _begin(self, running: Running) -> None:
        self._does(self._activity.set(Doing.STARTING))
        if self.status.tally.resumed:
            self._poller.ask()  # before the first turn: learn what earlier processes of this session had counted
        leaves_out = self.status.spec.folder_free and self._services.names_worktree
        more = FOLDER_FREE_REQUEST if leaves_out else {}
        request = self._commands.request(**more)
        if request is None:
            if more:
                self._send(control_request("prompt", "initialize", **more))
            self._send_turn()
        else:
            self._send(request)
            self._timers.set("commands", ANSWER_S, partial(self._begin_turns, frozenset()))
        if self._stop_grace_s is not None:  # a stop arrived while the process was starting
            running.stop(self._stop_grace_s)
        self.stop_if_over()
        self._expect_output(None)
        self._expect_start()

    async def _read(self, running: Running, log: Log | None) -> None:
        """Take everything that the instance prints, until its stream ends."""
        async for batch in running.output():
            if log:
                log.write(batch.raw)
            if self._timers.was_set("linger"):
                self._close_input()
            self._expect_output(batch)
            self._timers.cancel("startup")
            for event, charged in self._recorder.take(batch.lines):
                self._poller.observe(event, charged)
                self._recorder.foresee()
                self._does(self._activity.take(event))
                self._react(event)
            self._bus.publish(Changed())

    def _judge(self, exit: Exit) -> None:
        """The process has ended: set the instance's state, and charge the last counts."""
        status = self.status
        if not status.attempt.work_done:
            self._end_refused()
        for _ in range(exit.dropped_lines):
            status.tally.lost_line()
        self._services.guessed(unrecognized_models(exit.stderr))
        if exit.fault:
            status.decide_end(State.FAILED, exit.fault)
        status.finish(self._context.clock.monotonic(), exit.code, exit.stderr, self._services.redact)
        self._recorder.finish()

    # -- events --

    def _does(self, change: tuple[Doing, str] | None) -> None:
        """Publish what the instance does, if that has changed."""
        if change is not None:
            status = self.status
            activity = Activity(status.name, *change, status.turn, self._context.clock.monotonic())
            status.do(activity)
            self._bus.publish(activity)

    def _react(self, event: Event) -> None:
        status = self.status
        match event:
            case Init():
                self._begin_session(event)
            case CommandsAnswer(names):
                self._begin_turns(names)
            case Result():
                if event.model_usage is not None:
                    self._services.guessed(event.model_usage.guessed)
                self._ask_for_limits()
                if status.attempt.turn_failed is not None:
                    self._end_refused()
                self._turn_ended()
            case UsageAnswer():
                if event.rate_limits is not None:
                    self._bus.publish(RateLimitsRead(event.rate_limits))
                if status.ending and not status.attempt.turn_running:
                    self._close_input()
            case ControlRequest(subtype="can_use_tool"):
                self._permissions.decide(event, self._folder or status.spec.cwd)
            case ControlRequest():
                self._send(not_supported(event.request_id))
            case ControlCancelled(request_id):
                self._permissions.withdraw(request_id)
            case Task() if event.status is not None:
                self._close_after_follow_up()
            case Retry() if event.is_rate_limit:
                self._bus.publish(RateLimited(status.name))
            case _:
                pass

    def _ask_for_limits(self) -> None:
        """If a rate limit may stop the run, ask for the limits at the start and the end of each turn."""
        if self._context.settings.stop_at_rate_limit is not None:
            self._poller.ask()

    def _with_cost_limit(self, spec: LaunchSpec) -> LaunchSpec:
        """The same instance, with Claude's own limit in money as a second safeguard."""
        if not self._context.enforces:
            return spec
        budgets = [budget for budget in self._context.budgets_of(spec) if budget.unit is Unit.USD]
        left = min((budget.limit - budget.used for budget in budgets), default=0)
        return (
            spec._replace(argv=(*spec.argv, f"--max-budget-usd={left / NANO:.6f}")) if left > LEAST_NANO_USD else spec
        )

    async def _leave_meter(self) -> None:
        if self._metering is not None:
            await self._metering.close()

    def _await_refused(self, is_refused: bool) -> None:
        """A budget has refused a request: claude asks for less, exits, or is stopped after the grace time."""
        if is_refused:
            self._timers.set("refusal", self._grace_s, self._stop_refused)
        else:
            self._timers.cancel("refusal")

    def _stop_refused(self) -> None:
        self._end_refused()
        if self.status.ending:
            self.stop(State.STOPPED, "")

    def _end_refused(self) -> None:
        """If claude could not do without a request that was refused, its budget has stopped the instance."""
        refusal = self._refusals.take()
        if refusal is not None and self.status.decide_end(State.STOPPED, refusal.reason):
            cause = (refusal.reason, refusal.budget, refusal.enough, refusal.needed)
            self._bus.publish(Stopping(self.status.name, State.STOPPED, *cause))
            self._timers.set("refusal", self._grace_s, partial(self.stop, State.STOPPED, refusal.reason))

    def _begin_session(self, init: Init) -> None:
        if self._services.first_turns is not None:
            self._services.first_turns.started(self.status.name)
        self._folder = (init.folder or "") if self._context.launcher.capabilities.elsewhere else ""
        self._ask_for_limits()
        command = self.status.attempt.unknown_command
        if command is not None and not self._services.knows_command(self.status.spec.cwd, command):
            self.stop(State.FAILED, f"Unknown command: {command}")

    # -- turns --

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._running is not None:
            self._running.send(message)

    def _send_turn(self) -> None:
        attempt = self.status.attempt
        if not self.status.ending and self._running is not None and (attempt.turns_sent or self._may_begin()):
            self._send(turn(self._commands.text_of(attempt.next_turn())))

    def _may_begin(self) -> bool:
        """Whether the first turn may be sent. Otherwise it waits for the shared prompt cache, and the time limits
        pause."""
        first = self._services.first_turns
        if first is None or self._waited or first.may_begin(self.status.spec, self._begin_late):
            return True
        self._does(self._activity.set(Doing.STARTING, WAITS_FOR_CACHE))
        self._waits = True
        self._timers.pause("timeout")
        return False

    def _begin_late(self) -> None:
        """The wait for the shared prompt cache is over: send the first turn."""
        self._waits, self._waited = False, True
        self._does(self._activity.set(Doing.STARTING))
        self._timers.resume("timeout")
        self._send_turn()
        self._expect_output(None)
        self._expect_start()

    def _begin_turns(self, listed: frozenset[str]) -> None:
        """Send the first turn, unless the session lacks a command. `listed` is empty if claude gave no list."""
        if not self.status.attempt.turns_sent:
            self._timers.cancel("commands")
            failure = self._commands.failure(listed)
            if failure is not None:
                self.stop(State.FAILED, failure)
            self._send_turn()

    def _turn_ended(self) -> None:
        status = self.status
        if status.attempt.turn_running:
            return
        if not status.ending and not status.attempt.all_sent and status.attempt.turn_failed is None:
            self._send_turn()
        elif status.ending or status.attempt.idle:
            self._end_work()
        elif not self._timers.was_set("follow_up"):  # something works in the background; a server never ends
            self._timers.set("follow_up", BACKGROUND_S, self._end_work)

    def _close_after_follow_up(self) -> None:
        """A background subagent has ended. Wait for the turn in which the CLI reports that to the model."""
        if self.status.attempt.idle:
            self._timers.set("follow_up", FOLLOW_UP_S, self._turn_ended)

    def _end_work(self) -> None:
        """No planned turn is left: run the check if there is one, else let the process exit."""
        attempt = self.status.attempt
        if self._is_checking:
            return
        if attempt.check_pending and not (attempt.turn_failed or attempt.denied or self.status.ending):
            self._checking = asyncio.ensure_future(self._check())
            self._checking.add_done_callback(self._check_ended)
        else:
            self._close_input()

    async def _check(self) -> None:
        """Run the check. Then the work is done, or another turn follows, or the instance fails."""
        checks, verification = self._checks, self.status.verification
        if checks is None or verification is None:
            return
        for name in ("idle", "follow_up"):
            self._timers.cancel(name)
        self._does(self._activity.set(Doing.CHECKING))
        if await checks.round() is None:
            return
        if verification.pending:
            self.status.attempt.add_turn(verification.prompt)
            self._send_turn()
            self._checking = None
            self._expect_output(None)
            return
        if not verification.verified:
            self.status.decide_end(State.FAILED, verification.failure)
        elif self._running is None:
            self._bus.publish(WorkEnded(self.status.name))
        self._close_input()

    def _check_ended(self, checking: asyncio.Future[None]) -> None:
        """Stop the process if the check itself raised an error, because nothing else would close its input."""
        if self._running is not None and (checking.cancelled() or checking.exception() is not None):
            self._running.stop(0.0)

    @property
    def _is_checking(self) -> bool:
        return self._checking is not None and not self._checking.done()

    def _close_input(self) -> None:
        """Send no further turn: the process exits, or is stopped once it has been silent for too long."""
        if self._running is None:
            return
        status, is_first = self.status, not self._timers.was_set("linger")
        if (
            is_first
            and status.attempt.work_done
            and not (status.ending or status.attempt.turn_failed or status.attempt.denied)
        ):
            self._bus.publish(WorkEnded(status.name))
        self._running.close_input()
        self._timers.set("linger", LINGER_S, self._end_process)

    # -- approvals --

    def _answer(self, request: ControlRequest, reply: Reply) -> None:
        """Answer a request about a tool."""
        self._send(permission(request.request_id, request.given if reply.allowed else None, reply.message))

    def _asks_or_not(self) -> None:
        """A tool begins or ceases to wait for a person. The time limits pause meanwhile."""
        if self._permissions.waits:
            self._does(self._activity.set(Doing.ASKING, "waits for approval"))
            self._timers.cancel("idle")
            self._timers.pause("timeout")
        elif not self.status.ending:
            self._does(self._activity.resume())
            self._expect_output(None)
            self._timers.resume("timeout")

    # -- stops --

    def _expect_output(self, batch: LineBatch | None) -> None:
        """Restart the idle time, unless the batch holds only answers to the runner's own requests."""
        idle_s = self._context.settings.idle_timeout_s
        excused = self._is_checking or self._permissions.waits or self._waits
        if idle_s is not None and not excused and (batch is None or not only_answers(batch)):
            self._timers.set_punctual("idle", idle_s, partial(self._stalled, idle_s))

    def _expect_start(self) -> None:
        if self._waits:
            return
        limit_s = self._context.settings.startup_timeout_s
        never = partial(self.stop, State.FAILED, f"printed nothing within {limit_s:g} s of its start")
        self._timers.set_punctual("startup", limit_s, never)

    def _stalled(self, idle_s: float) -> None:
        resets_at = self.status.attempt.limit_resets_at
        waits_for_reset = resets_at is not None and self._context.clock.wall() < resets_at  # newer versions do
        if waits_for_reset or (self._metering is not None and self._metering.waits):
            self._expect_output(None)
            return
        self.status.note_silence()
        self.stop(State.TIMED_OUT, f"stalled: nothing printed for {idle_s:g} s")

    def _end_process(self) -> None:
        """End a process that should have exited. Its results are judged as usual."""
        if self._running is not None:
            self.status.attempt.note_stop()
            self._running.stop(self._grace_s)

    def stop_if_over(self) -> None:
        """Stop the instance if a budget that it draws on is spent and its work is not done."""
        budget = self._context.over_budget(self.status.spec)
        if budget is not None:
            self.stop_for(budget, figures(budget))

    def stop_for(self, budget: Budget, why: str) -> None:
        """Stop the instance if it draws on this budget and its work is not done."""
        status = self.status
        draws = budget in self._context.budgets_of(status.spec)
        if draws and not status.ending and not status.attempt.work_done:
            self.stop(State.STOPPED, f"stopped by budget: {why}", budget=budget)

    def stop(self, state: State, reason: str, grace_s: float | None = None, budget: Budget | None = None) -> None:
        """Stop the instance step by step. The first reason stands; a later call can only shorten the grace time.

        If the work is done, only the process is stopped, and the instance has completed.
        """
        if not self.status.attempt.work_done and self.status.decide_end(state, reason):
            self._bus.publish(Stopping(self.status.name, state, reason, budget))
        self._stop_grace_s = self._grace_s if grace_s is None else grace_s
        if self._checks is not None:
            self._checks.stop(self._stop_grace_s)
        if self._running is not None:
            self.status.attempt.note_stop()
            self._running.stop(self._stop_grace_s)
            self._poller.ask()
        self._bus.publish(Changed())


def figures(budget: Budget) -> str:
    """A budget's name and figures in a reason."""
    return f"{budget.label} budget: used {budget.figures()}"
