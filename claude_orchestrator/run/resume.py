"""What a journal tells of a run: what its instances have used, and what is left to do. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from claude_orchestrator.config.plan import LaunchSpec, Plan
from claude_orchestrator.run.state import NOT_ENDED, Attempt, InstanceStatus, State, cost_of
from token_budget.budget_manager import TokenBudgetManager
from token_budget.ledger.records import AttemptRecord
from token_budget.models import Usage, Weights
from token_budget.text import NANO

MAX_ATTEMPTS = 1_000_000


@dataclass(slots=True)
class Past:
    """One instance as its journal tells it; counts are of each attempt."""

    name: str
    base_command: str | None = None
    turns_mark: str = ""
    state: State = State.PENDING
    reason: str = ""
    attempts: list[Attempt] = field(default_factory=list)
    session_id: str | None = None
    turns_done: int = 0
    worked: bool = False
    launched_at: float = 0.0
    done: Mapping[str, Any] = field(default_factory=dict)

    @property
    def usage(self) -> Usage:
        """The tokens counted."""
        return sum((attempt.usage for attempt in self.attempts), Usage())

    @property
    def exact(self) -> bool:
        """Whether that is all that was billed."""
        return all(attempt.exact for attempt in self.attempts)

    @property
    def cost_usd(self) -> float | None:
        """The cost as the CLI stated it; None where it stated nothing."""
        return cost_of(self.attempts)


@dataclass(slots=True)
class History:
    """A run as its journal tells it. `header` is its latest start, with all settings that were ever given; `runs` is
    how often it was started, `last_number` the number of its last line."""

    header: Mapping[str, Any] = field(default_factory=dict)
    instances: dict[str, Past] = field(default_factory=dict)
    runs: int = 0
    damaged_lines: int = 0
    last_number: int = 0

    @property
    def usage(self) -> Usage:
        """All that was counted."""
        return sum((past.usage for past in self.instances.values()), Usage())


def turns_mark(spec: LaunchSpec, run_id: str) -> str:
    """Tells whether an instance's turns are still the same, without telling what they are."""
    return hashlib.sha256("\0".join((run_id, *spec.turns)).encode()).hexdigest()[:16]


def read_history(records: Iterable[Mapping[str, Any] | None]) -> History:
    """Fold a journal's records (None: a damaged line); what is not known here is passed over."""
    history, whole = History(), 0
    for record in records:
        try:
            if record is None:
                history.damaged_lines += 1
                continue
            if record["n"] <= history.last_number:  # a copy of a line
                continue
            whole, history.last_number = whole + 1, record["n"]
            if record["kind"] == "run":
                _begin(history, record)
            elif record.get("instance") in history.instances:
                _fold(history.instances[record["instance"]], record)
        except (KeyError, TypeError, ValueError):
            history.damaged_lines += 1
    history.damaged_lines = max(history.damaged_lines, history.last_number - whole)
    return history


def _begin(history: History, record: Mapping[str, Any]) -> None:
    before, now = history.header.get("settings", {}), record.get("settings", {})
    budgets = [*before.get("command_budgets", ()), *now.get("command_budgets", ())]  # of one key the last one counts
    history.header = {**record, "settings": {**before, **now, **({"command_budgets": budgets} if budgets else {})}}
    history.runs = record["number"]
    for entry in record["instances"]:
        past = history.instances.setdefault(entry["name"], Past(entry["name"]))
        past.base_command, past.turns_mark = entry["base_command"], entry["turns"]


def _fold(past: Past, record: Mapping[str, Any]) -> None:
    if not 0 <= record.get("attempt", 0) <= MAX_ATTEMPTS:
        raise ValueError("not a number of attempts")
    match record["kind"]:
        case "launch":
            past.state, past.reason = State.RUNNING, ""
            past.attempts += [Attempt(exact=False)] * (record["attempt"] - len(past.attempts))
            past.session_id, past.turns_done = record["session"], record["turns_done"]
            past.worked, past.launched_at = record["goes_on"], record["at"]
        case "session":
            past.session_id = record["session"]
        case "turn":
            past.turns_done = record["done"]
        case "done":
            past.state = State.COMPLETED
        case "usage":
            _count(past, record, seconds=max(0.0, record["at"] - past.launched_at))
        case "end":
            past.state, past.reason = State(record["state"]), record["reason"]
            if record["attempt"]:
                _count(past, record, seconds=record["seconds"])
                past.session_id, past.turns_done = record["session"], record["turns_done"]
                past.done = record["done"]


def _count(past: Past, record: Mapping[str, Any], *, seconds: float) -> None:
    usage = Usage(*record["usage"])
    past.attempts += [Attempt(exact=False)] * (record["attempt"] - len(past.attempts))
    # without an end it was broken off: what it did after its last line is not known
    exact = record["kind"] == "end" and record["exact"]
    past.attempts[record["attempt"] - 1] = Attempt(usage, exact, record["cost_usd"], seconds)
    past.worked = past.worked or usage.total_tokens > 0


def restore(plan: Plan, history: History | None, run_id: str) -> tuple[InstanceStatus, ...]:
    """The plan's instances with what the run's journal says of them: completed ones stay so, others go on."""
    return tuple(_restore(spec, history.instances.get(spec.name) if history else None, run_id) for spec in plan.specs)


def _restore(spec: LaunchSpec, past: Past | None, run_id: str) -> InstanceStatus:
    status = InstanceStatus(spec)
    if past is not None:
        same = past.turns_mark == turns_mark(spec, run_id)
        session = (past.session_id, past.turns_done) if past.session_id and past.worked and same else None
        status.restore(tuple(past.attempts), session)
        if past.done:
            status.restore_done(past.done)
        if past.state is State.COMPLETED:
            status.take_over(past.state, past.reason)
    return status


def carry_over(manager: TokenBudgetManager, history: History, weights: Weights) -> None:
    """Book on the budgets what the run has used before."""
    for past in history.instances.values():
        for attempt in past.attempts:
            manager.record_usage(past.base_command, weights.draw(attempt.usage), past.name)


def resume_messages(plan: Plan, history: History, run_id: str) -> list[tuple[str, str]]:
    """The messages about a run that is resumed, each with its level."""
    specs = {spec.name: spec for spec in plan.specs}
    done = [past for past in history.instances.values() if past.state is State.COMPLETED and past.name in specs]
    text = (
        f"resuming run {run_id}: {len(done)} of {len(specs)} instances had completed, "
        f"{history.usage.total_tokens:,} tokens were used"
    )
    said = [("INFO", text)]
    if history.damaged_lines:
        said.append(("WARNING", f"{history.damaged_lines} lines of the run's journal are damaged or missing"))
    said += [
        ("WARNING", f"{past.name} had completed and is not run again, though its turns have changed since")
        for past in done
        if turns_mark(specs[past.name], run_id) != past.turns_mark
    ]
    gone = [past.name for past in removed(plan, history)]
    if gone:
        said.append(("WARNING", f"{', '.join(gone)}: not in the config any more; what they used stays counted"))
    return said


def removed(plan: Plan, history: History) -> tuple[Past, ...]:
    """The instances that were launched in the run before, and are not in the plan any more."""
    names = {spec.name for spec in plan.specs}
    return tuple(past for past in history.instances.values() if past.attempts and past.name not in names)


def earlier_attempts(history: History, run_id: str) -> list[AttemptRecord]:
    """The attempts that the journal of a resumed run has, for a ledger that may lack the last second."""
    return [
        AttemptRecord(
            run_id,
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
        for past in history.instances.values()
        for number, attempt in enumerate(past.attempts, 1)
    ]


def _outcome(state: State, *, is_last: bool) -> str:
    """How an attempt of an earlier orchestrator ended: all but the last failed, or no other would have followed."""
    if not is_last:
        return str(State.FAILED)
    return "interrupted" if state in NOT_ENDED else str(state)
