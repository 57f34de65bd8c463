"""What the journal writes for each event of a run. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.engine.attempt import AttemptTotals
from claude_orchestrator.engine.file_names import log_name
from claude_orchestrator.engine.run_events import (
    AlertRaised,
    ApprovalAsked,
    ApprovalEnded,
    AttemptEnded,
    CacheReported,
    ChangesKept,
    Checked,
    Crossed,
    Decided,
    Expanded,
    HoldChanged,
    InstanceEnded,
    Launched,
    Recounted,
    RequestSent,
    RequestSettled,
    RetryPlanned,
    RuleMade,
    RunEnded,
    RunEvent,
    RunStarted,
    SessionNamed,
    Steered,
    Stopping,
    TurnEnded,
    UsageRecorded,
    WorkEnded,
)
from claude_orchestrator.engine.state import InstanceStatus
from token_budget.digests import sha256
from token_budget.ledger.run_budgets import limit_row
from token_budget.models import Action

if TYPE_CHECKING:
    from claude_orchestrator.engine.verification import CheckVerdict


def turns_digest(spec: LaunchSpec, run_id: str) -> str:
    """A digest by which a later start knows whether an instance's turns have changed; it does not reveal them."""
    late: tuple[str, ...] = ()
    if spec.late is not None and spec.item is not None:
        from claude_orchestrator.config.items import as_text  # only for items

        late = (as_text(spec.item),)  # not in the turns yet
    return sha256("\0".join((run_id, *spec.turns, *late)).encode()).hexdigest()[:16]


def record_of(event: RunEvent) -> tuple[str, dict[str, Any]] | None:
    """The kind and the fields of an event's record; None if the journal does not keep the event."""
    match event:
        case RunStarted(header):
            return "run", dict(header)
        case Expanded(group, members):
            return "expand", {"group": group, "instances": [member._asdict() for member in members]}
        case Launched(status, hold):
            return "launch", {**_attempt(status), "hold": hold.remaining.tokens, **_launch(status)}
        case SessionNamed(instance, session_id, folder):
            return "session", {"instance": instance, "session": session_id, "folder": folder}
        case TurnEnded(instance, done):
            return "turn", {"instance": instance, "done": done}
        case Checked(instance, round, verdict, _):
            fields = {"instance": instance, "round": round, "passed": verdict.passed}
            return "check", fields if verdict.passed else {**fields, **_fault(verdict)}
        case ChangesKept(instance, changes):
            return "changes", {"instance": instance, "changes": None if changes is None else changes._asdict()}
        case WorkEnded(instance):
            return "done", {"instance": instance}
        case Decided(instance, Action.WAIT | Action.WARN as action, reason, _):
            return "decision", {"instance": instance, "action": str(action), "reason": reason}
        case HoldChanged(instance, text, _):
            return "adjust", {"instance": instance, "reason": text}
        case Crossed(budget):
            return "crossing", {"budget": budget.label, "used": budget.used, "limit": budget.limit}
        case _:
            return _count(event) or _ending(event)


def _count(event: RunEvent) -> tuple[str, dict[str, Any]] | None:
    match event:
        case UsageRecorded(status, _, sent):
            left = {} if sent is None else {"request": sent.number, **sent.left.record}
            return "usage", {**_attempt(status), **_use(status.attempt.totals), **left}
        case Recounted(instance, attempt, totals):
            fields = {"instance": instance, "attempt": attempt, **_use(totals)}
            return "recount", {**fields, "exact": totals.exact, "seconds": totals.seconds}
        case RequestSent(status, sent):
            return "sent", {**_attempt(status), "request": sent.number, **sent.left.record}
        case RequestSettled(status, sent):
            return "settled", {**_attempt(status), "request": sent.number}
        case _:
            return None


def _ending(event: RunEvent) -> tuple[str, dict[str, Any]] | None:
    match event:
        case Stopping(instance, state, reason, _):
            return "stop", {"instance": instance, "state": state, "reason": reason}
        case AttemptEnded(status):
            return "end", {**_attempt(status), **_end(status)}
        case InstanceEnded(status, False):
            return "end", {"instance": status.name, "attempt": 0, "state": status.state, "reason": status.reason}
        case RetryPlanned(status, attempt, cause, wait_s):
            fields = {"instance": status.name, "attempt": attempt, "cause": cause}
            return "retry", {**fields, "wait_s": round(wait_s, 3)}
        case AlertRaised(text, _, _):
            return "alert", {"reason": text}
        case Steered(action, target, text, by):
            return "steer", {"action": action, "target": target, "reason": text, **by._asdict()}
        case ApprovalAsked(id, instance, tool, text):
            return "ask", {"instance": instance, "id": id, "tool": tool, "reason": text}
        case ApprovalEnded(id, instance, text, outcome, by):
            return "answer", {"instance": instance, "id": id, "outcome": outcome, "reason": text, **by._asdict()}
        case RuleMade(rule, by):
            return "rule", {"rule": rule._asdict(), **by._asdict()}
        case CacheReported(lines):
            return "cache", {"lines": list(lines)}
        case RunEnded(exit_code, budgets, raised):
            used = [{**limit_row(budget), "used": budget.used} for budget in budgets]
            more = {"budgets": used, "raised": list(raised)}
            return "finish", {"exit_code": exit_code, **{name: value for name, value in more.items() if value}}
        case _:
            return None


def _fault(verdict: CheckVerdict) -> dict[str, Any]:
    return {"reason": verdict.fault, "output": verdict.output, "hopeless": verdict.hopeless}


def _attempt(status: InstanceStatus) -> dict[str, Any]:
    return {"instance": status.name, "attempt": status.attempts}


def _use(attempt: AttemptTotals) -> dict[str, Any]:
    models = {model: usage.counts for model, usage in attempt.by_model}
    costs = {"cost_usd": attempt.cost_usd, "cost_nano_usd": attempt.cost_nano_usd}
    return {"usage": attempt.usage.counts, "models": models, **costs}


def _launch(status: InstanceStatus) -> dict[str, Any]:
    spec = status.spec
    fields = {"session": spec.session_id, "turns_done": spec.turns_before, "goes_on": spec.resumed}
    return {**fields, "folder": status.attempt.folder, "log": log_name(spec.position, spec.name, status.attempts)}


def _end(status: InstanceStatus) -> dict[str, Any]:
    attempt = status.attempt.totals
    return {
        "state": status.state,
        "reason": status.reason,
        **_use(attempt),
        "exact": attempt.exact,
        "seconds": round(attempt.seconds, 3),
        "done": status.done,
        "session": status.session_id,
        "turns_done": status.attempt.turns_completed,
        "exit_code": status.attempt.exit_code,
    }
