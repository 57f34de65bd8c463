"""The real claude against a stand-in that bills as today's API does: iterations, modifiers, lifetimes, fallbacks.

What is counted is the stand-in's own ledger, in tokens and, to the nano-dollar, in money.
"""

from __future__ import annotations

import time
from fractions import Fraction
from math import ceil
from pathlib import Path

import pytest

from claude_orchestrator.engine.run_inputs import price_with
from claude_orchestrator.engine.state import State
from claude_orchestrator.engine.supervisor import Supervisor
from tests.engine.test_accounting import EXACT, total
from tests.harness import Outcome, run_real
from tests.stand_in import Beside, Billing, Entry, StandIn
from token_budget import Usage

pytest.importorskip("genai_prices")
from token_budget.pricing import Prices

pytestmark = [pytest.mark.real_cli, pytest.mark.slow]

# nano-dollars for a token, as https://platform.claude.com/docs/en/about-claude/pricing has them:
# input, output, cache writes for five minutes and an hour, cache reads
PER_TOKEN = {
    "claude-opus-4-8": (5_000, 25_000, 6_250, 10_000, 500),
    "claude-opus-5-5": (4_000, 20_000, 5_000, 8_000, 200),
    "claude-haiku-4-5": (1_000, 5_000, 1_250, 2_000, 100),
    "claude-haiku-5-5": (100, 500, 125, 200, 10),
    "claude-sonnet-5": (2_000, 10_000, 2_500, 4_000, 200),
}
FAST = 2
FEATURES = {
    "iterations": Billing(
        beside=(
            Beside("compaction", Usage(18_000, 350, 0, 1_000)),
            Beside("advisor_message", Usage(700, 90, 0, 100), "claude-sonnet-5"),
        )
    ),
    "fast mode": Billing(speed="fast"),
    "US inference": Billing(inference_geo="us"),
    "1-hour cache": Billing(for_1h=True),
    "fallback model": Billing(served_by="claude-sonnet-5"),
    "batch": Billing(service_tier="batch"),
    "web search": Billing(web_searches=3),
}
MIXED = Billing(
    "fast", "us", "standard", True, 2, (*FEATURES["iterations"].beside, Beside("compaction", Usage(5, 6, 7, 8)))
)


def cost(entry: Entry) -> int:
    """What the stand-in bills for a response, in nano-dollars; each part is rounded up to a whole one."""
    billing = entry.billing or Billing()
    nano = 10_000_000 * billing.web_searches if entry.finished else 0
    for model, usage, written_for_1h in entry.parts:
        plain = next(name for name in PER_TOKEN if model.startswith(name))
        prices = PER_TOKEN[plain]
        short = usage.cache_creation_input_tokens - written_for_1h
        counts = (usage.input_tokens, usage.output_tokens, short, written_for_1h, usage.cache_read_input_tokens)
        price = Fraction(sum(count * one for count, one in zip(counts, prices, strict=True)))
        price *= FAST if billing.speed == "fast" and "opus" in model else 1
        price *= Fraction(1, 2) if billing.service_tier == "batch" else 1
        price *= Fraction(11, 10) if billing.inference_geo == "us" else 1
        nano += ceil(price)
    return nano


def billed_nano(api: StandIn) -> int:
    return sum(cost(entry) for entry in api.entries if entry.status == 200)


def counted_nano(outcome: Outcome) -> int:
    return sum(status.attempt.costs.nano_usd or 0 for status in outcome.instances)


def billed_draw(api: StandIn) -> Fraction:
    """What the stand-in's tokens draw from budgets: each as a multiple of its own model's price for input."""
    drawn = Fraction()
    for model, usage, _ in (part for entry in api.entries if entry.status == 200 for part in entry.parts):
        first, output, written, _, read = PER_TOKEN[next(name for name in PER_TOKEN if model.startswith(name))]
        counts = zip(usage.counts, (first, output, written, read), strict=True)
        drawn += Fraction(sum(count * one for count, one in counts), first)
    return drawn


def check(name: str, billing: Billing, claude: str, tmp_path: Path) -> None:
    """Run a scenario, and compare at each response and at the end."""
    script, setup = EXACT[name]
    live = {"tokens": 0, "nano": 0}
    missed: list[str] = []
    with StandIn(script, billing) as api:

        def watch(supervisor: Supervisor) -> None:
            live["tokens"] = sum(status.total_tokens for status in supervisor.instances)
            live["nano"] = sum(status.attempt.costs.nano_usd or 0 for status in supervisor.instances)

        def at_response(entry: Entry) -> None:
            finished = [one for one in api.entries if one.finished]
            tokens, nano = sum(one.total.total_tokens for one in finished), sum(map(cost, finished))
            deadline = time.monotonic() + 20.0
            while (live["tokens"] < tokens or live["nano"] < nano) and time.monotonic() < deadline:
                time.sleep(0.005)
            if live["tokens"] < tokens or live["nano"] < nano:
                missed.append(f"response {entry.index}: {live}, finished: {tokens}, {nano}")

        api.before_text = at_response
        warnings: list[str] = []
        price = price_with(Prices(), warnings.append)
        options = {"meter": "api", "token_weights": "billing", "time_limit_s": 120.0}
        outcome = run_real(setup, api, claude, tmp_path, price=price, on_change=watch, **options)
        assert [status.state for status in outcome.instances] == [State.COMPLETED] * len(outcome.instances)
        assert (total(outcome), counted_nano(outcome)) == (api.billed(), billed_nano(api))
        # each attempt is rounded up once
        assert 0 <= outcome.manager.total.tokens - billed_draw(api) < len(outcome.instances)
    assert (missed, warnings) == ([], []) and all(status.tally.exact for status in outcome.instances)


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("name", ["main thread", "subagent of another model"])
def test_each_feature(name: str, feature: str, claude: str, tmp_path: Path) -> None:
    check(name, FEATURES[feature], claude, tmp_path)


@pytest.mark.parametrize("name", EXACT)
def test_every_scenario_with_all_of_them(name: str, claude: str, tmp_path: Path) -> None:
    check(name, MIXED, claude, tmp_path)


@pytest.mark.parametrize("feature", FEATURES)
def test_tokens_by_stream(feature: str, claude: str, tmp_path: Path) -> None:
    """In the stream each iteration of the main thread counts, too; money is the CLI's own figure there."""
    script, setup = EXACT["main thread"]
    with StandIn(script, FEATURES[feature]) as api:
        outcome = run_real(setup, api, claude, tmp_path, meter="stream", price=price_with(Prices(), lambda text: None))
        assert total(outcome) == api.billed()
        if feature in ("fast mode", "web search"):  # 2.1.197 knows neither the place nor today's models
            assert counted_nano(outcome) == billed_nano(api)
