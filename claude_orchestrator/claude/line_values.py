"""Reads single values of the CLI's JSON. What is missing or of another kind becomes empty or zero. Pure."""

from __future__ import annotations

import json
from typing import Any

from claude_orchestrator.claude.events import ModelFacts, ModelUsage
from token_budget.api_usage import ApiUsageObject, read_count, read_usage
from token_budget.models import Usage

MAX_ID_CHARS = 200
MAX_COST_USD = 1e6  # of one process

Json = dict[str, Any]

_decode = json.JSONDecoder(strict=False).decode  # control characters in text are no reason to lose a line


def decode(line: bytes) -> Any:
    """The JSON value in a line. Raises ValueError or RecursionError."""
    return _decode(line.decode("utf-8", "replace"))


def object_in(value: object) -> Json:
    """The object; empty if it is none."""
    return value if isinstance(value, dict) else {}


def text_in(value: object) -> str:
    """Text that can be written down: halves of surrogate pairs are replaced."""
    if not isinstance(value, str) or value.isascii():
        return value if isinstance(value, str) else ""
    return value.encode("utf-8", "replace").decode()


def id_in(value: object) -> str:
    """An id that can be given back to claude as an argument; else empty."""
    text = text_in(value)
    return text if len(text) <= MAX_ID_CHARS and text.isprintable() else ""


def name_in(value: object) -> str:
    """A short text."""
    return text_in(value)[:200]


def parent_of(data: Json) -> str | None:
    """The tool call whose subagent wrote this line; None for the main thread."""
    return text_in(data.get("parent_tool_use_id")) or None


def count_in(value: object) -> tuple[int, bool]:
    """A count, and whether it was malformed (then zero); a missing or null one is zero."""
    count, readable = read_count(value)
    return count, not readable


def response_usage(value: object) -> tuple[Usage, bool, ApiUsageObject]:
    """What one response bills and the CLI counts, whether it is a lower bound, and its whole usage object."""
    found = read_usage(value)
    beside = found.beside
    return found.usage - beside if beside.total_tokens else found.usage, not found.exact, found


_MODEL_USAGE_KEYS = ("inputTokens", "outputTokens", "cacheCreationInputTokens", "cacheReadInputTokens")


def _model_counts(value: object) -> tuple[Usage, bool]:
    """The four counts of one model, and whether any was malformed (then zero)."""
    data = object_in(value)
    counts = [count_in(data.get(key)) for key in _MODEL_USAGE_KEYS]
    return Usage(*(count for count, _ in counts)), any(malformed for _, malformed in counts)


def model_usage(by_model: Json, total_cost_usd: object) -> ModelUsage:
    """What `modelUsage` has counted. The cost is in USD, and None if it is not known."""
    total, cost, costs_known, malformed = Usage(), 0.0, bool(by_model), False
    parts = []
    for name, value in by_model.items():
        usage, bad = _model_counts(value)
        total, malformed = total + usage, malformed or bad
        model_cost = _cost(object_in(value).get("costUSD"))
        costs_known = costs_known and model_cost is not None
        cost += model_cost or 0.0
        parts.append((text_in(name), usage, model_cost))
    # the sum by model is never stale; `total_cost_usd` of a first of two results can be
    known = cost if costs_known else _cost(total_cost_usd)
    facts = tuple(_model_facts(name, value) for name, value in by_model.items())
    return ModelUsage(total, known, tuple(map(text_in, by_model)), malformed, tuple(parts), facts)


def _model_facts(name: str, value: object) -> ModelFacts:
    data = object_in(value)
    return ModelFacts(text_in(name), *(name_in(data.get(key)) for key in ("canonicalModel", "provider", "costBasis")))


def _cost(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MAX_COST_USD:
        return None
    return float(value)
