"""The message to the user about each event of a run, as a level and a line. Pure."""

from __future__ import annotations

from claude_orchestrator.engine.run_events import (
    AlertRaised,
    ApprovalAsked,
    ApprovalEnded,
    By,
    Checked,
    Crossed,
    Decided,
    InstanceEnded,
    Level,
    Message,
    ModelChosen,
    Reopened,
    RetryPlanned,
    RunEvent,
    RunStopping,
    Steered,
    Stopping,
)
from claude_orchestrator.engine.state import State
from token_budget.models import Action, Budget, Scope, Unit
from token_budget.text import counted

BY_BUDGET = "stopped by budget: "


def message_of(event: RunEvent, approve: str = "claude-runs approve last") -> tuple[Level, str] | None:
    """The message about an event; None if it needs none. `approve` is the command that approves tools of the run."""
    match event:
        case Message(level, text):
            return level, text
        case Decided():
            return _decision(event)
        case ModelChosen(instance, model, budget):
            return Level.WARNING, f"{instance} starts with {model}: {budget.label} budget: used {budget.figures()}"
        case Crossed(budget):
            return Level.WARNING, f"Budget exceeded for {_label(budget)} ({_figures(budget)})"
        case Stopping(instance, _, reason, Budget()):
            figures = reason.removeprefix(BY_BUDGET)
            return Level.ERROR, f"BLOCK MODE: Budget exceeded for instance {instance}. Stopping. ({figures})"
        case RunStopping(reason):
            return Level.ERROR, f"stopping: {reason}"
        case RetryPlanned(status, attempt, _, _):
            return Level.WARNING, f"{status.name}: attempt {attempt} failed, {status.reason}"
        case Checked(instance, round, verdict, simulated):
            if simulated:
                return (
                    Level.INFO,
                    f"{instance}: the check counts as passed, because a rehearsal does not run its command",
                )
            how = "passed" if verdict.passed else f"failed: {verdict.fault}"
            return Level.INFO if verdict.passed else Level.WARNING, f"{instance}: check round {round} {how}"
        case InstanceEnded(_, True):
            return _ending(event)
        case InstanceEnded(status, _) if status.state is State.SKIPPED:
            level = Level.INFO if status.unneeded else Level.WARNING
            return level, f"{status.name}: skipped: {status.reason}"
        case AlertRaised(text, _, already_reported) if not already_reported:
            return Level.WARNING, text
        case _:
            return _steering(event, approve)


def _steering(event: RunEvent, approve: str) -> tuple[Level, str] | None:
    match event:
        case Steered(_, _, text, by):
            return Level.WARNING, f"{text} ({by})"
        case Reopened(status):
            return Level.INFO, f"{status.name}: may start after all, because a limit was raised"
        case ApprovalAsked(id, instance, _, text):
            return Level.WARNING, f"{instance} asks for approval {id}: {text} ({approve} {id})"
        case ApprovalEnded(by=By("rules")):
            return None
        case ApprovalEnded(id, instance, text, outcome, by):
            return Level.INFO, f"{instance}: approval {id} {outcome} ({by}): {text}"
        case _:
            return None


def _decision(event: Decided) -> tuple[Level, str] | None:
    match event:
        case Decided(instance, Action.WAIT, reason, _):
            return Level.INFO, f"{instance} waits: {reason}"
        case Decided(instance, Action.BLOCK, reason, _):
            return Level.ERROR, f"BLOCK MODE: Budget exceeded for instance {instance}. Skipping. ({reason})"
        case Decided(instance, Action.WARN, reason, Budget() as budget):
            would = f"Budget would be exceeded for {_label(budget)} ({_figures(budget)})"
            return Level.WARNING, f"{would}: instance {instance} starts anyway ({reason})"
        case _:
            return None


def _ending(event: InstanceEnded) -> tuple[Level, str]:
    status = event.status
    tokens, seconds = counted(status.total_tokens, "token"), status.attempt.totals.seconds
    text = f"{status.name}: {status.state} after {seconds:.1f} s, {tokens}"
    level = Level.INFO if status.state is State.COMPLETED or status.unneeded else Level.ERROR
    was_reported = status.reason.startswith(BY_BUDGET)  # when it was stopped
    return level, f"{text}: {status.reason}" if status.reason and not was_reported else text


def _label(budget: Budget) -> str:
    return budget.label.replace("overall", "overall session") if budget.scope is Scope.OVERALL else budget.label


def _figures(budget: Budget) -> str:
    """`used: 1200/1000 tokens`, as the reference document has it."""
    if budget.unit is Unit.USD:
        return f"used: {budget.figures()}"
    return f"used: {budget.used}/{budget.limit} tokens"
