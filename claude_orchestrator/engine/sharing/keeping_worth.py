"""What it costs to keep a prefix in the prompt cache, and for how long that is worth it. Pure.

Every call reads the prefix. Once all calls together cost more than writing it again, they no longer pay.
"""

from __future__ import annotations

import math

from claude_orchestrator.claude.events import Price
from claude_orchestrator.claude.prompt_cache import LIFETIME_S
from token_budget.models import Usage
from token_budget.named_tuples import NamedTuple

SHARED_TOKENS = 10_000  # tools and system prompt, without a word of the user, at least: by 2.1.197 and 2.1.332
MARGIN = 10  # a call is made when a tenth of the lifetime is left
# of the price of input, in hundredths, where no price is known: https://docs.claude.com/en/docs/about-claude/pricing
INPUT, OUTPUT, READ, WRITE_5M, WRITE_1H = 100, 500, 10, 125, 200


class Worth(NamedTuple):
    """The costs of a prefix with so many tokens, in nano-dollars; in hundredths of input where no price is known."""

    tokens: int
    model: str
    price: Price | None = None
    lifetime_s: float = LIFETIME_S
    for_an_hour: bool = False

    def cost(self, usage: Usage) -> int:
        """What a call with this usage costs."""
        nano_usd = self.nano_usd(usage)
        if nano_usd is not None:
            return nano_usd
        write = WRITE_1H if self.for_an_hour else WRITE_5M
        parts = zip(usage, (INPUT, OUTPUT, write, READ), strict=True)
        return sum(count * each for count, each in parts)

    def nano_usd(self, usage: Usage) -> int | None:
        """The same in nano-dollars; None where the model has no price."""
        if self.price is None or not self.model:
            return None
        return self.price(self.model, usage, usage.cache_creation_input_tokens if self.for_an_hour else 0)

    @property
    def _read(self) -> Usage:
        return Usage(cache_read_input_tokens=self.tokens)

    @property
    def reading(self) -> int:
        """What one call costs, but for a few tokens."""
        return self.cost(self._read)

    @property
    def nano_usd_of_reading(self) -> int | None:
        """The same in nano-dollars; None where the model has no price."""
        return self.nano_usd(self._read)

    @property
    def saved(self) -> int:
        """What it costs less to read the prefix than to write it again."""
        return self.cost(Usage(cache_creation_input_tokens=self.tokens)) - self.reading

    @property
    def most_calls(self) -> int:
        """How many calls cost no more than they save."""
        return self.saved // self.reading if self.reading > 0 else 0

    @property
    def margin_s(self) -> float:
        """How long before the end of its lifetime the prefix is read again."""
        return self.lifetime_s / MARGIN

    def calls_for(self, wait_s: float, left_s: float) -> int:
        """How many calls keep a prefix for so long that lives for `left_s` without them."""
        return max(0, math.ceil((wait_s - left_s) / (self.lifetime_s - self.margin_s)))
