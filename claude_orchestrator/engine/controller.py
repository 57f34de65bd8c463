"""One run from plan to end. All its parts are built here, complete, and then started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from claude_orchestrator.config.plan import make_manager
from claude_orchestrator.engine import guard_watch, journal
from claude_orchestrator.engine.alerting import AlertDelivery, Alerting
from claude_orchestrator.engine.approvals import Approvals
from claude_orchestrator.engine.bus import Bus, Observer
from claude_orchestrator.engine.command_check import remembering
from claude_orchestrator.engine.control.server import ControlOnDemand, ControlServer
from claude_orchestrator.engine.control.socket_place import CAN_LISTEN
from claude_orchestrator.engine.interrupts import Interrupts
from claude_orchestrator.engine.journal import Journal
from claude_orchestrator.engine.journal_records import turns_digest
from claude_orchestrator.engine.launching import Launching, launching_for, starts_of, way_to_api
from claude_orchestrator.engine.ledger_sync import LedgerSync, Sharing, this_machine
from claude_orchestrator.engine.redact import redact, secrets_of
from claude_orchestrator.engine.results.answer_files import AnswerFiles
from claude_orchestrator.engine.run_context import RunContext, Services
from claude_orchestrator.engine.run_dir import RunDirectory, new_run_id
from claude_orchestrator.engine.run_events import (
    CacheReported,
    Level,
    Message,
    Recounted,
    RunEnded,
    RunStarted,
    StartsIn,
)
from claude_orchestrator.engine.run_inputs import knows_command, price_with
from claude_orchestrator.engine.run_request import Accounting, RunPlace, RunRequest, RunResult
from claude_orchestrator.engine.run_view import RunChanges, RunView, exit_code
from claude_orchestrator.engine.sharing.cache_use import CacheUse, cache_lines
from claude_orchestrator.engine.sign_in import SignIn
from claude_orchestrator.engine.state import InstanceStatus
from claude_orchestrator.engine.supervisor import Supervisor
from claude_orchestrator.engine.time_left import time_left_s
from claude_orchestrator.engine.unknown_models import UnknownModels
from claude_orchestrator.errors import UserError
from claude_orchestrator.launch.base import Launcher
from claude_orchestrator.launch.local import allow_files, use_pidfd_watcher
from token_budget.budget_manager import TokenBudgetManager
from token_budget.ledger.records import AttemptRecord, RunRecord
from token_budget.ledger.run_budgets import budgets_data, write_budgets
from token_budget.named_tuples import NamedTuple
from token_budget.windows import to_ms

if TYPE_CHECKING:
    from claude_orchestrator.engine.control.run_control import RunControl
    from claude_orchestrator.engine.growth import Growth
    from claude_orchestrator.engine.journal_history import EarlierInstance, JournalHistory
    from claude_orchestrator.engine.ports import ApiMeter
    from claude_orchestrator.engine.worktrees.keeper import Worktrees

KEEP_EVERY_S = 1.0  # ledger and alerts


def run(
    request: RunRequest,
    place: RunPlace,
    accounting: Accounting,
    bus: Bus,
    display: Callable[[RunView], Observer] | None = None,
    report: Callable[[RunResult], int] = lambda result: result.exit_code,
) -> int:
    """Run a plan, or what is left of an earlier run of it, to its end; returns the exit code.

    `bus` may have observers already. `display` makes another one from the view of the run. `report` receives the result
    before the ledger is closed, and returns the exit code. Raises UserError before anything was launched.
    """
    use_pidfd_watcher()
    if accounting.prices is not None and request.meter.kind == "api":
        accounting.prices.load()
    most, specs = request.settings.max_parallel, request.plan.specs
    at_once = most if any(spec.grows for spec in specs) else min(most, len(specs))
    allow_files(at_once, metered=request.meter.kind == "api")
    files = _open_files(request, place, accounting, bus)
    launching = launching_for(request, files.mark, files.directory.keep if place.private else None, bus)
    bus.attach(files.journal, sync=files.journal.sync)
    with contextlib.ExitStack() as stack:
        stack.callback(files.directory.close)
        stack.callback(files.journal.close)
        delivery = stack.enter_context(AlertDelivery(accounting.alerts, bus))
        bus.attach(delivery, optional=True)
        try:
            if launching.guard is not None:
                stack.enter_context(launching.guard)
        except OSError as error:
            why = error.strerror or error
            raise UserError(f"the guard process cannot be started: {why}: nothing has started") from None
        return asyncio.run(_Run(request, files, accounting, bus, launching, display).execute(report))


class _Files(NamedTuple):
    """A run's directory and journal, what the journal records of earlier starts, and the number of this start."""

    directory: RunDirectory
    journal: Journal
    history: JournalHistory | None
    number: int
    recounted: Sequence[Recounted] = ()
    said_of_kill: Sequence[tuple[str, str]] = ()

    @property
    def run_id(self) -> str:
        return self.directory.path.name

    @property
    def mark(self) -> str:
        return _mark(self.run_id, self.number)


def _open_files(request: RunRequest, place: RunPlace, accounting: Accounting, bus: Bus) -> _Files:
    earlier = place.earlier
    if earlier is None:
        directory = RunDirectory.make(place.output_dir, new_run_id(datetime.now()), bus.warn)
        return _Files(directory, journal.create(directory.folder, bus.warn), None, 1)
    number = earlier.history.runs + 1
    _end_leftovers(earlier.directory.path.name, number, bus)
    recounted: Sequence[Recounted] = ()
    said: Sequence[tuple[str, str]] = ()
    if not request.rehearse and earlier.history.was_interrupted:
        from claude_orchestrator.engine.interrupted import interrupted_attempts

        price = price_with(accounting.prices, lambda model: None)
        folder, history = earlier.directory.folder, earlier.history
        recounted, said = interrupted_attempts(folder, history, request.plan, request.settings, price)
    return _Files(earlier.directory, earlier.journal, earlier.history, number, recounted, said)


class _TakenOver(NamedTuple):
    """What this start of a run takes over from earlier ones: at the first start, only new instances.

    `removed` has the instances that are no longer in the plan.
    """

    instances: list[InstanceStatus]
    removed: list[EarlierInstance]
    messages: Sequence[tuple[str, str]] = ()
    attempts: Sequence[AttemptRecord] = ()


def _take_over(request: RunRequest, files: _Files, manager: TokenBudgetManager) -> _TakenOver:
    """Charge the budgets what earlier starts have used, and continue their instances."""
    plan, settings, history = request.plan, request.settings, files.history
    if history is None:
        return _TakenOver([InstanceStatus(spec) for spec in plan.specs], [])
    from claude_orchestrator.engine import resume

    said = [*files.said_of_kill, *resume.charge_in_flight(history, settings.charge_unanswered)]
    resume.carry_over(manager, history, settings.token_weights)
    return _TakenOver(
        resume.restore(plan, history, files.run_id),
        resume.removed(plan, history),
        [*resume.resume_messages(plan, history, files.run_id), *said],
        resume.earlier_attempts(history, files.run_id),
    )


def _raised(view: RunView) -> tuple[str, ...]:
    """The options that raise the limits which ended instances."""
    from claude_orchestrator.engine.continuing import raised_limits

    return tuple(raised_limits(view))


def _mark(run_id: str, number: int) -> str:
    """The mark that the processes of a run's first, second … start carry."""
    return run_id if number == 1 else f"{run_id}.{number}"


def _end_leftovers(run_id: str, number: int, bus: Bus) -> None:
    """End the processes of an orchestrator that was killed with its guard: no two processes may use one session."""
    from claude_orchestrator.launch.processes import end_run

    ended = sum(end_run(_mark(run_id, earlier)) for earlier in range(1, number + 1))  # a damaged line may hide a start
    if ended:
        processes = "1 process" if ended == 1 else f"{ended} processes"
        bus.warn(f"ended {processes} of the earlier orchestrator")


class _Run:
    """The parts of one run that live in its event loop."""

    def __init__(
        self,
        request: RunRequest,
        files: _Files,
        accounting: Accounting,
        bus: Bus,
        launching: Launching,
        display: Callable[[RunView], Observer] | None,
    ) -> None:
        self._request = request
        self._files = files
        self._accounting = accounting
        self._bus = bus
        self._launching = launching
        plan, settings, history = request.plan, request.settings, files.history
        manager = make_manager(plan, settings)
        self._taken_over = taken_over = _take_over(request, files, manager)
        turns = {spec.name: len(spec.turns) for spec in plan.specs}
        self._answers = AnswerFiles(files.directory.path, turns, bus.warn)
        self._view = RunView(
            run_id=files.run_id,
            plan=plan,
            instances=taken_over.instances,
            manager=manager,
            started_at=datetime.now(UTC).astimezone(),
            clock_at_start=time.monotonic(),
            rehearsal=request.rehearse,
            directory=str(files.directory.path),
            meter=request.meter,
            fence=launching.launcher.capabilities.fence,
            removed=taken_over.removed,
            changes=RunChanges(),
            answers=self._answers,
            cache=CacheUse(time.monotonic, price_with(accounting.prices, lambda warning: None)),
        )
        budgets = write_budgets(manager.budgets, settings.token_weights)
        entry = RunRecord(
            files.run_id,
            this_machine(),
            to_ms(self._view.started_at),
            mode=manager.enforcement_mode,
            budgets=budgets,
            account=manager.account,
        )
        sharing = Sharing(accounting.charged, settings.ledger_outage == "continue")
        self._ledger = LedgerSync(accounting.ledger, entry, manager, settings.token_weights, bus, sharing)
        sent = accounting.ledger.alerts_sent() if accounting.ledger else ()
        self._alerting = Alerting(self._view, settings, self._ledger, bus, sent=sent)
        self._interrupts = Interrupts(bus)
        rules = history.rules if history is not None else ()
        self._approvals = Approvals(bus, settings.approval_timeout_s, rules=rules)
        bus.attach(self._ledger, sync=self._ledger.sync)
        bus.attach(self._view.changes)
        bus.attach(self._view.cache)
        bus.attach(self._answers)
        self._growth = self._make_growth() if any(spec.grows for spec in plan.specs) else None
        if display is not None:
            bus.attach(display(self._view))

    async def execute(self, report: Callable[[RunResult], int]) -> int:
        """Run to the end."""
        view = self._view
        self._bus.publish(RunStarted(self._header()))
        for level, text in self._taken_over.messages:
            self._bus.publish(Message(Level(level), text))
        for recounted in self._files.recounted:
            self._bus.publish(recounted)
        self._interrupts.catch(self._request.switch)
        if self._launching.guard is not None:
            guard_watch.watch(self._launching.guard, self._bus)
        way = way_to_api(self._launching, self._request, view.manager, self._ledger, self._bus)
        async with contextlib.AsyncExitStack() as to_the_end:
            async with way as (launcher, meter):
                supervisor = Supervisor(view.instances, self._context(launcher, meter))
                self._interrupts.pass_to(lambda reason, at_once: supervisor.cancel(reason, at_once=at_once))
                control = ControlOnDemand(partial(self._control, supervisor))
                await to_the_end.enter_async_context(self._listening(control))
                for door in self._request.doors:
                    await to_the_end.enter_async_context(door(control(), self._files.directory.folder))
                await self._wait_for_start()
                await self._run_all(supervisor)
            control.end()
            return await self._end(report)

    def _make_growth(self) -> Growth:
        from claude_orchestrator.engine.growth import Growth

        view = self._view
        growth = Growth(view.plan, view.run_id, self._files.history, view.manager, self._answers, view.removed)
        self._bus.attach(growth)
        return growth

    def _control(self, supervisor: Supervisor) -> RunControl:
        from claude_orchestrator.engine.control.event_log import EventLog
        from claude_orchestrator.engine.control.run_control import RunControl

        log = EventLog(self._bus, f"{self._view.run_id}/{self._files.number}")
        return RunControl(self._view, supervisor, self._bus, self._approvals, log, self._interrupts.stop)

    @contextlib.asynccontextmanager
    async def _listening(self, control: ControlOnDemand) -> AsyncIterator[None]:
        """While this is open, others can see and change the run through its socket, unless that is switched off."""
        server = ControlServer(control, self._files.directory.folder)
        try:
            if self._request.listens and CAN_LISTEN:
                server.start()
        except OSError as error:
            self._bus.warn(f"no control socket ({error.strerror or error}): claude-runs cannot change this run")
        try:
            yield
        finally:
            await server.close()

    async def _run_all(self, supervisor: Supervisor) -> None:
        """Run every instance to its end, and keep the ledger in step."""
        await self._ledger.begin(self._taken_over.attempts, output_dir=self._files.directory.path.parent)
        keeping = asyncio.ensure_future(self._keep())
        try:
            await supervisor.run()
        finally:
            keeping.cancel()

    async def _end(self, report: Callable[[RunResult], int]) -> int:
        """Every instance has ended: report, close the ledger, and return the exit code."""
        view = self._view
        by_signal = self._interrupts.signal
        code = 128 + by_signal if by_signal else exit_code(view.instances)
        cached = () if view.rehearsal else cache_lines(view.cache, view.instances)
        if cached:
            self._bus.publish(CacheReported(tuple(cached)))
        self._bus.publish(RunEnded(code, view.manager.budgets, _raised(view) if code else ()))
        await self._files.journal.sync()
        ended_at, seconds = datetime.now(UTC).astimezone(), time.monotonic() - view.clock_at_start
        final_code = report(RunResult(view, ended_at, seconds, code))
        self._ledger.hurry()
        await self._ledger.flush(check=True)
        await self._alerting.raise_due()
        await self._ledger.end(code, directory=self._files.directory.path)
        return final_code

    def _header(self) -> dict[str, Any]:
        run_id = self._view.run_id
        instances = [
            {
                "name": spec.name,
                "base_command": spec.base_command,
                "turns": turns_digest(spec, run_id),
                **({} if spec.group is None else {"group": spec.group}),
                **({"depends_on": list(spec.depends_on)} if spec.depends_on else {}),
            }
            for spec in self._view.plan.specs
        ]
        return {
            "run": run_id,
            "number": self._files.number,
            "pid": os.getpid(),
            "rehearsal": self._view.rehearsal,
            **self._request.header,
            **budgets_data(self._view.manager.budgets, self._request.settings.token_weights),
            "instances": instances,
        }

    def _context(self, launcher: Launcher, meter: ApiMeter | None) -> RunContext:
        given = [pair for spec in self._view.plan.specs for pair in spec.env]
        unknown = UnknownModels(self._bus.warn)
        sign_in = SignIn(self._bus.warn, self._left_s, time.time)
        services = Services(
            open_log=self._files.directory.open_log,
            knows_command=knows_command,
            found_command=remembering(knows_command),
            redact=partial(redact, secrets=secrets_of(os.environ, given)),
            price=price_with(self._accounting.prices, unknown.no_price),
            guessed=unknown.guessed,
            signed_in_until=sign_in.ends_at,
            meter=meter,
            starts=starts_of(self._launching, meter),
            names_worktree=self._request.names_worktree,
            worktrees=self._worktrees(),
            shared=self._ledger,
            answers=self._answers,
            approvals=self._approvals,
            places=self._launching.nodes,
        )
        if self._growth is not None:
            services = services._replace(enter=self._growth.enter)
        return RunContext(self._request.settings, launcher, self._view.manager, self._bus, services)

    def _left_s(self) -> float | None:
        """How long the run will still take at the pace that it has had so far; None if unknown."""
        used = [(status, status.total_tokens) for status in self._view.instances]
        tokens, elapsed_s = sum(one for _, one in used), time.monotonic() - self._view.clock_at_start
        pace = tokens / elapsed_s * 60 if elapsed_s > 0 else None
        return time_left_s(used, pace, self._view.manager.total.tokens / tokens if tokens else 1.0)

    def _worktrees(self) -> Worktrees | None:
        if self._request.rehearse or not any(spec.worktree for spec in self._view.plan.specs):
            return None
        from claude_orchestrator.engine.worktrees.keeper import Worktrees

        keep_clean = self._request.settings.keep_worktrees
        return Worktrees(self._files.directory.path, self._bus.warn, keep_clean=keep_clean)

    async def _wait_for_start(self) -> None:
        start_at = time.monotonic() + self._request.start_in_s
        while (left_s := start_at - time.monotonic()) > 0 and not self._interrupts.came:
            self._bus.publish(StartsIn(left_s))
            await self._interrupts.sleep(min(left_s, 1.0))

    async def _keep(self) -> None:
        """Update the ledger and raise alerts at intervals, until cancelled."""
        while True:
            await asyncio.sleep(KEEP_EVERY_S)
            await self._ledger.flush(check=True)
            await self._alerting.raise_due()
