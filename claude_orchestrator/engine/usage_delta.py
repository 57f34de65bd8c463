"""What an attempt has used and cost since the last time that it was charged. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from claude_orchestrator.claude.events import ApiUsage, Price
from claude_orchestrator.claude.responses import by_model, portions_of
from claude_orchestrator.claude.tally import UsageTally
from token_budget.model_weights import TokenWeights, draw
from token_budget.models import Amount, Usage
from token_budget.named_tuples import NamedTuple
from token_budget.portions import Portion, Spent
from token_budget.text import NANO


class PortionDelta(NamedTuple):
    """What was used of one portion since the last delta. A correction can be negative."""

    spent: Spent = Spent()
    nano_usd: int = 0


class UsageDelta(NamedTuple):
    """What an attempt has used since the last delta: the amount that budgets are charged, and its portions.

    `cost_source` names the source of the cost: `claude`, `prices`, or None while the cost is unknown.
    """

    amount: Amount
    portions: Mapping[Portion, PortionDelta]
    cost_source: str | None = None

    @property
    def reads_input(self) -> bool:
        """Whether it counts the input of another response, which has therefore begun."""
        usages = (part.spent.usage for part in self.portions.values())
        return any(usage.total_tokens > usage.output_tokens for usage in usages)


class AttemptCosts:
    """The costs of one attempt: the CLI's own figures, and prices for what the CLI has no figure for."""

    def __init__(self, tally: UsageTally) -> None:
        self._tally = tally
        self._prices_found = 0
        self._lacks_price = False
        self._priced: dict[str, Counter[Portion]] = {}
        self._priced_portions: Counter[Portion] = Counter()
        self._taken_version: tuple[Usage, float | None, int, int, bool] = (Usage(), None, 0, 0, False)
        self._taken = Amount()
        self._taken_spent: dict[Portion, Spent] = {}
        self._taken_costs: dict[Portion, int] = {}
        self._moves = 0

    @property
    def nano_usd(self) -> int | None:
        """The cost so far in nano-dollars; None while it is unknown."""
        if not self._priced and self._tally.cost_usd is None:
            return None
        costs = self._taken_costs if self._version == self._taken_version else self.by_portion
        return sum(costs.values())

    @property
    def _version(self) -> tuple[Usage, float | None, int, int, bool]:
        """It changes with the costs."""
        return self._tally.usage, self._tally.cost_usd, self._prices_found, self._moves, self._lacks_price

    @property
    def by_portion(self) -> dict[Portion, int]:
        """The cost so far in nano-dollars by portion, as far as it can be divided."""
        stated = self._stated()
        if self._tally.metered:
            if self._priced and not self._lacks_price:
                return dict(self._priced_portions)  # the CLI prices a fallback by the model that was asked
            return max(stated, dict(self._priced_portions), key=lambda costs: sum(costs.values()))
        return dict(Counter(stated) + self._priced_portions)

    def _stated(self) -> dict[Portion, int]:
        """The CLI's own costs. It states them by model, so the cost of a model that several sources used is not
        divided."""
        costs = self._tally.cost_by_model
        if not costs:
            return {}
        asked: dict[str, list[Portion]] = {}
        for portion in self._tally.by_portion:
            asked.setdefault(portion.model, []).append(portion)
        return {
            own[0] if len(own := asked.get(model, [])) == 1 else Portion(model): round(cost * NANO)
            for model, cost in costs.items()
        }

    @property
    def by_model(self) -> dict[str, int]:
        """The cost so far in nano-dollars by model, as far as the models are known."""
        found = Counter[str]()
        for portion, nano_usd in self.by_portion.items():
            found[portion.model] += nano_usd
        return dict(found)

    @property
    def source(self) -> str | None:
        """The source of the cost: `claude`, or `prices` if any part was computed here."""
        return "prices" if self._priced else None if self._tally.cost_usd is None else "claude"

    def price(self, price: Price, response: ApiUsage | None) -> None:
        """Price a response that the API meter has seen; with None, price the responses that were cut off."""
        cut_off = [] if self._tally.metered else self._tally.cut_off
        for one in cut_off if response is None else [response]:
            self._add_prices(price, one)

    def settle_sources(self, price: Price | None) -> None:
        """A turn is over: separate side calls from the main thread, and move their costs with them."""
        for response in self._tally.settle_sources():
            self._moves += 1
            if price is not None:
                self._add_prices(price, response)

    def _add_prices(self, price: Price, response: ApiUsage) -> None:
        from token_budget.pricing import costs_of_parts  # only where the CLI states no cost

        costs = costs_of_parts(price, response.billed(), response.model, response.terms)
        priced = Counter[Portion]()
        for (portion, _), nano_usd in zip(portions_of(response), costs, strict=True):
            priced[portion] += nano_usd or 0
        self._lacks_price = self._lacks_price or None in costs
        before = self._priced.get(response.id, Counter())
        # the model that has served it is stated at its end, and can be cheaper than the one that was asked
        is_final = response.whole or priced.total() >= before.total()
        if is_final and any(nano_usd is not None for nano_usd in costs):
            self._prices_found += 1
            self._priced[response.id] = priced
            self._priced_portions.subtract(before)
            self._priced_portions.update(priced)

    def take_delta(self, weights: TokenWeights) -> UsageDelta | None:
        """What the attempt has used and cost since the last call; None if nothing has changed."""
        version = self._version
        if version == self._taken_version:
            return None
        self._taken_version = version
        spent, costs = self._tally.by_portion, {portion: cost for portion, cost in self.by_portion.items() if cost}
        drawn = draw(weights, self._tally.usage, by_model(spent))
        amount = Amount(max(drawn, self._taken.tokens), max(sum(costs.values()), self._taken.nano_usd))
        portions = {
            portion: PortionDelta(
                spent.get(portion, Spent()) - self._taken_spent.get(portion, Spent()),
                costs.get(portion, 0) - self._taken_costs.get(portion, 0),
            )
            for portion in {**spent, **costs, **self._taken_spent, **self._taken_costs}
        }
        delta = UsageDelta(amount - self._taken, portions, self.source)
        self._taken, self._taken_spent, self._taken_costs = amount, spent, costs
        return delta
