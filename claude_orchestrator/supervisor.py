"""Runs a plan: slots, holds, decisions. All in one event loop, so that a decision is atomic."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from claude_orchestrator.instance import InstanceStatus, State
from claude_orchestrator.launcher import Launcher
from claude_orchestrator.plan import LaunchSpec, Plan
from claude_orchestrator.session import Level, Log, Session
from claude_orchestrator.settings import Settings
from token_budget.budget_manager import TokenBudgetManager
from token_budget.models import Action, CommandBudgetInfo, Hold, Scope


class Supervisor:
    """Runs a plan's instances inside their budgets. `instances` tells at any time what each is doing.

    `say` gets each message for the user, `on_change` is called after whatever a display may want to show, `open_log`
    gives the place for an instance's raw lines, `knows_command` tells whether a slash command that a session does not
    list is one all the same (an alias), in which folder. `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        plan: Plan,
        settings: Settings,
        launcher: Launcher,
        manager: TokenBudgetManager,
        *,
        say: Callable[[Level, str], None],
        on_change: Callable[[], None] = lambda: None,
        open_log: Callable[[LaunchSpec], Log | None] = lambda spec: None,
        knows_command: Callable[[str, str], bool] = lambda folder, command: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.instances = tuple(InstanceStatus(spec) for spec in plan.specs)
        self.manager = manager
        self.clock = clock
        self.settings = settings
        self.launcher = launcher
        self.say = say
        self.on_change = on_change
        self.open_log = open_log
        self.knows_command = knows_command
        self._sessions: dict[str, Session] = {}
        self._wake = asyncio.Event()
        self._next_launch_at = 0.0

    async def run(self) -> None:
        """Run every instance to its end; returns when nothing runs any more."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                pause_s = self._launch_what_may(tasks)
                if not any(status.state in (State.PENDING, State.WAITING) for status in self.instances):
                    break
                try:
                    await asyncio.wait_for(self._wake.wait(), pause_s)
                except TimeoutError:
                    continue

    def cancel(self, reason: str, *, at_once: bool = False) -> None:
        """Start nothing more and stop what runs; `at_once`: without grace."""
        for status in self.instances:
            if status.state in (State.PENDING, State.WAITING):
                status.skip(State.CANCELLED, reason)
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
        for status in self.instances:
            if status.state not in (State.PENDING, State.WAITING):
                continue
            if len(self._sessions) >= self.settings.max_parallel:
                return None
            delay_s = self._next_launch_at - self.clock()
            if delay_s > 0:
                return delay_s
            spec = status.spec
            mine = self.manager.budgets_for(spec.base_command, spec.name)
            if not reserved.isdisjoint(mine):
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
                self._launch(tasks, status, decision.hold)
        return None

    def _wait(self, status: InstanceStatus, reason: str) -> None:
        if status.state is State.PENDING:
            self.say(Level.INFO, f"{status.name} waits: {reason}")
        status.state, status.reason = State.WAITING, reason
        self.on_change()

    def _block(self, status: InstanceStatus, reason: str) -> None:
        status.skip(State.BLOCKED, reason)
        self.say(Level.ERROR, f"BLOCK MODE: Budget exceeded for instance {status.name}. Skipping. ({reason})")
        self.on_change()

    def _launch(self, tasks: asyncio.TaskGroup, status: InstanceStatus, hold: Hold) -> None:
        self._next_launch_at = self.clock() + self.settings.startup_delay_s
        status.reason = ""
        status.begin(self.clock())
        session = Session(self, status, hold)
        self._sessions[status.name] = session
        tasks.create_task(self._supervise(session))

    async def _supervise(self, session: Session) -> None:
        status = session.status
        self.on_change()
        try:
            await session.run()
        finally:
            del self._sessions[status.name]
            self.manager.release(session.hold)
            self._wake.set()
        took = (status.ended_at or 0.0) - (status.started_at or 0.0)
        said = f"{status.name}: {status.state} after {took:.1f} s, {status.total_tokens:,} tokens"
        level = Level.INFO if status.state is State.COMPLETED else Level.ERROR
        self.say(level, f"{said}: {status.reason}" if status.reason else said)
        self.on_change()
        if status.state in (State.FAILED, State.TIMED_OUT) and self.settings.fail_fast:
            self.cancel(f"cancelled because {status.name} failed")

    # -- budgets --

    def record(self, status: InstanceStatus, hold: Hold) -> None:
        """Book what an instance has drawn since the last time, then judge it."""
        delta = status.take_delta(self.settings.token_weights)
        if not delta:
            return
        for budget in self.manager.record_usage(status.spec.base_command, delta, status.name, hold):
            self._crossed(budget)

    def _crossed(self, budget: CommandBudgetInfo) -> None:
        self.say(Level.WARNING, _exceeded(budget))
        if self.manager.enforcement_mode == "block":
            for session in list(self._sessions.values()):
                session.stop_if_over()
            self._wake.set()

    def over_budget(self, spec: LaunchSpec) -> CommandBudgetInfo | None:
        """In block mode, the budget of this instance whose limit is passed, if there is one."""
        if self.manager.enforcement_mode != "block":
            return None
        budgets = self.manager.budgets_for(spec.base_command, spec.name)
        return next((budget for budget in budgets if budget.exceeded), None)


def _exceeded(budget: CommandBudgetInfo) -> str:
    label = "overall session" if budget.scope is Scope.OVERALL else budget.label
    return f"Budget exceeded for {label} (used: {budget.used}/{budget.limit} tokens)"


def _would_exceed(budget: CommandBudgetInfo) -> str:
    label = "overall session" if budget.scope is Scope.OVERALL else budget.label
    return f"Budget would be exceeded for {label} (used: {budget.used}/{budget.limit} tokens):"
