"""The real claude and an API that caches as documented: the entry outlives a wait that is longer than its lifetime."""

from __future__ import annotations

from pathlib import Path

import pytest

from claude_orchestrator.engine.run_inputs import price_with
from claude_orchestrator.engine.sharing.cache_report import cache_report
from claude_orchestrator.engine.sharing.cache_use import CacheUse
from claude_orchestrator.engine.state import State
from claude_orchestrator.gateway.sharing.prefixes import Lifetimes
from tests.harness import run_real
from tests.prompt_cache import CachingApi, PromptCache
from tests.stand_in import Call, Script, Text, Tools
from token_budget.models import Usage
from token_budget.portions import CACHE_KEEPING

pytest.importorskip("genai_prices")
from token_budget.pricing import Prices

pytestmark = [pytest.mark.real_cli, pytest.mark.slow]

LIFETIME_S, BELIEVED_S, WAIT_S = 9.0, 3.0, 11  # what the program believes is shorter: a busy machine is late
SCRIPT: Script = {
    "zzslow": [Tools((Call.bash(f"sleep {WAIT_S}"),)), Text("Done.", output=20)],
    "zzquick": [Text("Done.", output=20)],
}


def test_the_entry_outlives_a_wait(claude: str, tmp_path: Path) -> None:
    """The first instance works for longer than the entry lives, while the second one waits for its place."""
    instances = [
        {"name": name, "prompt": prompt, "model": "claude-opus-4-8", "allowed_tools": ["Bash"]}
        for name, prompt in (("a", "zzslow"), ("b", "zzquick"))
    ]
    price = price_with(Prices(), lambda model: None)
    use = CacheUse(lambda: 0.0, price)
    with CachingApi(SCRIPT) as api:
        api.cache = PromptCache(lifetimes_s={"5m": LIFETIME_S, "1h": LIFETIME_S})
        outcome = run_real(
            {"instances": instances},
            api,
            claude,
            tmp_path,
            meter="api",
            max_parallel=1,
            budget_enforcement_mode="block",
            overall_token_budget=10_000_000,
            keep_cache_warm=True,
            lifetimes=Lifetimes(BELIEVED_S, BELIEVED_S),
            price=price,
            on_event=use.observe,
        )
    first, second = outcome.instances
    assert [status.state for status in outcome.instances] == [State.COMPLETED] * 2
    assert first.usage + second.usage == api.billed() and first.exact and second.exact
    assert (first.nano_usd or 0) + (second.nano_usd or 0) == api.billed_nano()
    assert outcome.manager.overall is not None and outcome.manager.overall.used == api.billed().total_tokens
    assert outcome.manager.overall.held == 0
    calls = [entry for entry in api.entries if api.bodies[entry.index]["max_tokens"] == 1]
    kept = sum((entry.billed for entry in calls), Usage())
    by_source = {portion.source: spent.usage for portion, spent in first.tally.by_portion.items()}
    assert by_source.get(CACHE_KEEPING, Usage()) == kept
    report = cache_report(use, outcome.instances)
    assert report is not None and report.kept.calls == len(calls) and report.kept.usage == kept
    assert any("kept it warm while instances waited" in line for line in report.lines())
    shared = api.asked[0].written[1]  # tools and system prompt
    assert kept == Usage(kept.input_tokens, len(calls), 0, len(calls) * shared.tokens)
    own = [entry for entry in api.entries if entry not in calls]
    assert own[1].at - own[0].at > LIFETIME_S and api.cache.writes[shared.digest] == 1
    assert {entry.billed.cache_read_input_tokens for entry in own[1:]} == {shared.tokens}
