"""One run from plan to report: event loop, signals, logs, display."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from claude_orchestrator import report
from claude_orchestrator.launcher import Launcher, LocalLauncher, use_pidfd_watcher
from claude_orchestrator.plan import Plan, make_manager
from claude_orchestrator.processes import Guard
from claude_orchestrator.rehearsal import RehearsalLauncher
from claude_orchestrator.runfolder import RunFolder, new_run_id
from claude_orchestrator.schedule import countdown
from claude_orchestrator.session import Level
from claude_orchestrator.settings import Settings
from claude_orchestrator.supervisor import Supervisor
from claude_orchestrator.terminal import Terminal

REDRAW_EVERY_S = 0.1
STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where a run's results go."""

    output_dir: Path
    report: Path | None = None
    junit: Path | None = None


def run(
    plan: Plan, settings: Settings, terminal: Terminal, outputs: Outputs, *, rehearse: bool, start_in_s: float
) -> int:
    """Run the plan and write its reports; returns the exit code."""
    use_pidfd_watcher()
    run_id = new_run_id(datetime.now())
    folder = RunFolder(outputs.output_dir, run_id, lambda text: terminal.message(Level.WARNING, text))
    launcher: Launcher = RehearsalLauncher() if rehearse else LocalLauncher(run_id)
    with contextlib.nullcontext() if rehearse else Guard(run_id):
        return asyncio.run(_Run(run_id, plan, settings, terminal, outputs, folder, launcher).execute(start_in_s))


class _Run:
    def __init__(
        self,
        run_id: str,
        plan: Plan,
        settings: Settings,
        terminal: Terminal,
        outputs: Outputs,
        folder: RunFolder,
        launcher: Launcher,
    ) -> None:
        self.terminal = terminal
        self.outputs = outputs
        self.settings = settings
        self.interrupted_by: signal.Signals | None = None
        self.supervisor = Supervisor(
            plan,
            settings,
            launcher,
            make_manager(plan, settings),
            say=terminal.message,
            on_change=self._changed,
            open_log=folder.open_log,
            knows_command=_knows_command,
        )
        self.record = report.Run(
            run_id=run_id,
            plan=plan,
            instances=self.supervisor.instances,
            manager=self.supervisor.manager,
            started_at=datetime.now(UTC).astimezone(),
            clock_at_start=time.monotonic(),
            rehearsal=isinstance(launcher, RehearsalLauncher),
            folder=str(folder.path),
        )
        self._redraw_due: asyncio.TimerHandle | None = None
        self._last_drawn = 0.0
        self._started = asyncio.Event()

    async def execute(self, start_in_s: float) -> int:
        self._catch_signals()
        await self._wait_for_start(start_in_s)
        if self.settings.status_report_interval_s > 0:
            self.terminal.show(self._status_lines)
        reports = asyncio.ensure_future(self._report_at_intervals())
        try:
            await self.supervisor.run()
        finally:
            reports.cancel()
            self.terminal.show(None)
        code = 128 + self.interrupted_by if self.interrupted_by else report.exit_code(self.supervisor.instances)
        ended_at = datetime.now(UTC).astimezone()
        self.terminal.print(report.final_report(self.record, time.monotonic(), self.terminal.look()))
        return self._write_reports(ended_at, code)

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
                loop.add_signal_handler(number, self._stop, number)

    def _stop(self, number: signal.Signals) -> None:
        """First signal: stop gracefully and report. Second: at once."""
        again = self.interrupted_by is not None
        self.interrupted_by = self.interrupted_by or number
        self._started.set()
        how = "at once" if again else "gracefully (again: at once)"
        self.terminal.message(Level.WARNING, f"{number.name}: stopping {how}")
        self.supervisor.cancel(f"cancelled by {number.name}", at_once=again)

    # -- display --

    def _status_lines(self) -> list[str]:
        look = self.terminal.look()
        panel_rows = len(self.supervisor.manager.budgets) + 5 if look.visuals else 0
        rows = max(3, self.terminal.height() - panel_rows - 4)
        return report.status_report(self.record, time.monotonic(), look, max_rows=rows)

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
                lines = report.status_report(self.record, time.monotonic(), self.terminal.look())
                self.terminal.print(lines)

    # -- reports --

    def _write_reports(self, ended_at: datetime, code: int) -> int:
        files: list[tuple[Path | None, Callable[[], bytes]]] = [
            (self.outputs.report, lambda: _json(report.json_report(self.record, ended_at, code))),
            (self.outputs.junit, lambda: report.junit_report(self.record, ended_at)),
        ]
        for path, content in files:
            if path is None:
                continue
            try:
                write_whole(path, content())
            except OSError as error:
                self.terminal.message(Level.ERROR, f"{path}: cannot be written: {error.strerror or error}")
                code = code or 1
        return code


def _knows_command(folder: str, command: str) -> bool:
    """Whether the folder, the user or claude itself has this slash command, by name or alias."""
    from claude_orchestrator.commands import discover_here, warning_for

    return warning_for(command, discover_here(Path(folder))) is None


def _json(data: object) -> bytes:
    return json.dumps(data, indent=2).encode() + b"\n"


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file's content in one step, so that no reader sees half of it; devices and pipes are written to."""
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    path = path.resolve()
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        Path(name).chmod(0o644 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
