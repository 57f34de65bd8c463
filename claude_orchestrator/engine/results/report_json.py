"""The run as JSON data. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from claude_orchestrator.engine.groups import groups_of
from claude_orchestrator.engine.rate_limits import rate_limit_rows
from claude_orchestrator.engine.results.answers import AnswerOf, no_answers
from claude_orchestrator.engine.run_view import RunView, place_fields, resume_hint, usage_fields
from claude_orchestrator.engine.sharing.cache_report import cache_report
from claude_orchestrator.engine.source_uses import source_fields
from claude_orchestrator.engine.state import InstanceStatus
from token_budget.models import Budget, Scope, Unit
from token_budget.text import decimal_usd

SCHEMA_VERSION = 1


def json_report(view: RunView, ended_at: datetime, code: int, answer_of: AnswerOf = no_answers) -> dict[str, Any]:
    """The run as JSON data, `schema_version` 1. Times are ISO 8601 with the offset; costs are the CLI's own, in USD."""
    usage, exact = view.total_usage()
    manager = view.manager
    cache = cache_report(view.cache, view.instances)
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": view.run_id,
        "rehearsal": view.rehearsal,
        "started_at": view.started_at.isoformat(),
        "ended_at": ended_at.isoformat(),
        "exit_code": code,
        "mode": manager.enforcement_mode,
        "meter": {"kind": view.meter.kind, "reason": view.meter.reason},
        "fence": view.fence,
        "budgets": {
            "overall": _budget(manager.overall) if manager.overall else None,
            "windows": {str(budget.scope): _budget(budget) for budget in manager.windows if budget.unit is Unit.TOKENS},
            "commands": {key: _budget(budget) for key, budget in manager.budgets_of(Scope.COMMAND).items()},
            "groups": {key: _budget(budget) for key, budget in manager.budgets_of(Scope.GROUP).items()},
            "instances": {key: _budget(budget) for key, budget in manager.budgets_of(Scope.INSTANCE).items()},
            "subagents": {key: _budget(budget) for key, budget in manager.subagent_budgets.items()},
            "costs": [_cost_budget(budget) for budget in manager.budgets if budget.unit is Unit.USD],
            # for readers of earlier reports of this schema
            "costs_nano_usd": {budget.label: _budget(budget) for budget in manager.budgets if budget.unit is Unit.USD},
        },
        "instances": [
            {**_instance(status, rehearsal=view.rehearsal), **answer_of(status.name)} for status in view.instances
        ],
        "groups": [group.fields() for group in groups_of(view.instances, view.clock_at_start)],
        "removed_instances": [
            {
                "name": past.name,
                "status": str(past.state),
                "usage": usage_fields(past.usage, exact=past.exact),
                "cost_usd": past.cost_usd,
            }
            for past in view.removed
        ],
        "adjustments": [change.text for change in view.changes.holds],
        "rate_limits": [
            {"name": name, "used_percent": used, "resets_at": resets or None}
            for name, used, resets in rate_limit_rows(view.changes.rate_limits)
        ],
        "prompt_cache": None if cache is None else cache.fields(),
        "totals": {**usage_fields(usage, exact=exact), "cost_usd": view.total_cost_usd()},
    }


def _budget(budget: Budget) -> dict[str, Any]:
    return {
        "limit": budget.limit,
        "used": budget.used,
        "held": budget.held,
        "percentage": round(budget.percentage, 2),
    }


def _cost_budget(budget: Budget) -> dict[str, Any]:
    """A budget in money: each amount in USD as a decimal string, and as whole nano-dollars."""
    figures = {"limit": budget.limit, "used": budget.used, "held": budget.held}
    return {
        "scope": str(budget.scope),
        "key": budget.key or None,
        **{f"{name}_usd": decimal_usd(nano_usd) for name, nano_usd in figures.items()},
        **{f"{name}_nano_usd": nano_usd for name, nano_usd in figures.items()},
        "percentage": round(budget.percentage, 2),
    }


def _instance(status: InstanceStatus, *, rehearsal: bool) -> dict[str, Any]:
    return {
        "name": status.name,
        **place_fields(status.spec),
        "description": status.spec.description,
        "command": status.spec.command,
        "base_command": status.spec.base_command,
        "status": str(status.state),
        "reason": status.reason,
        "session_id": status.session_id,
        "resume": None if rehearsal else resume_hint(status),
        "models": list(status.models),
        "model_when_low": status.chosen_model,
        "usage": usage_fields(status.usage, exact=status.exact),
        "sources": source_fields(status),
        "usage_source": "api" if status.tally.metered else "stream",
        "cost_usd": status.cost_usd,
        "attempts": status.attempts,
        "duration_s": round(status.seconds(0.0), 3) if status.launched else None,
        "turns": status.model_turns,
        "tool_calls": status.tool_calls,
        "tools": dict(status.tools.most_common()),
        "permission_denials": list(status.permission_denials),
        "broken_lines": status.bad_lines,
        "exit_code": status.attempt.exit_code,
        "changes": None if status.changes is None else status.changes.fields,
        "verified": status.verified,
        "check_rounds": status.check_rounds,
        "log": status.log,
    }
