"""The responses in Claude Code's transcripts: which lines are of the same one, and where it was made. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from token_budget.api_usage import FALLBACK, MESSAGE, ApiUsageObject
from token_budget.ledger.records import IMPORTED, AttemptRecord, RunRecord, UsageRecord
from token_budget.models import Usage
from token_budget.portions import MAIN, Spent, Terms
from token_budget.pricing import costs_of_parts

RUN_PREFIX = "claude:"


class Price(Protocol):
    """What a response cost in nano-dollars at a moment; None where the model has no price."""

    def __call__(
        self, model: str, usage: Usage, *, written_for_1h_tokens: int = 0, at_ms: int | None = None
    ) -> int | None: ...


@dataclass(slots=True, eq=False)
class Source:
    """A transcript file: `name` without its ending, and the session that it belongs to unless its lines name another.

    `first_ms` is the time of its first line, whatever the order of the others.
    """

    name: str
    session: str
    is_agent: bool
    first_ms: int | None = None
    last_ms: int = 0

    def saw(self, at_ms: int) -> None:
        """Note a line's time."""
        self.first_ms = at_ms if self.first_ms is None else self.first_ms
        self.last_ms = max(self.last_ms, at_ms)


@dataclass(slots=True, eq=False)
class AttemptPart:
    """A part of a transcript that is one attempt."""

    source: Source
    session: str
    instance: str
    number: int
    command: str | None
    started_ms: int
    ended_ms: int
    model: str

    @property
    def key(self) -> tuple[str, str, int]:
        """The run, instance and number that the ledger knows it by."""
        return RUN_PREFIX + self.session, self.instance, self.number

    @property
    def age(self) -> tuple[bool, int, int, str]:
        """The order among parts that hold the same response: the session's own file, then the session that is older.

        A fork begins later than the session that it copies.
        """
        is_copy = not self.source.is_agent and self.session != self.source.name
        return is_copy, self.source.first_ms or 0, self.source.last_ms, self.session


@dataclass(slots=True, eq=False)
class _Response:
    """A response, merged from all its lines; `is_known` where a run of the orchestrator has counted it."""

    request: str
    model: str
    at_ms: int
    usage: ApiUsageObject
    parts: list[AttemptPart] = field(default_factory=list)
    is_known: bool = False

    def matches(self, request: str, usage: ApiUsageObject) -> bool:
        """Whether a line with the same id can be of this response.

        Some gateways give all responses one id. Then the request's id tells them apart; where there is none, so do
        input counts, which are the same on all lines of a response that state them.
        """
        if request and self.request:
            return request == self.request
        mine, other = self.usage.top.usage, usage.top.usage
        pairs = (
            (mine.input_tokens, other.input_tokens),
            (mine.cache_creation_input_tokens, other.cache_creation_input_tokens),
            (mine.cache_read_input_tokens, other.cache_read_input_tokens),
        )
        return all(one == another or not one or not another for one, another in pairs)

    def take(self, request: str, usage: ApiUsageObject, at_ms: int, part: AttemptPart | None) -> None:
        """Take what one line says."""
        self.request = self.request or request
        self.usage |= usage
        self.at_ms = min(self.at_ms, at_ms)
        if part is None:
            self.is_known = True
        elif part not in self.parts:
            self.parts.append(part)


class Responses:
    """All responses that were read, each with all its lines."""

    def __init__(self) -> None:
        self._by_name: dict[str, list[_Response]] = {}

    @property
    def known(self) -> int:
        """How many responses runs of the orchestrator have counted."""
        return sum(response.is_known for same in self._by_name.values() for response in same)

    def add(
        self, names: Sequence[str], usage: ApiUsageObject, at_ms: int, model: str, part: AttemptPart | None
    ) -> None:
        """Take a line. `names` are the response's id, its request's id and the line's own; at least one is not empty.

        Without a `part` the response is known: a run of the orchestrator has counted it.
        """
        name, request, uuid = names
        same = self._by_name.setdefault(name or (f"request:{request}" if request else f"line:{uuid}"), [])
        response = next((one for one in same if one.matches(request, usage)), None)
        if response is None:
            response = _Response(request, model, at_ms, usage)
            same.append(response)
        response.take(request, usage, at_ms, part)
        if part is not None:
            part.ended_ms = max(part.ended_ms, at_ms)

    def result(
        self, machine: str, price: Price | None
    ) -> tuple[tuple[RunRecord, ...], tuple[AttemptRecord, ...], tuple[UsageRecord, ...]]:
        """Everything that was read, each response at the session that had it first."""
        runs: dict[str, RunRecord] = {}
        attempts: dict[tuple[str, str, int], AttemptRecord] = {}
        records: list[UsageRecord] = []
        for name, response in self._named():
            if response.is_known:
                continue
            part = min(response.parts, key=lambda part: part.age)
            records += _records(name, response, part.key, price)
            run_id = part.key[0]
            run = runs.get(run_id, RunRecord(run_id, machine, part.started_ms, part.ended_ms))
            span = (min(run.started_ms, part.started_ms), max(run.ended_ms or 0, part.ended_ms))
            runs[run_id] = run._replace(started_ms=span[0], ended_ms=span[1])
            attempts.setdefault(part.key, _attempt(part))
        return tuple(runs.values()), tuple(attempts.values()), tuple(records)

    def _named(self) -> Iterator[tuple[str, _Response]]:
        """Each response with a name of its own: of several with one id, all but the oldest have a longer one."""
        for name, same in self._by_name.items():
            first, *others = sorted(same, key=lambda one: one.at_ms)
            yield name, first
            for response in others:
                yield f"{name}/{response.request or response.at_ms}", response


def _attempt(part: AttemptPart) -> AttemptRecord:
    """A command's arguments are the user's own text and stay out."""
    return AttemptRecord(
        *part.key,
        started_ms=part.started_ms,
        session=part.session,
        command=part.command,
        base_command=part.command,
        model=part.model or None,
        ended_ms=part.ended_ms,
        outcome=IMPORTED,
    )


def _records(name: str, response: _Response, key: tuple[str, str, int], price: Price | None) -> Iterator[UsageRecord]:
    """A record for the response, and one for each kind of iteration and model that is billed beside it."""
    terms = response.usage.terms
    parts = response.usage.parts()
    spent: dict[str, Spent] = {}
    models: dict[str, str] = {}
    costs: dict[str, int | None] = {}
    for number, (part, cost) in enumerate(zip(parts, _costs(price, response), strict=True)):
        model = part.model or response.model
        is_own = part.kind in (MESSAGE, FALLBACK) and model == response.model
        suffix = "" if is_own else f"#{part.kind}/{model}"
        if suffix in spent:
            before = costs[suffix]
            cost = None if cost is None or before is None else before + cost  # noqa: PLW2901
        spent[suffix] = spent.get(suffix, Spent()) + Spent.of(part, None if number else terms)
        models[suffix], costs[suffix] = model, cost
    for suffix, one in spent.items():
        cost = costs[suffix]
        yield UsageRecord(
            f"{RUN_PREFIX}{name}{suffix}",
            *key,
            at_ms=response.at_ms,
            model=models[suffix],
            usage=one.usage,
            cost_nano_usd=cost,
            cost_source=None if cost is None else "prices",
            source=MAIN,
            terms=Terms.of(terms),
            written_for_1h_tokens=one.written_for_1h_tokens,
            web_searches=one.web_searches,
        )


def _costs(price: Price | None, response: _Response) -> list[int | None]:
    """What each part of a response cost; None where its model has no name or no price."""
    parts = response.usage.parts()
    if price is None:
        return [None] * len(parts)

    def at_the_time(model: str, usage: Usage, written_for_1h_tokens: int) -> int | None:
        if not model:
            return None
        return price(model, usage, written_for_1h_tokens=written_for_1h_tokens, at_ms=response.at_ms)

    return costs_of_parts(at_the_time, parts, response.model, response.usage.terms)
