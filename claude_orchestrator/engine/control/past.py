"""A run that has ended, read from its journal, in the JSON form of a live run. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from claude_orchestrator.engine.attempt import cost_of
from claude_orchestrator.engine.continuing import rest_of_command
from claude_orchestrator.engine.control.snapshot import PROTOCOL, budget_row
from claude_orchestrator.engine.journal_history import EarlierInstance, JournalHistory, read_history
from claude_orchestrator.engine.resume import carry_over
from claude_orchestrator.engine.run_view import usage_fields
from claude_orchestrator.engine.state import NOT_ENDED
from token_budget.budget_manager import WINDOW_SCOPES, TokenBudgetManager
from token_budget.ledger.run_budgets import budgets_in

INTERRUPTED = "interrupted"
_DECISIONS = {
    "decision": "decided",
    "crossing": "crossed",
    "stop": "stopping",
    "steer": "steered",
    "retry": "retry_planned",
    "alert": "alert_raised",
    "answer": "approval_ended",
}
Record = Mapping[str, Any]


def past_status(
    records: Iterable[Record | None], directory: str, result_of: Callable[[str], str | None] = lambda name: None
) -> dict[str, Any] | None:
    """The run that a journal records; None if the journal has no readable beginning.

    `result_of` has the file of an instance's answer, relative to the run's directory.
    """
    known = list(records)
    history = read_history(known)
    if not history.header:
        return None
    found = list(_without_copies(known))
    finish = _finish(found)
    manager = _manager(history, finish)
    grown = {record.get("group") for record in found if record.get("kind") == "expand"}  # its instances are there
    shown = [one for one in history.instances.values() if one.name not in grown or one.attempts]
    rows = [_row(one, manager, finish is None, result_of(one.name)) for one in shown]
    nano = [cost for row in rows if (cost := row["cost_nano_usd"]) is not None]
    return {
        "protocol": PROTOCOL,
        "run": {
            "id": history.header["run"],
            "state": INTERRUPTED if finish is None else "ended",
            "exit_code": None if finish is None else finish.get("exit_code"),
            "resume_with": rest_of_command(history.header, finish or {}),
            "rehearsal": bool(history.header.get("rehearsal")),
            "directory": directory,
            "started_at": _time(found[0]["at"]),
            "ended_at": _time(found[-1]["at"]),
            "seconds": _seconds(found),
            "paused": False,
            "approvals": 0,
        },
        "totals": {
            **usage_fields(history.usage, exact=all(one.exact for one in history.instances.values())),
            "cost_usd": cost_of(history.instances.values()),
            "cost_nano_usd": sum(nano) if nano else None,
            "tokens_per_min": None,
            "left_s": None,
            "instances": len(rows),
            "states": dict(Counter(row["state"] for row in rows)),
        },
        "budgets": [budget_row(budget) for budget in manager.budgets],
        "rate_limits": [],
        "instances": rows,
        "groups": [],
        "edges": [list(edge) for edge in _edges(history)],
        "removed": [],
        "decisions": [_decision(record) for record in found if record.get("kind") in _DECISIONS],
        "approvals": [],
        "prompt_cache": _cache_lines(found),
        "damaged_lines": history.damaged_lines,
    }


def _cache_lines(found: Iterable[Record]) -> list[str]:
    """What the latest start of the run made of the prompt cache."""
    lines = [record.get("lines") for record in found if record.get("kind") == "cache"]
    return [line for line in lines[-1] if isinstance(line, str)] if lines and isinstance(lines[-1], list) else []


def _manager(history: JournalHistory, finish: Record | None) -> TokenBudgetManager:
    """The budgets of the latest start. If it was interrupted, they contain only what the run itself has used.

    Shared budgets are then left out, because the use by other runs is unknown.
    """
    limits, manager = budgets_in(history.header), TokenBudgetManager()
    final = () if finish is None else budgets_in(finish).budgets
    for one in history.instances.values():
        if one.group is not None:
            manager.join(one.name, one.group)
    for budget in final:
        manager.update_shared(manager.set_budget(budget.scope, budget.limit, budget.key, budget.unit), budget.used, 0)
    if final:
        return manager
    for budget in limits.budgets:
        if budget.scope not in WINDOW_SCOPES:
            manager.set_budget(budget.scope, budget.limit, budget.key, budget.unit)
    carry_over(manager, history, limits.weights)
    return manager


def _edges(history: JournalHistory) -> Iterator[tuple[str, str]]:
    """The dependencies. Members of a group that grew have those of the group."""
    for one in history.instances.values():
        group = history.instances.get(one.group or "")
        for need in one.depends_on or (group.depends_on if group is not None else ()):
            yield need, one.name


def _row(
    one: EarlierInstance, manager: TokenBudgetManager, interrupted: bool, result_file: str | None
) -> dict[str, Any]:
    state = INTERRUPTED if interrupted and one.state in NOT_ENDED and one.attempts else str(one.state)
    done = one.done
    log = done.get("log")
    return {
        "name": one.name,
        "group": one.group,
        "state": state,
        "label": state,
        "reason": one.reason,
        "unneeded": False,
        "base_command": one.base_command,
        "models": list(done.get("models", ())),
        "usage": usage_fields(one.usage, exact=one.exact),
        "cost_usd": one.cost_usd,
        "cost_nano_usd": one.nano_usd,
        "budgets": [budget.label for budget in manager.budgets_for(one.base_command, one.name)],
        "depends_on": list(one.depends_on),
        "turn": one.turns_done,
        "turns": max(1, one.turns_done),
        "now": {"doing": None, "text": one.reason, "seconds": None},
        "seconds": round(sum(attempt.seconds for attempt in one.attempts), 3) if one.attempts else None,
        "attempts": len(one.attempts),
        "tool_calls": sum(dict(done.get("tools", {})).values()),
        "tools": dict(done.get("tools", {})),
        "permission_denials": list(done.get("permission_denials", ())),
        "session_id": one.session_id,
        "verified": None if one.verdict is None else one.verdict.passed,
        "check_rounds": one.check_rounds,
        "changes": None if one.changes is None else one.changes.fields,
        "log": str(log).replace("\\", "/").rpartition("/")[2] if log else None,
        "result_file": result_file,
    }


def _without_copies(records: Iterable[Record | None]) -> Iterator[Record]:
    """The records that are readable; a copy of a line counts once, as in the history."""
    last = 0
    for record in records:
        number = None if record is None else record.get("n")
        if record is not None and isinstance(number, int) and number > last:
            last = number
            yield record


def _finish(found: list[Record]) -> Record | None:
    """The record of the end of the latest start; None if that was interrupted."""
    last = None
    for record in found:
        if record.get("kind") == "run":
            last = None
        elif record.get("kind") == "finish":
            last = record
    return last


def _seconds(found: list[Record]) -> float:
    """How long the orchestrators of the run have worked, without the time between them."""
    total, before = 0.0, float(found[0]["at"])
    for record in found:
        at = float(record["at"])
        if record.get("kind") != "run":
            total += max(0.0, at - before)  # a clock that is set back takes no time away
        before = at
    return round(total, 3)


def _decision(record: Record) -> dict[str, Any]:
    fields = {key: value for key, value in record.items() if key not in ("n", "crc", "kind", "at")}
    return {"at": record["at"], "kind": _DECISIONS[record["kind"]], **fields}


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).astimezone().isoformat(timespec="milliseconds")
