"""A run's forecasts, from what the ledger has: of each plain prompt by its instance's name."""

from __future__ import annotations

from pathlib import Path

from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.plan import DEFAULT_ESTIMATE_TOKENS, make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.run_inputs import Forecasts
from token_budget.ledger.records import AttemptRecord, RunRecord, UsageRecord
from token_budget.ledger.sqlite import SqliteLedger
from token_budget.models import Usage, Weights


def test_each_plain_prompt_is_held_by_what_instances_of_its_name_used(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.db")
    for number in range(12):
        instance, used = (("summary", 2_000), ("migration", 900_000))[number % 2]
        run = f"r{number}"
        attempt = AttemptRecord(run, instance, 1, number, model="opus", ended_ms=number + 1, outcome="completed")
        record = UsageRecord(run, run, instance, 1, number, "opus", Usage(used))
        ledger.write(runs=[RunRecord(run, "m", number)], attempts=[attempt], records=[record])
    prompts = {"summary": "Summarise", "migration": "Migrate", "new": "Something else"}
    data = {"instances": [{"name": name, "prompt": text, "model": "opus"} for name, text in prompts.items()]}
    plan = make_plan(
        parse_config(data, "test"),
        Settings(),
        workspace="/",
        claude_bin="claude",
        forecast=Forecasts(ledger, Weights()).of,
    )
    ledger.close()
    assert [spec.estimate.tokens for spec in plan.specs] == [2_000, 900_000, DEFAULT_ESTIMATE_TOKENS]
