"""How much of each limit a request will likely use, learned from the requests before it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from claude_orchestrator.gateway.pacing.limits import Resource
from token_budget.models import Usage
from token_budget.named_tuples import NamedTuple

TOKENS_PER_BYTE = 0.3  # of a request's body, until answers have been seen
FIRST_OUTPUT_TOKENS = 500
SLOWLY = 0.3  # a smaller figure than before counts with this weight, a larger one at once

Draw = Mapping[Resource, float]


class Size(NamedTuple):
    """The bytes of a request's body. Of a conversation's later requests, `new` are those that its last one had not."""

    all: int
    new: int | None = None


@dataclass(slots=True)
class Estimate:
    """Tokens by the size of a body, apart for the first request of a conversation and for those that follow.

    Later requests read from the prompt cache what an earlier one had, and that does not count. What they draw beside
    their new text is about the same each time.
    """

    per_byte: float | None = None
    beside: float | None = None
    output_tokens: float | None = None

    def of(self, size: Size) -> dict[Resource, float]:
        """What a request with a body of this size will draw."""
        output = FIRST_OUTPUT_TOKENS if self.output_tokens is None else self.output_tokens
        if size.new is None:
            return _draw((TOKENS_PER_BYTE if self.per_byte is None else self.per_byte) * size.all, output)
        return _draw(max(0.0, TOKENS_PER_BYTE * size.new + (self.beside or 0.0)), output)

    def learn(self, size: Size, usage: Usage) -> dict[Resource, float]:
        """What such a request has drawn."""
        counted = usage.input_tokens + usage.cache_creation_input_tokens
        if size.new is not None:
            self.beside = _moved(self.beside, counted - TOKENS_PER_BYTE * size.new)
        else:
            self.per_byte = _moved(self.per_byte, counted / max(1, size.all))
        self.output_tokens = _moved(self.output_tokens, usage.output_tokens)
        return _draw(counted, usage.output_tokens)


def _draw(counted: float, output: float) -> dict[Resource, float]:
    return {
        Resource.REQUESTS: 1,
        Resource.INPUT: counted,
        Resource.OUTPUT: output,
        Resource.TOKENS: counted + output,
    }


def _moved(before: float | None, seen: float) -> float:
    return seen if before is None or seen > before else before + SLOWLY * (seen - before)
