"""Runs a config in a separate thread, and hands its events to the thread that called it."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from claude_orchestrator.api.inputs import ConfigLike, RunOptions, data_of, options_of
from claude_orchestrator.api.outcome import Run, run_of
from claude_orchestrator.config.given import Options
from claude_orchestrator.engine import controller, loading, preparation
from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.interrupts import StopSwitch
from claude_orchestrator.engine.run_events import Changed, Level, Message, RunEvent
from claude_orchestrator.engine.run_request import RunResult

MAX_EVENTS = 10_000  # that wait for a slow caller


class Job:
    """A run in a separate thread. `changed` is set when there are events, or when the run has ended."""

    def __init__(
        self, config: ConfigLike, options: RunOptions, *, wants_events: bool, notify: Callable[[], None] = lambda: None
    ) -> None:
        self.changed = threading.Event()
        self.events: deque[RunEvent] = deque(maxlen=MAX_EVENTS)
        self.ended = False
        self._dropped = 0
        self._wants_events = wants_events
        self._notify = notify
        self._switch = StopSwitch()
        self._result: Run | None = None
        self._error: BaseException | None = None
        self._error_of_caller: BaseException | None = None
        self._thread = threading.Thread(target=self._work, args=(config, options), name="claude-orchestrator")
        self._thread.start()

    def observe(self, event: RunEvent) -> None:
        """Keep an event for the caller. Of too many, the oldest are dropped."""
        if not self._wants_events or isinstance(event, Changed):
            return
        self._dropped += len(self.events) == self.events.maxlen
        self.events.append(event)
        self._tell()

    def take(self) -> list[RunEvent]:
        """The events since the last call; none after an error of the caller."""
        self.changed.clear()
        taken: list[RunEvent] = []
        dropped, self._dropped = self._dropped, 0
        if dropped:
            taken.append(Message(Level.WARNING, f"{dropped} events were dropped, because on_event is too slow"))
        while self.events:
            taken.append(self.events.popleft())
        return [] if self._error_of_caller is not None else taken

    @property
    def finished(self) -> bool:
        """Whether the run has ended, and the caller has all of its events."""
        return self.ended and not self.events

    @contextlib.contextmanager
    def stopped_by_errors(self) -> Iterator[None]:
        """A context in which an error of the caller stops the run, and a second one does so at once."""
        try:
            yield
        except BaseException as error:
            again = self._error_of_caller is not None
            self._switch.stop(f"cancelled by the caller: {type(error).__name__}", at_once=again)
            self._error_of_caller = self._error_of_caller or error

    def outcome(self) -> Run:
        """The run that has ended. Raises the error of the caller, or what ended the run."""
        self._thread.join()
        for error in (self._error_of_caller, self._error):
            if error is not None:
                raise error
        assert self._result is not None
        return self._result

    def _tell(self) -> None:
        self.changed.set()
        self._notify()

    def _work(self, config: ConfigLike, options: RunOptions) -> None:
        try:
            self._result = _execute(data_of(config), options_of(config, options), self._switch, self)
        except BaseException as error:
            self._error = error
        self.ended = True
        self._tell()


def _execute(data: Mapping[str, Any] | None, options: Options, switch: StopSwitch, job: Job) -> Run:
    warnings: list[str] = []
    with contextlib.ExitStack() as opened:
        loaded = loading.load(options, warnings.append, data)
        if loaded.earlier is not None:
            opened.callback(loaded.earlier.journal.close)
        planned = preparation.plan(loaded, warnings.append)
        if planned.ledger is not None:
            opened.callback(planned.ledger.close)
        checked = preparation.check(loaded, planned)
        opened.callback(checked.close)
        bus = Bus()
        bus.attach(job)
        for text in (*warnings, *checked.warnings):
            bus.warn(text)
        request, place, accounting = preparation.run_parts(loaded, planned, checked)
        runs: list[Run] = []

        def collect(result: RunResult) -> int:
            runs.append(run_of(result))
            return result.exit_code

        controller.run(request._replace(switch=switch), place, accounting, bus, report=collect)
        return runs[0]
