"""Money: amounts, and prices of responses against the published list."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.limits import HUNG_S
from token_budget.api_usage import PriceTerms
from token_budget.models import Usage
from token_budget.pricing import Prices, available, of_tools, require, with_terms
from token_budget.text import NANO, format_usd
from token_budget.usd import parse_usd, usd_to_nano

AT_MS = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp() * 1000)
SONNET = "claude-sonnet-4-5-20250929"
MTOK = 1_000_000


@pytest.mark.parametrize(
    ("value", "nano"),
    [
        (0.1, NANO // 10),
        (0.1 + 0.2, 300_000_000),
        ("1.000000001", NANO + 1),
        (Decimal("0.0000000005"), 0),
        (Decimal("0.0000000015"), 2),
        ("0.00000000050000000000000000000000000000000000001", 1),
        (5e-324, 0),
        (-0.25, -NANO // 4),
        (10**12, NANO * 10**12),
    ],
)
def test_dollars_are_rounded_once_and_half_to_even(value: float | str | Decimal, nano: int) -> None:
    with localcontext() as context:
        context.prec = 3
        assert usd_to_nano(value) == nano


@pytest.mark.parametrize("value", ["five", "", float("nan"), float("inf"), "1e999999", "-Infinity"])
def test_what_is_no_amount(value: float | str) -> None:
    with pytest.raises(ValueError, match="expected an amount of US dollars, got '"):
        usd_to_nano(value)


@pytest.mark.parametrize(
    ("said", "nano"),
    [
        ("5", 5 * NANO),
        ("0.25", NANO // 4),
        (" $1.50 ", 3 * NANO // 2),
        ("$.5", NANO // 2),
        ("0.000000001", 1),
        ("1e-05", 10_000),
        ("1000000", 10**6 * NANO),
    ],
)
def test_an_amount_is_read_exactly(said: str, nano: int) -> None:
    assert parse_usd(said) == nano


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("0", "above 0"),
        ("0.0", "above 0"),
        ("1000000.01", "at most 1,000,000"),
        ("1e999", "at most 1,000,000"),
        ("0.0000000001", "nine decimals"),
        ("1.1234567891", "nine decimals"),
        *(
            (said, "such as 5")
            for said in ("", "$", "-1", "1,5", "1_0", "٣", "nan", "inf", "5 USD", "$$5", ".", "1e9999")
        ),
    ],
)
def test_an_amount_that_cannot_be(said: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        parse_usd(said)
    assert repr(said) in str(error.value)


@pytest.mark.parametrize("left", ["", "0", "00", ".50", ",500"])
def test_what_a_shell_leaves_of_an_amount_without_quotes_is_no_amount(left: str) -> None:
    """Of `$2`, `$20`, `$100`, `$2.50` and `$1,500`: a limit of $0.50 where $2.50 was meant would be worse than none."""
    with pytest.raises(ValueError, match=r"in single quotes, as in '\$2\.50'"):
        parse_usd(left)


@given(st.integers(1, 10**6 * NANO))
def test_any_amount_comes_back(nano: int) -> None:
    assert parse_usd(f"{nano // NANO}.{nano % NANO:09}") == nano
    assert usd_to_nano(Decimal(nano) / NANO) == nano


def test_amounts_are_shown_in_short() -> None:
    amounts = (0, 4_200_000, NANO // 10, 1_234_000_000, 1_234_500_000_000)
    assert [format_usd(nano) for nano in amounts] == ["$0.00", "$0.0042", "$0.10", "$1.23", "$1,234.50"]


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    assert not available()
    for needs_it in (require, Prices):
        with pytest.raises(ValueError, match=r"the extra cost \(pip install 'claude-orchestrator\[cost\]'\)"):
            needs_it()


@pytest.fixture(scope="module")
def prices() -> Prices:
    pytest.importorskip("genai_prices")
    return Prices()


def cost(prices: Prices, usage: Usage, model: str = SONNET, written_for_1h_tokens: int = 0) -> int | None:
    return prices.response(model, usage, written_for_1h_tokens=written_for_1h_tokens, at_ms=AT_MS)


# Claude Sonnet 4.5 in USD for a million tokens, as the list has it that genai-prices takes from
# https://platform.claude.com/docs/en/about-claude/pricing
@pytest.mark.parametrize(
    ("usage", "for_1h", "usd_for_mtok"),
    [
        (Usage(input_tokens=100_000), 0, "3"),
        (Usage(output_tokens=100_000), 0, "15"),
        (Usage(cache_creation_input_tokens=100_000), 0, "3.75"),
        (Usage(cache_creation_input_tokens=100_000), 100_000, "6"),
        (Usage(cache_read_input_tokens=100_000), 0, "0.3"),
        (Usage(input_tokens=300_000), 0, "6"),
        (Usage(cache_creation_input_tokens=300_000), 0, "7.5"),
        (Usage(cache_creation_input_tokens=300_000), 300_000, "12"),
        (Usage(cache_read_input_tokens=300_000), 0, "0.6"),
    ],
)
def test_each_kind_of_token_at_its_list_price(prices: Prices, usage: Usage, for_1h: int, usd_for_mtok: str) -> None:
    expected = usd_to_nano(usd_for_mtok) * usage.total_tokens // MTOK
    assert cost(prices, usage, written_for_1h_tokens=for_1h) == expected


def test_a_response_with_all_kinds(prices: Prices) -> None:
    usage = Usage(1_000, 500, 20_000, 50_000)
    # 1,000 at 3, 500 at 15, 15,000 at 3.75, 5,000 at 6 and 50,000 at 0.3 USD a million
    expected = 3_000_000 + 7_500_000 + 56_250_000 + 30_000_000 + 15_000_000
    assert cost(prices, usage, written_for_1h_tokens=5_000) == expected
    everything_for_1h = cost(prices, usage, written_for_1h_tokens=20_000)
    assert cost(prices, usage, written_for_1h_tokens=20_001) == everything_for_1h
    assert cost(prices, Usage()) == 0


def test_the_long_context_tier_is_of_one_response(prices: Prices) -> None:
    long, half = Usage(300_000, 1_000), Usage(150_000, 500)
    assert cost(prices, long) == usd_to_nano("1.8225")  # 300,000 at 6 and 1,000 at 22.50
    assert cost(prices, half) == usd_to_nano("0.4575")  # 150,000 at 3 and 500 at 15
    # what is read from the cache counts towards the tier, what is written too
    assert cost(prices, Usage(1, 0, 100_000, 100_000)) == 6_000 + 100_000 * (7_500 + 600)
    assert cost(prices, Usage(0, 0, 100_000, 100_000)) == 100_000 * (3_750 + 300)


def test_a_price_is_that_of_its_day(prices: Prices) -> None:
    before_ms = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1000)
    usage = Usage(input_tokens=300_000)
    at = [prices.response("claude-sonnet-4-6", usage, at_ms=at_ms) for at_ms in (before_ms, AT_MS)]
    assert at == [usd_to_nano("1.8"), usd_to_nano("0.9")]  # the long-context tier ended on 2026-03-13


def test_a_fraction_of_a_nano_dollar_is_a_whole_one(prices: Prices, monkeypatch: pytest.MonkeyPatch) -> None:
    # no list has such a price today
    calculation = SimpleNamespace(total_price=Decimal("0.0000000011"))
    monkeypatch.setattr("genai_prices.calc_price", lambda *_, **__: calculation)
    assert cost(prices, Usage(1)) == 2


@pytest.mark.parametrize(
    ("model", "usd_for_mtok"),
    [
        ("claude-sonnet-4-5", "3"),
        ("claude-sonnet-4-5[1m]", "3"),
        ("claude-opus-4-1[1m]", "15"),
        ("claude-opus-4-20250514", "15"),
        ("Claude-Haiku-4-5-20251001", "1"),
        ("claude-sonnet-4-5@20250929", "3"),
        ("anthropic/claude-sonnet-4.5", "3"),
        ("openrouter/anthropic/claude-opus-4.1", "15"),
        # Bedrock: a region's price is a tenth above the global one since Claude 4.5
        ("global.anthropic.claude-sonnet-4-5-20250929-v1:0", "3"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "3.3"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0[1m]", "3.3"),
        ("eu.anthropic.claude-opus-4-1-20250805-v1:0", "15"),
        ("us-gov.anthropic.claude-3-haiku-20240307-v1:0", "0.25"),
        ("anthropic.claude-3-haiku-20240307-v1:0", "0.25"),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-opus-4-1-20250805-v1:0", "15"),
        ("<synthetic>", "0"),
        ("rehearsal", "0"),
    ],
)
def test_names_of_models(prices: Prices, model: str, usd_for_mtok: str) -> None:
    assert cost(prices, Usage(input_tokens=1_000), model) == usd_to_nano(usd_for_mtok) // 1_000
    assert model not in prices.unknown


def test_an_unknown_model_is_named_and_has_no_price() -> None:
    pytest.importorskip("genai_prices")
    prices = Prices()
    for model in ("claude-nonsense-99", "", "gpt-4o", "<other>", "claude-nonsense-99"):
        assert cost(prices, Usage(1), model) is None
    assert cost(prices, Usage(1)) == 3_000
    assert prices.unknown == {"claude-nonsense-99", "gpt-4o", "<other>"}  # a name that is empty names nothing


def test_the_price_lists_are_loaded_when_asked_for() -> None:
    pytest.importorskip("genai_prices")
    code = (
        "import sys; from token_budget.pricing import Prices; from token_budget.models import Usage; p = Prices();"
        f"print('genai_prices' in sys.modules, p.response({SONNET!r}, Usage(1)), 'genai_prices' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=HUNG_S)
    assert done.stdout.split() == ["False", "3000", "True"]


def test_fast_mode_the_place_and_searches_have_their_price() -> None:
    assert with_terms(100, "claude-opus-4-8", PriceTerms()) == 100
    assert with_terms(100, "claude-opus-4-8[1m]", PriceTerms(speed="fast")) == 200
    assert with_terms(100, "claude-opus-4-6", PriceTerms(speed="fast")) == 600
    assert with_terms(101, "claude-opus-4-6", PriceTerms(inference_geo="us")) == 112
    assert with_terms(100, "m", PriceTerms(speed="standard", inference_geo="global")) == 100
    assert of_tools(PriceTerms(server_tools=(("web_fetch_requests", 3), ("web_search_requests", 5)))) == 50_000_000
