"""What a resumed run takes from its journal: its instances, its budgets, and what to report about them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from claude_orchestrator.config.launch_spec import InterruptedSession, LaunchSpec
from claude_orchestrator.config.plan import Plan
from claude_orchestrator.engine.in_flight import in_flight_message
from claude_orchestrator.engine.journal_history import EarlierInstance, JournalHistory
from claude_orchestrator.engine.journal_records import turns_digest
from claude_orchestrator.engine.state import NOT_ENDED, InstanceStatus, State
from token_budget.budget_manager import TokenBudgetManager
from token_budget.ledger.records import AttemptRecord
from token_budget.model_weights import TokenWeights, draw
from token_budget.models import Amount, Usage
from token_budget.text import counted

NAMES_SHOWN = 10


def restore(plan: Plan, history: JournalHistory, run_id: str) -> list[InstanceStatus]:
    """The plan's instances as the run's journal left them: completed ones stay completed, the others continue."""
    return [restore_one(spec, history.instances.get(spec.name), run_id) for spec in plan.specs]


def restore_one(spec: LaunchSpec, instance: EarlierInstance | None, run_id: str) -> InstanceStatus:
    """An instance as the run's journal left it."""
    status = InstanceStatus(spec)
    if instance is not None:
        same = instance.turns_digest == turns_digest(spec, run_id)
        resumable = instance.worked and same
        session = None
        if status.verification is not None and instance.verdict is not None:
            status.verification.restore(instance.check_rounds, instance.verdict, fix_due=instance.fix_due)
        if instance.session_id and resumable:
            session = InterruptedSession(instance.session_id, instance.turns_done, instance.folder, status.fix)
        status.restore(tuple(instance.attempts), session)
        if instance.done:
            status.restore_done(instance.done)
        if instance.changes_known or instance.changes is not None:
            status.keep_changes(instance.changes)
        if instance.state is State.COMPLETED:
            status.take_over(instance.state, instance.reason)
    return status


def charge_in_flight(history: JournalHistory, how: str | None) -> list[tuple[str, str]]:
    """Charge the requests that were in flight when the run was killed, as `charge_unanswered` says.

    Returns the message about them with its level, if there were any.
    """
    count = sum(len(instance.in_flight) for instance in history.instances.values())
    charged = [instance.in_flight.charge(instance.attempts, how or "bound") for instance in history.instances.values()]
    return [("WARNING", in_flight_message(count, sum(charged, Usage())))] if count else []


def carry_over(manager: TokenBudgetManager, history: JournalHistory, weights: TokenWeights) -> None:
    """Charge the budgets what earlier starts of the run have used."""
    for instance in history.instances.values():
        if instance.group is not None:
            manager.join(instance.name, instance.group)
        for attempt in instance.attempts:
            amount = Amount(draw(weights, attempt.usage, dict(attempt.by_model)), attempt.cost_nano_usd or 0)
            manager.record(instance.base_command, amount, instance.name)


def resume_messages(plan: Plan, history: JournalHistory, run_id: str) -> list[tuple[str, str]]:
    """The messages about a resumed run, each with its level."""
    specs, growing = {spec.name: spec for spec in plan.specs}, _growing(plan)
    members = [one for one in history.instances.values() if one.group in growing and one.name not in specs]
    known = [*members, *(one for one in history.instances.values() if one.name in specs)]
    done = [one for one in known if one.state is State.COMPLETED]
    count = len(specs) + len(members) - len({one.group for one in members})
    text = (
        f"resuming run {run_id}: {len(done)} of {counted(count, 'instance')} had completed, "
        f"{counted(history.usage.total_tokens, 'token')} used before"
    )
    messages = [("INFO", text)]
    if history.damaged_lines:
        messages.append(
            ("WARNING", f"damaged or missing in the run's journal: {counted(history.damaged_lines, 'line')}")
        )
    if history.rules:
        named = ", ".join(map(str, history.rules[:NAMES_SHOWN]))
        more = f" and {len(history.rules) - NAMES_SHOWN:,} more" if len(history.rules) > NAMES_SHOWN else ""
        messages.append(("INFO", f"still allowed, as approved before: {named}{more}"))
    changed = [
        one.name for one in done if one.name in specs and turns_digest(specs[one.name], run_id) != one.turns_digest
    ]
    if changed:
        text = f"{_named(changed)}: completed before and not run again, although the turns have changed"
        messages.append(("WARNING", text))
    gone = [instance.name for instance in removed(plan, history)]
    if gone:
        messages.append(("WARNING", f"{_named(gone)}: no longer in the config, but the use still counts"))
    new = [name for name in specs if name not in history.instances]
    if new:
        messages.append(("INFO", f"{_named(new)}: new in the config"))
    return messages


def _named(names: Sequence[str]) -> str:
    """The names, or the first ones of many."""
    more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
    return f"{', '.join(names[:NAMES_SHOWN])}{more}"


def removed(plan: Plan, history: JournalHistory) -> list[EarlierInstance]:
    """The instances that were launched by an earlier start and are no longer in the plan."""
    names, growing = {spec.name for spec in plan.specs}, _growing(plan)
    gone = (one for one in history.instances.values() if one.name not in names and one.group not in growing)
    return [one for one in gone if one.attempts]


def _growing(plan: Plan) -> set[str]:
    """The groups whose instances are not known yet."""
    return {spec.name for spec in plan.specs if spec.grows is not None}


def earlier_attempts(history: JournalHistory, run_id: str) -> list[AttemptRecord]:
    """The attempts that the journal records, for a ledger that may lack those of the last second."""
    return [
        AttemptRecord(
            run_id,
            instance.name,
            number,
            started_ms=round(instance.launched_at * 1000),
            session=instance.session_id,
            base_command=instance.base_command,
            ended_ms=round((instance.launched_at + attempt.seconds) * 1000),
            outcome=_outcome(instance.state, is_last=number == len(instance.attempts)),
            exact=attempt.exact,
            usage=attempt.usage,
            cost_nano_usd=attempt.cost_nano_usd,
        )
        for instance in history.instances.values()
        for number, attempt in enumerate(instance.attempts, 1)
    ]


def _outcome(state: State, *, is_last: bool) -> str:
    """How an attempt of an earlier start ended. All but the last have failed, since another one followed."""
    if not is_last:
        return str(State.FAILED)
    return "interrupted" if state in NOT_ENDED else str(state)
