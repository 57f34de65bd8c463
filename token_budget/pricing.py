"""What one response costs by the public price lists, in integer nano-dollars.

Prices are estimates: subscriptions do not pay by the token, and discounts are not in them. `with_terms` adds fast mode,
batches and inference in the US, `of_tools` web searches:
https://docs.claude.com/en/docs/about-claude/pricing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from token_budget.api_usage import PriceTerms, UsagePart
from token_budget.model_weights import ModelWeights
from token_budget.models import PRICE_LISTS, Usage, Weights

if TYPE_CHECKING:
    from decimal import Decimal

EXTRA = "the extra cost (pip install 'claude-orchestrator[cost]')"
UNBILLED_MODELS = frozenset({"<synthetic>", "rehearsal"})  # texts that the CLI makes, and simulated answers

# times the list price in fast mode, by model; any other has the dearest
FAST = {"claude-opus-4-8": 2, "claude-opus-5": 2, "claude-opus-5-5": 2}
FAST_MAX = 6
BATCH_DIVISOR = 2
US_TENTHS = 11  # inference in the US only: tenths of the list price
TOOL_NANO_USD = {"web_search_requests": 10_000_000}  # one use

MILLION = 1_000_000
SHORT_TOKENS = 10_000  # within the first tier of every price, and a whole number of nano-dollars
_BRACKETS = r"\[[^\]]*\]$"  # `[1m]` asks for a longer context; the price follows from the tokens
_BEDROCK = r"(?i:(?:[a-z-]+\.)?anthropic\.claude-)"  # us.anthropic.claude-sonnet-4-5-…-v1:0


def available() -> bool:
    """Whether the library with the price lists is installed; does not load it."""
    return find_spec(PRICE_LISTS) is not None


def require() -> None:
    """Raises ValueError with a line that names the extra if the price lists are not installed."""
    if not available():
        raise ValueError(f"prices of models need {EXTRA}")


class Prices:
    """The price lists in the genai-prices package, loaded with the first price; never updated over the network.

    `unknown` collects the names of models that have no price. Raises ValueError if the extra is not installed.
    """

    def __init__(self) -> None:
        require()
        self.unknown: set[str] = set()

    def load(self) -> None:
        """Load the lists now. That takes a fifth of a second, which would hold up a run in progress."""
        import genai_prices  # noqa: F401

    def response(
        self, model: str, usage: Usage, *, written_for_1h_tokens: int = 0, at_ms: int | None = None
    ) -> int | None:
        """The price of ONE response in nano-dollars, rounded up; None for a model that has no price.

        `model` is Claude Code's name for it. A name from Bedrock has Bedrock's price, any other Anthropic's.
        `written_for_1h_tokens` of the cache writes live an hour, the others five minutes.
        `at_ms` is when the response was made, in Unix milliseconds, for prices that have changed; None: now.
        """
        if model in UNBILLED_MODELS:
            return 0
        usd = _price(*_reference(model), usage, written_for_1h_tokens, at_ms)
        if usd is None:
            if model.strip():  # some responses name none
                self.unknown.add(model)
            return None
        from token_budget.usd import nano_usd_at_least  # with decimals, which a run that prices nothing does not need

        return nano_usd_at_least(usd)


@cache
def billing_weights() -> ModelWeights:
    """The weights by each model's own prices; fixed ones if the extra is not installed. Loads no list yet."""
    return ModelWeights(_ratios if available() else None)


def _ratios(model: str) -> Weights | None:
    """What a token of each kind costs as a multiple of the input price, for cache writes that live five minutes.

    For short contexts. In millionths, rounded up; None for a model without a price.
    """
    prices = Prices()
    kinds = (Usage(SHORT_TOKENS), Usage(0, SHORT_TOKENS), Usage(0, 0, SHORT_TOKENS), Usage(0, 0, 0, SHORT_TOKENS))
    costs = [prices.response(model, kind) for kind in kinds]
    first = costs[0]
    if not first:
        return None
    _, output, written, read = (-(-(cost or 0) * MILLION // first) for cost in costs)
    return Weights(MILLION, output, written, read, MILLION)


def with_terms(nano_usd: int, model: str, terms: PriceTerms) -> int:
    """What one part of a response costs under these terms, from its list price, without server tools; rounded up.

    Priority service is paid for in advance, so its tokens count at the list price. A redeemed fallback credit lowers
    the bill by what only the API knows, so the list price is the most that it can be.
    """
    if terms.speed == "fast":
        nano_usd *= FAST.get(_reference(model)[1], FAST_MAX)
    if terms.service_tier == "batch":
        nano_usd = -(-nano_usd // BATCH_DIVISOR)
    return -(-nano_usd * US_TENTHS // 10) if terms.inference_geo == "us" else nano_usd


def costs_of_parts(
    price: Callable[[str, Usage, int], int | None], parts: Sequence[UsagePart], model: str, terms: PriceTerms
) -> list[int | None]:
    """What each part of one response of `model` costs, in nano-dollars; None where its model has no price.

    Each part is a request of its own, so its size alone decides on a tier for long contexts. The first part also has
    what the API's own tools cost.
    """
    costs = []
    for part in parts:
        own = part.model or model
        nano_usd = price(own, part.usage, part.written_for_1h_tokens)
        # an advisor of another model does not answer in fast mode, if that model has none
        slow = terms._replace(speed="") if own != model and _reference(own)[1] not in FAST else terms
        costs.append(None if nano_usd is None else with_terms(nano_usd, own, slow))
    tools = of_tools(terms)
    if costs and tools:
        costs[0] = (costs[0] or 0) + tools
    return costs


def of_tools(terms: PriceTerms) -> int:
    """What the uses of tools that the API ran itself cost, in nano-dollars."""
    return sum(TOOL_NANO_USD.get(name, 0) * uses for name, uses in terms.server_tools)


def _reference(model: str) -> tuple[str, str]:
    """A provider and a model as the price lists know them."""
    name = re.sub(_BRACKETS, "", model.strip())
    name = name.rpartition("/")[2]  # `anthropic/…`, `bedrock/…`, or the ARN of an inference profile
    return ("aws" if re.match(_BEDROCK, name) else "anthropic"), name


def _price(provider: str, model: str, usage: Usage, written_for_1h_tokens: int, at_ms: int | None) -> Decimal | None:
    import genai_prices

    written = usage.cache_creation_input_tokens
    theirs = genai_prices.Usage(
        # genai-prices counts cached tokens as input too, and selects price tiers by this sum
        input_tokens=usage.input_tokens + written + usage.cache_read_input_tokens,
        output_tokens=usage.output_tokens,
        cache_write_tokens=written,
        cache_write_1h_tokens=min(written_for_1h_tokens, written),
        cache_read_tokens=usage.cache_read_input_tokens,
    )
    at = None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC)
    try:
        return genai_prices.calc_price(
            theirs, model_ref=model, provider_id=provider, genai_request_timestamp=at
        ).total_price
    except LookupError:
        return None
