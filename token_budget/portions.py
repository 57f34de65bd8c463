"""What an attempt has used, divided by model, by who asked for it, and by the terms of its price. Pure."""

from __future__ import annotations

from operator import sub
from typing import TYPE_CHECKING

from token_budget.models import NO_USAGE, Usage
from token_budget.named_tuples import NamedTuple

if TYPE_CHECKING:
    from token_budget.api_usage import PriceTerms, UsagePart  # a dry run reads no responses

MAIN = "main"  # the instance's own conversation
SIDE_CALLS = "side calls"  # that the stream does not show: summaries of web pages, compaction, titles
TOOLS = "tools"  # another claude that a tool has started
CACHE_KEEPING = "cache keeping"  # calls that keep the shared prompt cache for instances that wait
UNKNOWN = ""  # nobody knows who asked
NOT_AGENTS = frozenset({MAIN, SIDE_CALLS, TOOLS, CACHE_KEEPING, UNKNOWN})
WEB_SEARCHES = "web_search_requests"
_USUAL = frozenset({"standard", "default", "global", "not_available", "not_applied"})  # terms at the list price


class Terms(NamedTuple):
    """What makes a price differ from the list price; each is empty where it does not."""

    speed: str = ""
    inference_geo: str = ""
    service_tier: str = ""
    fallback_credit: str = ""

    @classmethod
    def of(cls, terms: PriceTerms) -> Terms:
        """The terms of a response, without those that change nothing."""
        return cls(*("" if term in _USUAL else term for term in (*terms[:3], terms.fallback_credit)))


class Portion(NamedTuple):
    """A part of what an attempt uses. `source` is a subagent's id, or one of the constants of this module."""

    model: str = ""
    source: str = UNKNOWN
    terms: Terms = Terms()


class Spent(NamedTuple):
    """What a portion has used: tokens, cache writes among them that live an hour, and web searches by the API."""

    usage: Usage = NO_USAGE
    written_for_1h_tokens: int = 0
    web_searches: int = 0

    @classmethod
    def of(cls, part: UsagePart, terms: PriceTerms | None = None) -> Spent:
        """A part of a response; with `terms`, the uses of the response's server tools too."""
        searches = dict(terms.server_tools).get(WEB_SEARCHES, 0) if terms is not None else 0
        return cls(part.usage, part.written_for_1h_tokens, searches)

    def __add__(self, other: Spent) -> Spent:  # type: ignore[override]  # it is more than a tuple
        return Spent(self.usage + other.usage, self[1] + other[1], self[2] + other[2])

    def __sub__(self, other: Spent) -> Spent:
        """The difference of each count; it can be negative."""
        return Spent(Usage(*map(sub, self.usage, other.usage)), self[1] - other[1], self[2] - other[2])

    def __bool__(self) -> bool:
        return any(self.usage) or bool(self[1] or self[2])


class Subagent(NamedTuple):
    """A subagent of an instance; `parent` is the id of the subagent that started it, empty for the main thread.

    `type` is empty where nobody has named it. `depth` is 1 for those that the main thread starts.
    """

    id: str
    type: str = ""
    parent: str = ""
    depth: int = 1
