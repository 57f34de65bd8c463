"""A run of another process on the screen, from its status as JSON data. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from claude_orchestrator.engine.groups import GroupStatus
from claude_orchestrator.engine.snapshot import Row, Snapshot
from claude_orchestrator.engine.state import State
from token_budget.models import Budget, Scope, Unit, Usage
from token_budget.text import NANO

Json = Mapping[str, Any]
STATES = frozenset(map(str, State))


def snapshot_of(status: Json) -> Snapshot:
    """What the screen draws of a run."""
    run, totals = status["run"], status["totals"]
    budgets = {budget["label"]: budget_of(budget) for budget in status["budgets"]}
    return Snapshot(
        run_id=run["id"],
        rehearsal=run["rehearsal"],
        seconds=run["seconds"],
        rows=tuple(_row(row, budgets) for row in status["instances"]),
        groups=tuple(_group(group) for group in status["groups"]),
        budgets=tuple(budgets.values()),
        usage=_usage(totals),
        exact=totals["exact"],
        nano_usd=totals["cost_nano_usd"],
        tokens_per_min=totals["tokens_per_min"],
        left_s=totals["left_s"],
    )


def budget_of(data: Json) -> Budget:
    """A budget as the panel takes it."""
    unit = Unit(data["unit"])
    scale = NANO if unit is Unit.USD else 1
    limit, used, held = (round(data[name] * scale) for name in ("limit", "used", "held"))
    return Budget(limit, scope=Scope(data["scope"]), key=data["key"] or "", unit=unit, used=used, held=held)


def _row(data: Json, budgets: Mapping[str, Budget]) -> Row:
    now = data["now"]
    return Row(
        name=data["name"],
        group=data["group"],
        state=State(data["state"]) if data["state"] in STATES else State.CANCELLED,  # one that was interrupted
        label=data["label"],
        unneeded=data["unneeded"],
        doing=now["text"],
        doing_s=now["seconds"],
        seconds=data["seconds"],
        usage=_usage(data["usage"]),
        exact=data["usage"]["exact"],
        nano_usd=data["cost_nano_usd"],
        turn=data["turn"],
        turns=data["turns"],
        attempts=data["attempts"],
        model=data["models"][0] if data["models"] else "",
        tools=data["tool_calls"],
        budgets=tuple(budgets[label] for label in data["budgets"] if label in budgets),
    )


def _group(data: Json) -> GroupStatus:
    states = Counter({State(name): count for name, count in data["states"].items() if name in STATES})
    return GroupStatus(data["name"], states, data["total_tokens"], data["left_s"])


def _usage(data: Json) -> Usage:
    return Usage(*(data[name] for name in Usage._fields))
