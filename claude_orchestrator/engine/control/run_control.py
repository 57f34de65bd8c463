"""The one door through which a person or a program sees a run and changes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from claude_orchestrator.engine.approvals import Approvals, Reply, ToolQuestion
from claude_orchestrator.engine.bus import Bus, Observer
from claude_orchestrator.engine.control.commands import output_dir_option
from claude_orchestrator.engine.control.event_json import event_json
from claude_orchestrator.engine.control.event_log import EventLog
from claude_orchestrator.engine.control.snapshot import Rows, RunMoment, Steering, brief, budget_row, snapshot
from claude_orchestrator.engine.run_events import By, Crossed, RoomChanged, RunEvent, Steered
from claude_orchestrator.engine.run_view import RunView
from claude_orchestrator.engine.snapshot import Snapshots
from claude_orchestrator.engine.state import InstanceStatus
from claude_orchestrator.engine.supervisor import Supervisor
from claude_orchestrator.launch.local import allow_files
from token_budget.budget_manager import WINDOW_SCOPES
from token_budget.fields import TOKENS, USD, BadValue, nearest_name, whole_number
from token_budget.models import Budget, Scope, Unit
from token_budget.text import counted

PARALLEL = whole_number(1, 10**6)
ALL = "all"


class RefusedError(Exception):
    """An action is not possible; nothing was changed. The text says why."""


class RunControl:
    """Shows a run, and changes it. Every action is synchronous, and publishes who did what and why.

    `stop_run` stops everything for a reason, with or without grace. Actions raise RefusedError.
    """

    def __init__(
        self,
        view: RunView,
        supervisor: Supervisor,
        bus: Bus,
        approvals: Approvals,
        log: EventLog,
        stop_run: Callable[[str, bool], None],
    ) -> None:
        self.view = view
        self.log = log
        self._supervisor = supervisor
        self._bus = bus
        self._approvals = approvals
        self._stop_run = stop_run
        self._ended = False
        self._snapshots, self._rows = Snapshots(view), Rows(view)
        self._directory = str(Path(view.directory or ".").absolute())

    # -- seeing --

    def status(self) -> dict[str, Any]:
        """The whole run as JSON data."""
        return self._numbered(snapshot(self.view, self._rows, self._steering(), self._moment(), self._notable))

    def brief(self) -> dict[str, Any]:
        """The run without its instances."""
        return self._numbered(brief(self.view, self._steering(), self._moment()))

    def describe(self, event: RunEvent, *, budgets: bool = True) -> dict[str, Any]:
        """An event as JSON data, with the budgets that it has changed if they are wanted."""
        return event_json(event, self.view, time.monotonic(), budgets=budgets)

    @property
    def approvals(self) -> tuple[ToolQuestion, ...]:
        """The tools that wait for a person."""
        return self._approvals.pending

    def watch(self, observer: Observer) -> None:
        """Attach an optional observer."""
        self._bus.attach(observer, optional=True)

    def complain(self, text: str) -> None:
        """Warn that something went wrong while the run was shown."""
        self._bus.warn(text)

    def end(self) -> None:
        """The run has ended. It can still be seen, but no longer changed."""
        self._ended = True

    def _moment(self) -> RunMoment:
        now = time.monotonic()
        return RunMoment(now, self._snapshots.take(now))

    def _numbered(self, data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "source": self.log.source, "number": self.log.last_number}

    def _steering(self) -> Steering:
        supervisor = self._supervisor
        slots = supervisor.slots
        state = "paused" if slots.paused else "running" if supervisor.begun else "waiting"
        state = "ended" if self._ended else "stopping" if supervisor.cancelled else state
        return Steering(state, slots.paused, slots.most, self._directory, self._approvals.pending)

    def _notable(self) -> Iterable[dict[str, Any]]:
        for at, event in self.view.changes.notable:
            yield {"at": round(at, 3), **self.describe(event)}

    # -- changing --

    def stop(self, names: Sequence[str], by: By) -> list[str]:
        """Stop instances, or all instances of a group; returns their names. If one name is unknown, nothing is
        stopped."""
        self._check_running()
        if not names:
            raise RefusedError("stop: name an instance or a group")
        found: dict[str, InstanceStatus] = {}
        for name in names:
            found |= {status.name: status for status in self._named(name)}
        reason = f"stopped by {by.user or by.via}" + (f": {by.why}" if by.why else "")
        self._publish("stop", ", ".join(names), f"stop of {_listed(found)}", by)
        for status in found.values():
            self._supervisor.stop(status, reason)
        return list(found)

    def stop_run(self, by: By, *, at_once: bool = False) -> None:
        """Stop everything; `at_once` leaves no grace time."""
        if self._ended:
            raise RefusedError(f"run {self.view.run_id} has ended")
        self._publish("stop_run", "run", f"stop of the run{' at once' if at_once else ''}", by)
        why = f": {by.why}" if by.why else ""
        self._stop_run(f"cancelled by {by.user or by.via}{why}", at_once)

    def pause(self, by: By) -> None:
        """Launch nothing more until `resume`. What runs continues."""
        self._pause(by, paused=True)

    def resume(self, by: By) -> None:
        """Launch again."""
        self._pause(by, paused=False)

    def set_max_parallel(self, number: object, by: By) -> int:
        """Set how many instances run at once; those that run already continue."""
        self._check_running()
        try:
            most: int = PARALLEL.read(number)
        except BadValue as error:
            raise RefusedError(f"parallel: {error}") from None
        before = self._supervisor.slots.most
        self._publish("set_max_parallel", "run", f"instances at once: {before} is now {most}", by)
        allow_files(min(most, len(self.view.instances)), metered=self.view.meter.kind == "api")
        self._supervisor.set_max_parallel(most)
        return most

    def set_limits(self, limits: Mapping[str, object], by: By) -> list[dict[str, Any]]:
        """Set limits of the run's budgets, in tokens or US dollars, either all or none; returns these budgets.

        More room lets instances start. A limit below what is used acts as a crossing.
        """
        self._check_running()
        checked = dict(map(self._limit, limits, limits.values()))
        for budget, limit in checked.items():
            show = budget.unit.show
            text = f"limit of the {budget.label} budget: {show(budget.limit)} is now {show(limit)}"
            self._publish("set_limit", budget.label, text, by)
            was_exceeded = budget.exceeded
            self.view.manager.set_budget(budget.scope, limit, budget.key, budget.unit)
            if budget.exceeded and not was_exceeded:
                self._bus.publish(Crossed(budget))
        self._supervisor.reopen(tuple(checked))
        self._bus.publish(RoomChanged())
        return [budget_row(budget) for budget in checked]

    def approve(self, ids: Sequence[str], by: By, *, always: bool = False) -> list[str]:
        """Let tools run that wait for a person; `all` means all that wait. Returns their ids.

        `always`: the same call is allowed for the rest of the run, in every instance.
        """
        return self._answer("approve", ids, Reply(True), by, always=always)

    def deny(self, ids: Sequence[str], by: By, *, message: str = "") -> list[str]:
        """Deny tools that wait for a person. Claude gets the message."""
        text = message or f"Permission denied by {by.user or 'a person'}."
        return self._answer("deny", ids, Reply(False, text), by)

    # -- the rest --

    def _pause(self, by: By, *, paused: bool) -> None:
        self._check_running()
        if self._supervisor.slots.paused is paused:
            raise RefusedError(f"launches are {'' if paused else 'not '}paused")
        self._publish(*(("pause", "run", "pause of launches") if paused else ("resume", "run", "end of the pause")), by)
        self._supervisor.pause(paused)

    def _answer(self, action: str, ids: Sequence[str], reply: Reply, by: By, *, always: bool = False) -> list[str]:
        waiting = {ask.id for ask in self._approvals.pending}
        chosen = [ask.id for ask in self._approvals.pending] if list(ids) == [ALL] else list(dict.fromkeys(ids))
        unknown = [one for one in chosen if one not in waiting]
        if unknown or not chosen:
            what = f"{action}: no tool waits for approval" + (f" under {', '.join(unknown)}" if unknown else "")
            raise RefusedError(what)
        for one in chosen:
            self._approvals.answer(one, reply, by, always=always)
        return chosen

    def _named(self, name: str) -> list[InstanceStatus]:
        instances = self.view.instances
        named = [status for status in instances if name in (status.name, status.planned.group)]
        if not named:
            known = dict.fromkeys(one for status in instances for one in (status.name, status.planned.group) if one)
            near = nearest_name(name, known)
            raise RefusedError(f"no instance or group is called {name!r}" + (f"; nearest: {near}" if near else ""))
        left = [status for status in named if not status.ended]
        if not left:
            how = f" already: {named[0].state}" if len(named) == 1 else ""
            raise RefusedError(f"{name} has ended{how}")
        return left

    def _budget(self, label: str) -> Budget:
        budgets = self.view.manager.budgets
        wanted = label.strip().lower()
        found = [one for one in budgets if wanted in _names(one)]
        tokens = [one for one in found if one.unit is Unit.TOKENS]
        if len(found) != 1 and len(tokens) != 1:
            has = ", ".join(one.label for one in budgets) or "none"
            problem = f"{len(found)} budgets are" if found else "no budget is"
            again = _resume_with(self.view.run_id, Path(self._directory).parent, label.strip())
            how = "" if found else f". To add one, {again}"
            raise RefusedError(f"{problem} called {label!r}; the run has: {has}{how}")
        return found[0] if len(found) == 1 else tokens[0]

    def _limit(self, label: str, limit: object) -> tuple[Budget, int]:
        budget = self._budget(label)
        try:
            return budget, (USD if budget.unit is Unit.USD else TOKENS).read(limit)
        except BadValue as error:
            raise RefusedError(f"{budget.label}: {error}") from None

    def _check_running(self) -> None:
        if self._ended or self._supervisor.cancelled:
            raise RefusedError(f"run {self.view.run_id} {'has ended' if self._ended else 'is being stopped'}")

    def _publish(self, action: str, target: str, text: str, by: By) -> None:
        self._bus.publish(Steered(action, target, text, by))


def _resume_with(run_id: str, output_dir: Path, label: str) -> str:
    """The command that continues a run with a budget that it lacks."""
    limit = f"--{label}-token-budget N" if label in (Scope.OVERALL, *WINDOW_SCOPES) else f"--command-budget '{label}=N'"
    return f"stop the run and continue it: claude-orchestrator --resume {run_id}{output_dir_option(output_dir)} {limit}"


def _names(budget: Budget) -> set[str]:
    """What a person may call a budget: its label, with or without its account, or its key."""
    label, key = budget.label.lower(), budget.key.lower()
    return {label, label.removesuffix(f" ({key})")} | ({key} if key else set())


def _listed(statuses: dict[str, InstanceStatus]) -> str:
    return next(iter(statuses)) if len(statuses) == 1 else counted(len(statuses), "instance")
