"""Limits that are below what one request of Claude needs are reported before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.plan import make_manager, make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.least_request import SMALL, too_small
from token_budget.ledger.records import AttemptRecord, RunRecord, UsageRecord
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.ledger.store import LedgerStore
from token_budget.models import Usage

UNIT = {"name": "unit", "command": "/test --unit"}


def warnings(ledger: LedgerStore | None, *entries: dict[str, Any], mode: str = "block", **limits: Any) -> list[str]:
    settings = Settings(budget_enforcement_mode=mode, **limits)
    config = parse_config({"instances": list(entries)}, "x")
    plan = make_plan(config, settings, workspace="/", claude_bin="claude")
    return list(too_small(plan.specs, make_manager(plan, settings), ledger, settings.token_weights))


def write(ledger: SqliteLedger, run: str, *tokens: int) -> None:
    """An attempt at /test whose records have these tokens."""
    attempt = AttemptRecord(run, "unit", 1, 1, base_command="/test", ended_ms=9, outcome="completed")
    records = [
        UsageRecord(f"{run}/{place}", run, "unit", 1, place, "opus", Usage(cache_read_input_tokens=count))
        for place, count in enumerate(tokens)
    ]
    ledger.write(runs=[RunRecord(run, "m", 1)], attempts=[attempt], records=records)


def test_without_a_measurement_the_known_size_is_named() -> None:
    (warning,) = warnings(None, UNIT, command_budgets=(("/test", 10_000),))
    assert warning == (
        "the /test command budget of 10,000 tokens is too small: Claude's first request alone draws about 12,000 "
        "tokens, so block mode stops the instance"
    )
    assert not warnings(None, UNIT, command_budgets=(("/test", 10_000),), mode="warn")
    assert not warnings(None, UNIT, command_budgets=(("/test", 15_000),))


def test_what_was_last_measured_counts(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.db")
    write(ledger, "r1", 20_562, 50_000)
    write(ledger, "r2", 25_000, 100)
    (warning,) = warnings(ledger, UNIT, command_budgets=(("/test", 20_000),))
    assert "the first request of /test last drew 20,562 tokens" in warning
    assert not warnings(ledger, UNIT, command_budgets=(("/test", 21_000),))
    write(ledger, "r3", 5_000)  # another model, or fewer tools
    assert not warnings(ledger, UNIT, command_budgets=(("/test", 10_000),))
    ledger.close()


def test_a_group_is_warned_of_once_and_large_limits_are_not_looked_at() -> None:
    members = [{"name": f"fix[{place}]", "prompt": "Fix it.", "max_tokens_per_command": 9_000} for place in range(3)]
    assert len(warnings(None, *members)) == 1
    assert not warnings(None, UNIT, overall_token_budget=SMALL)
