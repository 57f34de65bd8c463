"""Settings that let the shared prompt cache expire between starts, and what that costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.plan import Plan, make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.sharing.idle_groups import idle_groups, keeping_lines
from claude_orchestrator.engine.sharing.keeping_worth import SHARED_TOKENS
from token_budget.models import Usage
from token_budget.text import format_usd


def price(model: str, usage: Usage, written_for_1h_tokens: int) -> int | None:
    known = usage.cache_creation_input_tokens * 6_250 + usage.cache_read_input_tokens * 500
    return known if model == "opus" else None


def planned(models: Sequence[str | None], **given: Any) -> tuple[Plan, Settings]:
    entries = [{"command": "/a", **({"model": model} if model else {})} for model in models]
    settings = Settings(**given)
    return make_plan(parse_config({"instances": entries}, "x"), settings, workspace="/", claude_bin="claude"), settings


def warnings(models: Sequence[str | None], *, priced: bool = True, **given: Any) -> list[str]:
    plan, settings = planned(models, **given)
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
        cost = f", which costs {format_usd(again * SHARED_TOKENS * 5_750)} more"
        assert cost in found[0] and found[0].endswith("more") is (option == "--max-launches-per-hour")


def test_keeping_the_cache_warm_is_offered_with_its_price_where_it_pays() -> None:
    (found,) = warnings(["opus"] * 4, startup_delay_s=900.0)
    assert found.endswith(
        f"; --keep-cache-warm would read them 9 more times, for {format_usd(9 * SHARED_TOKENS * 500)}"
    )
    assert warnings(["opus"] * 4, startup_delay_s=900.0, keep_cache_warm=True) == []
    (found,) = warnings(["opus"] * 4, startup_delay_s=3_600.0, keep_cache_warm=True)
    assert found.endswith(", and keeping it warm would cost more than that")
    (found,) = warnings([None] * 2, startup_delay_s=400.0)
    assert found.endswith("instead of reading them; --keep-cache-warm would read them 1 more time")


def test_what_keeping_it_warm_costs() -> None:
    plan, settings = planned(["opus", "opus", "haiku", None, None], startup_delay_s=400.0, keep_cache_warm=True)
    each = format_usd(SHARED_TOKENS * 500)
    assert keeping_lines(plan.specs, settings, price) == [
        "--startup-delay: the prompt cache is kept warm between starts: about 10,000 tokens or more are read 2 more "
        "times",
        "Cache: while instances wait, a call every 4.5 minutes reads 10,000 tokens or more. After 11 calls in a row it "
        "costs less to write them again, and they end.",
        f"Cache of opus: while instances wait, a call every 4.5 minutes reads 10,000 tokens or more, for {each}. After "
        "11 calls in a row it costs less to write them again, and they end.",
    ]


def test_groups_of_one_write_nothing_again_and_unknown_models_have_no_cost() -> None:
    assert warnings(["opus", "haiku"], startup_delay_s=300.0) == []
    for model, priced in ((None, True), ("other", True), ("opus", False)):
        (found,) = warnings([model, model], priced=priced, startup_delay_s=300.0)
        assert "costs" not in found
