"""Weights by each model's own prices: `--token-weights billing` where price lists are installed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from token_budget.models import Usage, Weights

BILLING = "billing"
FIXED = Weights.parse(BILLING)  # where no price list is installed, and for a model that has no price
MAX_MODELS = 1_000  # names come from responses
_COMMON_SCALE = 1_000_000  # every scale divides it

Ratios = Callable[[str], Weights | None]


class ModelWeights:
    """The weights of `billing`: for each model what a token of each kind costs, as multiples of its input price.

    `ratios` finds those of a model by its name, or None; without it, every model has the fixed ones.
    """

    __slots__ = ("_known", "ratios")

    def __init__(self, ratios: Ratios | None = None) -> None:
        self.ratios = ratios
        self._known: dict[str, Weights] = {}

    def of(self, model: str | None) -> Weights:
        """The weights of one model; the fixed ones for a model without a price."""
        name = model or ""
        if self.ratios is None or not name:
            return FIXED
        found = self._known.get(name)
        if found is None:
            found = self.ratios(name) or FIXED
            if len(self._known) < MAX_MODELS:
                self._known[name] = found
        return found

    def draw(self, usage: Usage, by_model: Mapping[str, Usage]) -> int:
        """The tokens that `usage` draws, rounded up once; what `by_model` leaves of it draws by the fixed weights."""
        parts = [(self.of(model), part) for model, part in by_model.items()]
        parts.append((FIXED, usage - sum(by_model.values(), Usage())))
        units = sum(weights.units(part) * (_COMMON_SCALE // weights.scale) for weights, part in parts)
        return -(-units // _COMMON_SCALE)

    def describe(self) -> str:
        """`billing`; without price lists the fixed ratios, as they are."""
        return FIXED.describe() if self.ratios is None else BILLING


TokenWeights = Weights | ModelWeights


def draw(weights: TokenWeights, usage: Usage, by_model: Mapping[str, Usage]) -> int:
    """The tokens that `usage` draws, which is divided `by_model` as far as models are known."""
    return weights.draw(usage) if isinstance(weights, Weights) else weights.draw(usage, by_model)


def weights_for(weights: TokenWeights, model: str | None) -> Weights:
    """The weights of one model."""
    return weights if isinstance(weights, Weights) else weights.of(model)


def parse_weights(text: str, billing: Callable[[], ModelWeights]) -> TokenWeights:
    """Read what `Weights.parse` reads; `billing` stands for each model's own. Raises ValueError with a reason."""
    return billing() if text.strip() == BILLING else Weights.parse(text)
