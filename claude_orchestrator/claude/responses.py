"""API responses as the tally keeps them: those that have begun, and those that the API meter counts. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.claude.stream import streamed_tokens
from token_budget.api_usage import MESSAGE, NOTHING_STATED, UsagePart
from token_budget.models import NO_USAGE, Usage
from token_budget.portions import Portion, Spent, Terms

MAX_KEPT_BYTES = 1024 * 1024  # of a response's lines of text, to estimate its output if it is cut off
REMEMBERED_IDS = 4_096


class OpenResponse:
    """An API response that has begun and not been settled."""

    def __init__(self, id: str, usage: Usage, *, streamed: bool, model: str) -> None:
        self.id = id
        self.usage = usage
        self.streamed = streamed
        self.model = model
        self.stated = NOTHING_STATED
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

    @property
    def beside(self) -> Usage:
        """What the response bills and the CLI never counts."""
        return self.stated.beside

    def lost(self) -> ApiUsage:
        """The response as it was cut off, with the least output that was streamed."""
        usage = self.with_estimate()
        own = UsagePart(MESSAGE, "", usage, self.stated.top.written_for_1h_tokens)
        return ApiUsage(self.id, usage, whole=False, model=self.model, parts=(own,), terms=self.stated.terms)

    def compaction(self) -> ApiUsage:
        """What the response bills beside its own counts, as another response."""
        terms = self.stated.terms._replace(server_tools=())
        parts = self.stated.beside_parts
        return ApiUsage(f"{self.id}/compaction", self.beside, whole=True, model=self.model, parts=parts, terms=terms)

    def with_estimate(self) -> Usage:
        """The counts with the least output that was streamed: a token a word, or a piece where that is shorter."""
        return self.usage | Usage(output_tokens=self._pieces + sum(map(streamed_tokens, self._lines)))


class MeterCount:
    """What the API meter counts: each response as it was last reported."""

    def __init__(self) -> None:
        self.responses: dict[str, ApiUsage] = {}
        self.total = NO_USAGE
        self.lower_bound = False
        self._by_portion: dict[Portion, Spent] = {}

    @property
    def by_portion(self) -> dict[Portion, Spent]:
        """`total` divided by model, by who asked, and by the terms of the price."""
        return {portion: spent for portion, spent in self._by_portion.items() if spent}

    @property
    def by_model(self) -> dict[str, Usage]:
        """`total` divided by model."""
        return by_model(self._by_portion)

    def count(self, event: ApiUsage) -> None:
        """Count a response, or what is new of one."""
        before = self.responses.pop(event.id, None) or ApiUsage(event.id, NO_USAGE, whole=False)
        self.responses[event.id] = event
        self.total += event.usage - before.usage
        for portion, spent in portions_of(before):
            self._by_portion[portion] = self._by_portion.get(portion, Spent()) - spent
        for portion, spent in portions_of(event):
            self._by_portion[portion] = self._by_portion.get(portion, Spent()) + spent
        self.lower_bound = self.lower_bound or event.cut or not event.exact
        if len(self.responses) > REMEMBERED_IDS:
            del self.responses[next(iter(self.responses))]


def portions_of(response: ApiUsage) -> Iterator[tuple[Portion, Spent]]:
    """The parts of a response, each with its portion; the uses of server tools are with the first part."""
    terms = Terms.of(response.terms)
    for number, part in enumerate(response.billed()):
        yield Portion(part.model, response.source, terms), Spent.of(part, None if number else response.terms)


def by_model(portions: Mapping[Portion, Spent]) -> dict[str, Usage]:
    """The tokens of portions by their models, without models that used none."""
    found: dict[str, Usage] = {}
    for portion, spent in portions.items():
        found[portion.model] = found.get(portion.model, NO_USAGE) + spent.usage
    return {model: usage for model, usage in found.items() if usage.total_tokens}
