"""Instances that start when little of a budget is left get another model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.claude.argv import model_of
from claude_orchestrator.config.instance_kinds import ModelWhenLow
from claude_orchestrator.engine.low_budget import low_budget
from tests.harness import Outcome, run_config
from tests.limits import HUNG_S
from tests.scripted import Script
from token_budget.models import Budget

LOW = ModelWhenLow(20.0, "haiku")


def budget(used: int) -> Budget:
    found = Budget(1_000)
    found.used = used
    return found


def test_the_tightest_budget_decides() -> None:
    plenty, low, lower = budget(100), budget(801), budget(900)
    assert low_budget(LOW, ()) is None and low_budget(LOW, (plenty,)) is None
    assert low_budget(LOW, (budget(800),)) is None, "20 percent are left"
    assert low_budget(LOW, (plenty, low)) is low and low_budget(LOW, (low, lower)) is lower


def go(*instances: dict[str, Any], **options: Any) -> Outcome:
    entries = [{"name": f"i{n}", "command": "/a", **instance} for n, instance in enumerate(instances)]
    options = {"overall_token_budget": 10_000, "model_when_low": "20%=haiku", "max_parallel": 1, **options}
    return run_config({"instances": entries}, Script(tokens=8_500), workspace=Path("/"), time_limit_s=HUNG_S, **options)


def test_the_next_instance_starts_with_the_other_model() -> None:
    outcome = go({"model": "opus"}, {"model": "opus"})
    first, second = outcome.instances
    assert (model_of(first.planned.argv), first.chosen_model) == ("opus", None)
    assert model_of(second.planned.argv) == second.chosen_model == "haiku"
    assert outcome.messages.count("WARNING: i1 starts with haiku: overall budget: used 8,501/10,000 tokens") == 1


@pytest.mark.parametrize("instance", [{"model": "haiku"}, {"session_id": "5f0c1e6e-8f5c-4a3e-9d55-6d3f2f9a1b11"}])
def test_one_that_has_the_model_or_continues_a_session_keeps_its_own(instance: dict[str, Any]) -> None:
    outcome = go({}, instance)
    assert outcome.instances[1].chosen_model is None


def test_without_the_setting_models_stay() -> None:
    assert go({}, {}, model_when_low=None).instances[1].chosen_model is None
