"""API responses as the tally keeps them: those that have begun, and those that the API meter counts. Pure."""

from __future__ import annotations

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.claude.stream import streamed_tokens
from token_budget.models import NO_USAGE, Usage

MAX_KEPT_BYTES = 1024 * 1024  # of a response's lines of text, to estimate its output if it is cut off
REMEMBERED_IDS = 4_096


class OpenResponse:
    """An API response that has begun and not been settled."""

    def __init__(self, id: str, usage: Usage, *, streamed: bool, model: str) -> None:
        self.id = id
        self.usage = usage
        self.streamed = streamed
        self.model = model
        self.beside = NO_USAGE
        self.cut = self.in_reading = self.has_delta = False
        self._lines: list[bytes] = []
        self._lines_bytes = self._pieces = 0

    def keep(self, lines: bytes) -> None:
        """Keep lines of streamed text for an estimate; beyond MAX_KEPT_BYTES only their number."""
        self._lines_bytes += len(lines)
        if self._lines_bytes <= MAX_KEPT_BYTES:
            self._lines.append(lines)
        else:
            self._pieces += lines.count(b"\n")

    def with_estimate(self) -> Usage:
        """The counts with the least output that was streamed: a token a word, or a piece where that is shorter."""
        return self.usage | Usage(output_tokens=self._pieces + sum(map(streamed_tokens, self._lines)))


class MeterCount:
    """What the API meter counts: each response as it was last reported."""

    def __init__(self) -> None:
        self.responses: dict[str, ApiUsage] = {}
        self.total = NO_USAGE
        self.lower_bound = False
        self._by_model: dict[str, Usage] = {}

    @property
    def by_model(self) -> dict[str, Usage]:
        """`total` divided by model."""
        return {model: usage for model, usage in self._by_model.items() if usage.total_tokens}

    def count(self, event: ApiUsage) -> None:
        """Count a response, or what is new of one."""
        before = self.responses.pop(event.id, None) or ApiUsage(event.id, NO_USAGE, whole=False)
        self.responses[event.id] = event
        self.total += event.usage - before.usage
        for part in before.billed():
            self._by_model[part.model] -= part.usage
        for part in event.billed():
            self._by_model[part.model] = self._by_model.get(part.model, NO_USAGE) + part.usage
        self.lower_bound = self.lower_bound or event.cut or not event.exact
        if len(self.responses) > REMEMBERED_IDS:
            del self.responses[next(iter(self.responses))]
