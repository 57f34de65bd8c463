"""One run from plan to report: event loop, signals, logs, display."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from claude_orchestrator.claude.events import Price
from claude_orchestrator.config.plan import Plan, make_manager
from claude_orchestrator.config.schedule import countdown
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.errors import UserError
from claude_orchestrator.gateway.choice import Meter
from claude_orchestrator.launch.local import Launcher, LocalLauncher, raise_file_limit, use_pidfd_watcher
from claude_orchestrator.launch.processes import Guard, end_run
from claude_orchestrator.launch.simulated import RehearsalLauncher
from claude_orchestrator.run import journal
from claude_orchestrator.run.instance_runner import Level
from claude_orchestrator.run.ledger_sync import Books, budgets_text, this_machine
from claude_orchestrator.run.redact import redact, secrets_of
from claude_orchestrator.run.resume import History, carry_over, removed, take_up, told, turns_mark
from claude_orchestrator.run.run_dir import EarlierRun, RunFolder, new_run_id
from claude_orchestrator.run.state import NOT_ENDED, State
from claude_orchestrator.run.supervisor import Supervisor
from claude_orchestrator.ui import report
from claude_orchestrator.ui.terminal import Terminal
from token_budget.alerts import AlertBook
from token_budget.files import write_atomically
from token_budget.ledger.records import AttemptRecord, RunRecord
from token_budget.ledger.store import LedgerStore
from token_budget.models import Usage
from token_budget.pricing import Prices
from token_budget.text import NANO, printable
from token_budget.usage.delivery import Sinks
from token_budget.windows import to_ms

REDRAW_EVERY_S = 0.1
STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where a run's results go."""

    output_dir: Path
    report: Path | None = None
    junit: Path | None = None
    resume_options: str = ""  # what a --resume needs besides the run's id
    private: bool = True  # whether claude takes private options by file


@dataclass(frozen=True, slots=True)
class Accounting:
    """What a run's books are kept with: the ledger of all runs, prices, and where alerts go besides the log."""

    ledger: LedgerStore | None = None
    prices: Prices | None = None
    alert_command: tuple[str, ...] | None = None
    alert_webhook: str | None = None


def run(
    plan: Plan,
    settings: Settings,
    terminal: Terminal,
    outputs: Outputs,
    header: Mapping[str, Any],
    meter: Meter,
    *,
    rehearse: bool,
    start_in_s: float,
    earlier: EarlierRun | None = None,
    accounting: Accounting = Accounting(),
) -> int:
    """Run the plan, or what is left of an earlier run of it, and write its reports; returns the exit code.

    `header` is what the journal is to say of how it was started.
    """
    use_pidfd_watcher()
    if accounting.prices is not None and meter.kind == "api":
        accounting.prices.load()
    raise_file_limit(min(settings.max_parallel, len(plan.specs)))
    number = earlier.history.runs + 1 if earlier else 1
    if earlier is None:
        folder = RunFolder.make(outputs.output_dir, new_run_id(datetime.now()), terminal.warn)
        records = journal.create(folder.path, terminal.warn)
    else:
        folder, records = earlier.folder, earlier.journal
        _end_leftovers(folder.path.name, number, terminal)
    mark = _mark(folder.path.name, number)
    launcher: Launcher = RehearsalLauncher()
    if not rehearse:
        launcher = LocalLauncher(mark, keep=folder.keep if outputs.private else None)
    history = earlier.history if earlier else None
    work = _Run(plan, settings, meter, terminal, outputs, folder, launcher, records, history, accounting)
    work.begin(number, header)
    with contextlib.ExitStack() as stack:
        work.sinks = stack.enter_context(Sinks(accounting.alert_command, accounting.alert_webhook, terminal.warn))
        stack.enter_context(terminal.in_background())
        if rehearse:
            return asyncio.run(work.execute(start_in_s))
        try:
            guard = stack.enter_context(Guard(mark))
        except OSError as error:
            why = error.strerror or error
            raise UserError(f"the guard process cannot be started: {why}: nothing was run") from None
        return asyncio.run(work.execute(start_in_s, guard))


def _mark(run_id: str, number: int) -> str:
    """What the processes of a run's first, second … orchestrator are marked with."""
    return run_id if number == 1 else f"{run_id}.{number}"


def _end_leftovers(run_id: str, number: int, terminal: Terminal) -> None:
    """Where not even the guard survived: two processes must not go on with one session."""
    ended = sum(end_run(_mark(run_id, earlier)) for earlier in range(1, number + 1))  # a damaged line may hide a start
    if ended:
        terminal.message(Level.WARNING, f"{ended} processes of the earlier orchestrator were still running: ended")


class _Run:
    def __init__(
        self,
        plan: Plan,
        settings: Settings,
        meter: Meter,
        terminal: Terminal,
        outputs: Outputs,
        folder: RunFolder,
        launcher: Launcher,
        records: journal.Journal,
        history: History | None,
        accounting: Accounting,
    ) -> None:
        self.sinks: Sinks | None = None
        self.terminal = terminal
        self.outputs = outputs
        self.settings = settings
        self.journal = records
        self.meter = meter
        self.history = history
        self.interrupted_by: signal.Signals | None = None
        manager = make_manager(plan, settings)
        if history is not None:
            carry_over(manager, history, settings.token_weights)
        run_id = folder.path.name
        self.supervisor = Supervisor(
            take_up(plan, history, run_id),
            settings,
            launcher,
            manager,
            say=terminal.message,
            on_change=self._changed,
            open_log=folder.open_log,
            knows_command=_knows_command,
            journal=records,
            price=_price_with(accounting.prices, terminal.warn),
            hide=partial(redact, secrets=secrets_of(os.environ, [pair for spec in plan.specs for pair in spec.env])),
        )
        self.record = report.Run(
            run_id=run_id,
            plan=plan,
            instances=self.supervisor.instances,
            manager=manager,
            started_at=datetime.now(UTC).astimezone(),
            clock_at_start=time.monotonic(),
            rehearsal=isinstance(launcher, RehearsalLauncher),
            folder=str(folder.path),
            meter=meter,
            removed=removed(plan, history) if history is not None else (),
        )
        self.books = Books(
            accounting.ledger,
            RunRecord(
                run_id,
                this_machine(),
                to_ms(self.record.started_at),
                mode=manager.enforcement_mode,
                budgets=budgets_text(manager, settings.token_weights),
            ),
            manager,
            settings.token_weights,
            AlertBook(settings.alert_at, accounting.ledger.alerts_sent() if accounting.ledger else ()),
            self.supervisor.instances,
            complain=terminal.warn,
            alert=self._alert,
        )
        self.supervisor.accounts = self.books
        self.books.on_crossed = self.supervisor.crossed
        self.books.on_room = self.supervisor.look_again
        self._redraw_due: asyncio.TimerHandle | None = None
        self._last_drawn = 0.0
        self._started = asyncio.Event()

    def begin(self, number: int, header: Mapping[str, Any]) -> None:
        """Write how the run was started; of a run that is resumed, tell what is left."""
        run = self.record
        entries = [
            {"name": spec.name, "base_command": spec.base_command, "turns": turns_mark(spec, run.run_id)}
            for spec in run.plan.specs
        ]
        self.journal.write(
            "run", run=run.run_id, number=number, pid=os.getpid(), rehearsal=run.rehearsal, **header, instances=entries
        )
        if self.history is not None:
            for level, text in told(run.plan, self.history, run.run_id):
                self.terminal.message(level, text)

    async def execute(self, start_in_s: float, guard: Guard | None = None) -> int:
        self._catch_signals()
        if guard is not None:
            self._watch(guard)
        await self._wait_for_start(start_in_s)
        if self.settings.status_report_interval_s > 0:
            self.terminal.show(self._status_lines)
        reports = asyncio.ensure_future(self._report_at_intervals())
        await self.books.begin(self._earlier_attempts())
        keeping = asyncio.ensure_future(self.books.run())
        try:
            if self.meter.kind == "api":
                await self._run_metered()
            else:
                await self.supervisor.run()
        finally:
            reports.cancel()
            keeping.cancel()
            self.terminal.show(None)
        code = 128 + self.interrupted_by if self.interrupted_by else report.exit_code(self.supervisor.instances)
        self.journal.write("finish", exit_code=code)
        await self.journal.sync()
        await self.books.end(code)
        ended_at, now = datetime.now(UTC).astimezone(), time.monotonic()
        told = self.supervisor
        self.record = replace(self.record, adjustments=told.adjustments, rate_limits=told.rate_limits)
        self.terminal.print(report.final_report(self.record, now, self.terminal.render_options()))
        return self._write_reports(ended_at, now, code)

    def _alert(self, text: str, payload: dict[str, object]) -> None:
        """Tell of a threshold that was reached."""
        self.terminal.message(Level.WARNING, text)
        self.journal.write("alert", reason=text)
        if self.sinks is not None:
            self.sinks.put(payload)

    def _earlier_attempts(self) -> list[AttemptRecord]:
        """What the journal of a run that is resumed has of it, for a ledger that may lack the last second."""
        history = self.history
        return [
            AttemptRecord(
                self.record.run_id,
                past.name,
                number,
                started_ms=round(past.launched_at * 1000),
                session=past.session_id,
                base_command=past.base_command,
                ended_ms=round((past.launched_at + attempt.seconds) * 1000),
                outcome=_outcome(past.state, is_last=number == len(past.attempts)),
                exact=attempt.exact,
                usage=attempt.usage,
                cost_nano_usd=None if attempt.cost_usd is None else round(attempt.cost_usd * NANO),
            )
            for past in (history.instances.values() if history else ())
            for number, attempt in enumerate(past.attempts, 1)
        ]

    async def _run_metered(self) -> None:
        from claude_orchestrator.gateway.fake_api import RehearsedApi
        from claude_orchestrator.gateway.server import Gateway

        async with contextlib.AsyncExitStack() as stack:
            upstream = None
            if isinstance(self.supervisor.launcher, RehearsalLauncher):
                api = await stack.enter_async_context(RehearsedApi())
                self.supervisor.launcher.ask, upstream = api.ask, api.url
            gateway = Gateway(self.supervisor.manager, self.settings.token_weights, upstream=upstream)
            self.supervisor.meter = await stack.enter_async_context(gateway)
            await self.supervisor.run()

    # -- start and stop --

    async def _wait_for_start(self, seconds: float) -> None:
        start_at = time.monotonic() + seconds
        while (left := start_at - time.monotonic()) > 0 and not self.interrupted_by:
            line = f"Starting in {countdown(left)} (Ctrl-C to give up)"
            self.terminal.show(partial(list, [line]))
            if not self.terminal.live and (left == seconds or int(left) % 60 == 0):
                self.terminal.message(Level.INFO, f"Starting in {countdown(left)}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._started.wait(), min(left, 1.0))
        self.terminal.show(None)

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for name in STOP_SIGNALS:
            number = getattr(signal, name, None)
            if number is not None and sys.platform != "win32":
                if name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN:
                    continue  # nohup
                loop.add_signal_handler(number, self._stop, number)

    def _stop(self, number: signal.Signals) -> None:
        """First signal: stop gracefully and report. Second: at once."""
        again = self.interrupted_by is not None
        self.interrupted_by = self.interrupted_by or number
        self._started.set()
        how = "at once" if again else "gracefully (again: at once)"
        self.terminal.message(Level.WARNING, f"{number.name}: stopping {how}")
        self.supervisor.cancel(f"cancelled by {number.name}", at_once=again)

    def _watch(self, guard: Guard) -> None:
        """Should somebody end the guard (out of memory, a careless pkill), start another."""
        pipe = guard.end_of_guard()
        if pipe is None:
            return
        loop = asyncio.get_running_loop()

        def again() -> None:
            loop.remove_reader(pipe)
            pipe.close()
            self.terminal.message(Level.WARNING, "the guard process was ended by somebody else: starting another")
            try:
                guard.start()
            except OSError as error:
                why = error.strerror or error
                self.terminal.message(
                    Level.ERROR, f"no guard ({why}): a SIGKILL of this process would orphan instances"
                )
            else:
                self._watch(guard)

        loop.add_reader(pipe, again)

    # -- display --

    def _status_lines(self) -> list[str]:
        shown = self.terminal.render_options()
        panel_rows = len(self.supervisor.manager.budgets) + 5 if shown.visuals else 0
        rows = max(3, self.terminal.height() - panel_rows - 4)
        return report.status_report(self.record, time.monotonic(), shown, max_rows=rows)

    def _changed(self) -> None:
        """Redraw soon, a few times a second at most."""
        if self.terminal.live and self._redraw_due is None:
            due = max(0.0, self._last_drawn + REDRAW_EVERY_S - time.monotonic())
            self._redraw_due = asyncio.get_running_loop().call_later(due, self._redraw)

    def _redraw(self) -> None:
        self._redraw_due = None
        self._last_drawn = time.monotonic()
        self.terminal.redraw()

    async def _report_at_intervals(self) -> None:
        interval_s = self.settings.status_report_interval_s
        while interval_s > 0 and not self.terminal.quiet:
            await asyncio.sleep(1.0 if self.terminal.live else interval_s)
            if self.terminal.live:
                self._redraw()
            else:
                lines = report.status_report(self.record, time.monotonic(), self.terminal.render_options())
                self.terminal.print(lines)

    # -- reports --

    def _write_reports(self, ended_at: datetime, now: float, code: int) -> int:
        files: list[tuple[Path | None, Callable[[], bytes]]] = [
            (self.outputs.report, lambda: _json(report.json_report(self.record, ended_at, code))),
            (self.outputs.junit, lambda: report.junit_report(self.record, now - self.record.clock_at_start)),
        ]
        for path, content in files:
            if path is None:
                continue
            try:
                write_atomically(path, [content()])
            except OSError as error:
                self.terminal.message(Level.ERROR, f"{path}: cannot be written: {error.strerror or error}")
                code = code or 1
        return code


def _outcome(state: State, *, is_last: bool) -> str:
    """How an attempt of an earlier orchestrator ended: all but the last failed, or there would be no further one."""
    if not is_last:
        return str(State.FAILED)
    return "interrupted" if state in NOT_ENDED else str(state)


def _price_with(prices: Prices | None, complain: Callable[[str], None]) -> Price | None:
    if prices is None:
        return None
    said: set[str] = set()

    def price(model: str, usage: Usage, written_for_1h_tokens: int) -> int | None:
        nano = prices.response(model, usage, written_for_1h_tokens=written_for_1h_tokens)
        for unknown in prices.unknown - said:
            said.add(unknown)
            complain(f"no price is known for the model {printable(unknown)}: its cost is what claude states at last")
        return nano

    return price


def _knows_command(folder: str, command: str) -> bool:
    """Whether the folder, the user or claude itself has this slash command, by name or alias."""
    from claude_orchestrator.claude.commands import discover_here, warning_for

    return warning_for(command, discover_here(Path(folder))) is None


def _json(data: object) -> bytes:
    return json.dumps(data, indent=2).encode() + b"\n"
