"""The events of a run as JSON data. Pure.

An instance's figures are those at the time of writing, which may be a little after the event.
"""

from __future__ import annotations

import re
from typing import Any

from claude_orchestrator.engine.activity import Activity
from claude_orchestrator.engine.control.snapshot import budget_row, instance_row
from claude_orchestrator.engine.results.answers import clipped
from claude_orchestrator.engine.run_events import (
    AlertRaised,
    Answered,
    AttemptEnded,
    Changed,
    ChangesKept,
    Checked,
    Crossed,
    Decided,
    Expanded,
    Foreseen,
    InstanceEnded,
    Launched,
    ModelChosen,
    RateLimitsRead,
    Reopened,
    RequestSent,
    RequestSettled,
    RetryPlanned,
    RoomChanged,
    RunEnded,
    RunEvent,
    RunStarted,
    Stopping,
    UsageRecorded,
)
from claude_orchestrator.engine.run_view import RunView, usage_fields
from claude_orchestrator.engine.state import InstanceStatus
from token_budget.models import Budget

SILENT = frozenset({Changed, RunStarted})  # events that no subscriber gets
_OF_STATUS = (Launched, AttemptEnded, InstanceEnded, RetryPlanned, Reopened)
_PLAIN = frozenset({"launched", "attempt", "cause", "wait_s"})  # their fields that are JSON
_WORD_ENDS = re.compile(r"(?<=[a-z])(?=[A-Z])")


def kind_of(event: RunEvent) -> str:
    """The event's type in words: `usage_recorded`, `instance_ended`."""
    return _WORD_ENDS.sub("_", type(event).__name__).lower()


def event_json(event: RunEvent, view: RunView, now: float, *, budgets: bool = True) -> dict[str, Any]:
    """An event. `instance` is the name of the instance that it is about, and `row` its row if its state changed.

    An event about usage includes the budgets of its instance if they are wanted.
    """
    if isinstance(event, UsageRecorded) and not budgets:
        return {"kind": kind_of(event), **_use(event.status)}
    return {"kind": kind_of(event), **_fields(event, view, now)}


def _fields(event: RunEvent, view: RunView, now: float) -> dict[str, Any]:
    match event:
        case UsageRecorded(status, _):
            return _usage(status, view)
        case Activity(instance, doing, _, turn, since):
            seconds = round(max(0.0, now - since), 1)
            row = {"doing": str(doing), "text": event.words, "seconds": seconds}
            return {"instance": instance, "turn": turn, "now": row}
        case Expanded(group, members):
            names = {member.name for member in members}
            rows = [instance_row(status, view, now) for status in view.instances if status.name in names]
            return {"group": group, "rows": rows}
        case Checked(instance, number, verdict, simulated):
            fields = {"passed": verdict.passed, "fault": verdict.fault, "output": verdict.output}
            return {"instance": instance, "round": number, "simulated": simulated, **fields}
        case Answered(instance, turn, turns, text, output):
            shown, cut = clipped(text)
            more = {"text": shown, "cut": cut, "structured": output is not None}
            return {"instance": instance, "turn": turn, "turns": turns, **more}
        case ChangesKept(instance, changes):
            return {"instance": instance, "changes": None if changes is None else changes.fields}
        case AlertRaised(text, payload, _):
            return {"text": text, "alert": dict(payload)}
        case RateLimitsRead(limits):
            return {"limits": dict(limits)}
        case RoomChanged():
            return {"budgets": [budget_row(budget) for budget in view.manager.budgets]}
        case RunEnded(code):
            return {"exit_code": code}
        case _:
            return _more(event, view, now)


def _more(event: RunEvent, view: RunView, now: float) -> dict[str, Any]:
    match event:
        case Crossed(budget):
            return {"budget": budget_row(budget)}
        case Foreseen(budget, tokens):
            return {"budget": budget_row(budget), "tokens": tokens}
        case ModelChosen(instance, model, budget):
            return {"instance": instance, "model": model, "budget": budget.label}
        case RequestSent(status, sent) | RequestSettled(status, sent):
            return {"instance": status.name, "attempt": status.attempts, "request": sent.number}
        case Decided(instance, action, reason, budget):
            return {"instance": instance, "action": str(action), "reason": reason, "budget": _label(budget)}
        case Stopping(instance, state, reason, budget):
            return {"instance": instance, "state": str(state), "reason": reason, "budget": _label(budget)}
        case _ if isinstance(event, _OF_STATUS):
            status = event.status
            more = {key: value for key, value in event._asdict().items() if key in _PLAIN}
            return {"instance": status.name, **more, "row": instance_row(status, view, now)}
        case _:
            return {key: _plain(value) for key, value in event._asdict().items()}


def _usage(status: InstanceStatus, view: RunView) -> dict[str, Any]:
    budgets = view.manager.budgets_for(status.spec.base_command, status.name)
    return {**_use(status), "budgets": [budget_row(budget) for budget in budgets]}


def _use(status: InstanceStatus) -> dict[str, Any]:
    return {
        "instance": status.name,
        "usage": usage_fields(status.usage, exact=status.exact),
        "cost_usd": status.cost_usd,
        "cost_nano_usd": status.nano_usd,
        "models": list(status.models),
    }


def _label(budget: Budget | None) -> str | None:
    return None if budget is None else budget.label


def _plain(value: object) -> object:
    return dict(value._asdict()) if hasattr(value, "_asdict") else value
