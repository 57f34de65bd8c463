"""A run at one moment, as JSON data: what a control program or a page shows first. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import PurePath
from typing import Any

from claude_orchestrator.engine.approvals import ToolQuestion
from claude_orchestrator.engine.groups import groups_of
from claude_orchestrator.engine.rate_limits import rate_limit_rows
from claude_orchestrator.engine.run_view import RunView, place_fields, usage_fields
from claude_orchestrator.engine.sharing.cache_use import cache_lines
from claude_orchestrator.engine.snapshot import Snapshot, doing_of, state_text
from claude_orchestrator.engine.state import InstanceStatus, State
from token_budget.models import Budget, Unit
from token_budget.named_tuples import NamedTuple
from token_budget.text import NANO

PROTOCOL = 1
MAX_COMMAND_CHARS = 500


class Steering(NamedTuple):
    """What can be changed of a run, what waits for a person, and where the run keeps its files."""

    state: str  # waiting (for its start time), running, paused, stopping or ended
    paused: bool
    max_parallel: int
    directory: str = ""
    approvals: tuple[ToolQuestion, ...] = ()


class RunMoment(NamedTuple):
    """A run at a time of the supervisor's clock, with the figures that all instances have together."""

    now: float
    figures: Snapshot


class Rows:
    """The rows of a run's instances. The row of an instance that does not run is made again only if something
    changes."""

    def __init__(self, view: RunView) -> None:
        self._view = view
        self._still: dict[str, tuple[tuple[object, ...], dict[str, Any]]] = {}

    def of(self, status: InstanceStatus, now: float) -> dict[str, Any]:
        """The row of an instance."""
        if status.state in (State.RUNNING, State.WAITING):
            return instance_row(status, self._view, now)
        key = status.state, status.reason, status.unneeded, status.changes_known, status.attempts, status.tally.usage
        known = self._still.get(status.name)
        if known is None or known[0] != key:
            known = self._still[status.name] = key, instance_row(status, self._view, now)
        return known[1]


def snapshot(
    view: RunView, rows: Rows, steering: Steering, at: RunMoment, notable: Callable[[], Iterable[dict[str, Any]]]
) -> dict[str, Any]:
    """The whole run. `notable` has the decisions so far, as events."""
    instances, now = tuple(view.instances), at.now
    return {
        **brief(view, steering, at),
        "instances": [rows.of(status, now) for status in instances],
        "groups": [{**group.fields(), "left_s": group.left_s} for group in groups_of(instances, now)],
        "edges": [list(edge) for edge in edges(instances)],
        "removed": [
            {"name": past.name, "state": str(past.state), **usage_fields(past.usage, exact=past.exact)}
            for past in view.removed
        ],
        "decisions": list(notable()),
        "approvals": [approval_row(ask) for ask in steering.approvals],
        "prompt_cache": [] if view.rehearsal else cache_lines(view.cache, instances),
    }


def brief(view: RunView, steering: Steering, at: RunMoment) -> dict[str, Any]:
    """The run without its instances: for lists, headers and budgets."""
    figures = at.figures
    return {
        "protocol": PROTOCOL,
        "run": {
            "id": view.run_id,
            "state": steering.state,
            "rehearsal": view.rehearsal,
            "directory": steering.directory,
            "started_at": view.started_at.isoformat(timespec="milliseconds"),
            "seconds": round(figures.seconds, 3),
            "mode": view.manager.enforcement_mode,
            "meter": view.meter.kind,
            "paused": steering.paused,
            "max_parallel": steering.max_parallel,
            "approvals": len(steering.approvals),
        },
        "totals": {
            **usage_fields(figures.usage, exact=figures.exact),
            "cost_usd": view.total_cost_usd(),
            "cost_nano_usd": figures.nano_usd,
            "tokens_per_min": figures.tokens_per_min,
            "left_s": figures.left_s,
            "instances": len(figures.rows),
            "states": {str(state): count for state, count in figures.states.items()},
        },
        "budgets": [budget_row(budget) for budget in view.manager.budgets],
        "rate_limits": [
            {"name": name, "used_percent": used, "resets_at": resets or None}
            for name, used, resets in rate_limit_rows(view.changes.rate_limits)
        ],
    }


def edges(instances: Iterable[InstanceStatus]) -> Iterator[tuple[str, str]]:
    """Each dependency as the name of what has to end first, an instance or a group, and the name of what waits."""
    for status in instances:
        for need in status.planned.depends_on:
            yield need, status.name


def budget_row(budget: Budget) -> dict[str, Any]:
    """A budget. Amounts are tokens, or US dollars where `unit` is `USD`."""
    scale = NANO if budget.unit is Unit.USD else 1

    def amount(quantity: int) -> float | int:
        return quantity / scale if scale > 1 else quantity

    return {
        "label": budget.label,
        "scope": str(budget.scope),
        "key": budget.key or None,
        "unit": str(budget.unit),
        "limit": amount(budget.limit),
        "used": amount(budget.used),
        "held": amount(budget.held),
        "held_elsewhere": amount(budget.held_elsewhere),
        "percentage": round(budget.percentage, 2),
        "exceeded": budget.exceeded,
    }


def instance_row(status: InstanceStatus, view: RunView, now: float) -> dict[str, Any]:
    """An instance with all figures of all its attempts. Files are relative to the run's directory.

    `now` says what it does, what it waits for or why it ended, and for how long, in seconds, if that matters.
    """
    spec, attempt = status.spec, status.attempt
    budgets = view.manager.budgets_for(spec.base_command, status.name)
    doing, since = doing_of(status)
    return {
        "name": status.name,
        **place_fields(spec),
        "state": str(status.state),
        "label": state_text(status),
        "reason": status.reason,
        "unneeded": status.unneeded,
        "description": spec.description,
        "command": spec.command[:MAX_COMMAND_CHARS],
        "base_command": spec.base_command,
        "depends_on": list(status.planned.depends_on),
        "run_if": spec.run_if,
        "race_of": spec.race_of,
        "models": list(status.models),
        "usage": usage_fields(status.usage, exact=status.exact),
        "cost_usd": status.cost_usd,
        "cost_nano_usd": status.nano_usd,
        "estimate_tokens": spec.estimate.tokens,
        "budgets": [budget.label for budget in budgets],
        "turn": status.turn,
        "turns": len(status.planned.turns),
        "now": {
            "doing": None if status.activity is None else str(status.activity.doing),
            "text": doing,
            "seconds": None if since is None else round(max(0.0, now - since), 1),
        },
        "seconds": round(status.seconds(now), 3) if status.launched else None,
        "started_at": _wall(view, attempt.started_at),
        "ended_at": _wall(view, attempt.ended_at) if status.ended else None,
        "attempts": status.attempts,
        "tool_calls": status.tool_calls,
        "tools": dict(status.tools.most_common()),
        "permission_denials": list(status.permission_denials),
        "session_id": status.session_id,
        "exit_code": attempt.exit_code,
        "verified": status.verified,
        "check_rounds": status.check_rounds,
        "changes": None if status.changes is None else status.changes.fields,
        "branch": status.branch,
        "log": None if status.log is None else PurePath(status.log).name,
        "result_file": None if view.answers is None else view.answers.file_of(status.name),
    }


def approval_row(ask: ToolQuestion) -> dict[str, Any]:
    """A tool that waits for a person. Times are Unix times."""
    return {
        "id": ask.id,
        "instance": ask.instance,
        "tool": ask.tool,
        "text": ask.text,
        "input": dict(ask.given),
        "description": ask.description,
        "asked_at": ask.asked_at,
        "until": ask.until,
    }


def _wall(view: RunView, moment: float | None) -> str | None:
    """A moment of the supervisor's clock as local time."""
    if moment is None:
        return None
    return (view.started_at + timedelta(seconds=moment - view.clock_at_start)).isoformat(timespec="milliseconds")
