"""What an attempt has used and cost since the last time that it was charged. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from operator import sub
from typing import NamedTuple

from claude_orchestrator.claude.events import ApiUsage, Price
from claude_orchestrator.claude.tally import UsageTally
from token_budget.api_usage import MESSAGE, NO_TERMS, PriceTerms, UsagePart
from token_budget.models import Amount, Usage, Weights
from token_budget.text import NANO


class ModelDelta(NamedTuple):
    """What was used of one model since the last delta. A correction can be negative."""

    usage: Usage
    nano_usd: int


class UsageDelta(NamedTuple):
    """What an attempt has used since the last delta: the amount that budgets are charged, and its parts by model.

    `cost_source` names the source of the cost: `claude`, `prices`, or None while the cost is unknown.
    """

    amount: Amount
    by_model: Mapping[str, ModelDelta]
    cost_source: str | None = None

    @property
    def reads_input(self) -> bool:
        """Whether it counts the input of another response, which has therefore begun."""
        return any(model.usage.total_tokens > model.usage.output_tokens for model in self.by_model.values())


class AttemptCosts:
    """The costs of one attempt: the CLI's own figures, and prices for what the CLI has no figure for."""

    def __init__(self, tally: UsageTally) -> None:
        self._tally = tally
        self._prices_found = 0
        self._priced: dict[str, Counter[str]] = {}
        self._priced_by_model: Counter[str] = Counter()
        self._taken_version: tuple[Usage, float | None, int] = (Usage(), None, 0)
        self._taken = Amount()
        self._taken_usage: dict[str, Usage] = {}
        self._taken_costs: dict[str, int] = {}

    @property
    def nano_usd(self) -> int | None:
        """The cost so far in nano-dollars; None while it is unknown."""
        return sum(self.by_model.values()) if self._priced or self._tally.cost_usd is not None else None

    @property
    def by_model(self) -> dict[str, int]:
        """The cost so far in nano-dollars by model, as far as the models are known."""
        stated = {model: round(cost * NANO) for model, cost in self._tally.cost_by_model.items()}
        if self._tally.metered:
            return max(stated, dict(self._priced_by_model), key=lambda costs: sum(costs.values()))
        return dict(Counter(stated) + self._priced_by_model)

    @property
    def source(self) -> str | None:
        """The source of the cost: `claude`, or `prices` if any part was computed here."""
        return "prices" if self._priced else None if self._tally.cost_usd is None else "claude"

    def price(self, price: Price, response: ApiUsage | None) -> None:
        """Price a response that the API meter has seen; with None, price the responses that were cut off."""
        if response is not None:
            responses = {response.id: response.billed()}
        else:
            cut_off = [] if self._tally.metered else self._tally.cut_off
            responses = {response_id: (UsagePart(MESSAGE, model, usage),) for response_id, model, usage in cut_off}
        terms = NO_TERMS if response is None else response.terms
        for response_id, parts in responses.items():
            self._add_prices(price, response_id, parts, terms)

    def _add_prices(self, price: Price, response_id: str, parts: tuple[UsagePart, ...], terms: PriceTerms) -> None:
        from token_budget.pricing import of_tools, with_terms  # only where the CLI states no cost

        costs = [(part.model, price(part.model, part.usage, part.written_for_1h_tokens)) for part in parts]
        by_model = Counter[str]()
        for model, nano_usd in costs:
            by_model[model] += with_terms(nano_usd or 0, model, terms)
        if parts:
            by_model[parts[0].model] += of_tools(terms)
        before = self._priced.get(response_id, Counter())
        if by_model.total() >= before.total() and any(nano_usd is not None for _, nano_usd in costs):
            self._prices_found += 1
            self._priced[response_id] = by_model
            self._priced_by_model.subtract(before)
            self._priced_by_model.update(by_model)

    def take_delta(self, weights: Weights) -> UsageDelta | None:
        """What the attempt has used and cost since the last call; None if nothing has changed."""
        version = self._tally.usage, self._tally.cost_usd, self._prices_found
        if version == self._taken_version:
            return None
        self._taken_version = version
        usage, costs = self._tally.by_model, self.by_model
        amount = Amount(weights.draw(self._tally.usage), max(sum(costs.values()), self._taken.nano_usd))
        by_model = {
            model: ModelDelta(
                _difference(usage.get(model, Usage()), self._taken_usage.get(model, Usage())),
                costs.get(model, 0) - self._taken_costs.get(model, 0),
            )
            for model in {**usage, **costs, **self._taken_usage, **self._taken_costs}
        }
        delta = UsageDelta(amount - self._taken, by_model, self.source)
        self._taken, self._taken_usage, self._taken_costs = amount, usage, costs
        return delta


def _difference(now: Usage, before: Usage) -> Usage:
    return Usage(*map(sub, now, before))
