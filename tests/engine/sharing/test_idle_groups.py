"""Settings that let the shared prompt cache expire between starts, and what that costs."""

from __future__ import annotations

from typing import Any

import pytest

from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.plan import make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.sharing.idle_groups import SHARED_TOKENS, idle_groups
from token_budget.models import Usage
from token_budget.text import format_usd


def price(model: str, usage: Usage, written_for_1h_tokens: int) -> int | None:
    known = usage.cache_creation_input_tokens * 6_250 + usage.cache_read_input_tokens * 500
    return known if model == "opus" else None


def warnings(models: list[str | None], *, priced: bool = True, **given: Any) -> list[str]:
    entries = [{"command": "/a", **({"model": model} if model else {})} for model in models]
    settings = Settings(**given)
    plan = make_plan(parse_config({"instances": entries}, "x"), settings, workspace="/", claude_bin="claude")
    return idle_groups(plan.specs, settings, price if priced else None)


@pytest.mark.parametrize(
    ("given", "again"),
    [
        ({}, 0),
        ({"startup_delay_s": 299.0}, 0),
        ({"startup_delay_s": 300.0}, 3),
        ({"startup_delay_s": 300.0, "share_cache": "off"}, 0),
        ({"max_launches_per_hour": 4}, 0),
        ({"max_launches_per_hour": 2}, 1),
        ({"max_launches_per_hour": 1}, 3),
    ],
)
def test_those_that_start_with_a_cold_cache_are_counted(given: dict[str, Any], again: int) -> None:
    found = warnings(["opus"] * 4, **given)
    assert len(found) == bool(again)
    if again:
        option = "--startup-delay" if "startup_delay_s" in given else "--max-launches-per-hour"
        assert found[0].startswith(f"{option}: the API drops its prompt cache after 5 minutes")
        assert f"so {again} instance" in found[0] and f"about {SHARED_TOKENS:,} tokens" in found[0]
        assert found[0].endswith(f", which costs {format_usd(again * SHARED_TOKENS * 5_750)} more")


def test_groups_of_one_write_nothing_again_and_unknown_models_have_no_cost() -> None:
    assert warnings(["opus", "haiku"], startup_delay_s=300.0) == []
    for model, priced in ((None, True), ("other", True), ("opus", False)):
        (found,) = warnings([model, model], priced=priced, startup_delay_s=300.0)
        assert "costs" not in found
