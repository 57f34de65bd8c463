"""How much of each limit a request will likely use, learned from the requests before it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from claude_orchestrator.gateway.pacing.limits import Resource
from token_budget.models import Usage

TOKENS_PER_BYTE = 0.3  # of a request's body, until answers have been seen
FIRST_OUTPUT_TOKENS = 500
SLOWLY = 0.3  # a smaller figure than before counts with this weight, a larger one at once

Draw = Mapping[Resource, float]


@dataclass(slots=True)
class Estimate:
    """Tokens by the size of a body, apart for the first request of a conversation and for those that follow.

    Later requests read most of their input from the prompt cache, which does not count.
    """

    per_byte: dict[bool, float] = field(default_factory=dict)
    output_tokens: float | None = None

    def of(self, size_bytes: int, *, first: bool) -> dict[Resource, float]:
        """What a request with a body of this size will draw."""
        output = FIRST_OUTPUT_TOKENS if self.output_tokens is None else self.output_tokens
        return _draw(self.per_byte.get(first, TOKENS_PER_BYTE) * size_bytes, output)

    def learn(self, size_bytes: int, usage: Usage, *, first: bool) -> dict[Resource, float]:
        """What such a request has drawn."""
        counted = usage.input_tokens + usage.cache_creation_input_tokens
        self.per_byte[first] = _moved(self.per_byte.get(first), counted / max(1, size_bytes))
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
