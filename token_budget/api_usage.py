"""Everything that the Messages API bills for one response, read from its `usage` object. Pure.

The top-level counts are the sum of the `message` iterations. Compaction and advisor iterations are billed beside
them. Shapes: https://docs.claude.com/en/api/messages (`usage`, `usage.iterations`).
"""

from __future__ import annotations

from collections.abc import Iterable

from token_budget.models import NO_USAGE, Usage
from token_budget.named_tuples import NamedTuple

MAX_COUNT = 2**53 - 1  # the largest whole number that every JSON reader can represent
MESSAGE, COMPACTION, ADVISOR, FALLBACK = "message", "compaction", "advisor_message", "fallback_message"
_HOPS = (MESSAGE, FALLBACK)  # attempts to answer: the top level counts those that are billed
_BESIDE = (COMPACTION, ADVISOR)
_MAX_NAME_CHARS = 200


class UsagePart(NamedTuple):
    """What one model used for one part of a response. `model` is empty for the response's own model.

    `written_for_1h_tokens` are those of the cache writes that live an hour; the others live five minutes.
    """

    kind: str
    model: str
    usage: Usage
    written_for_1h_tokens: int = 0


class PriceTerms(NamedTuple):
    """What a response's price depends on beside its counts; empty where the API does not state it.

    `server_tools` has the number of uses of each tool that the API ran itself, such as `web_search_requests`.
    `fallback_credit` is what became of a credit for a declined attempt, such as `redeemed`.
    """

    speed: str = ""
    inference_geo: str = ""
    service_tier: str = ""
    server_tools: tuple[tuple[str, int], ...] = ()
    fallback_credit: str = ""


NO_TERMS = PriceTerms()
_NO_PART = UsagePart(MESSAGE, "", NO_USAGE)


class ApiUsageObject(NamedTuple):
    """One `usage` object as the API states it, or several of one response merged with `|`.

    `readable` is False where a count was malformed; such a count is zero. `has_input` and `has_output` say whether
    the object states input and output tokens at all.
    """

    top: UsagePart = _NO_PART
    iterations: tuple[UsagePart, ...] = ()
    terms: PriceTerms = NO_TERMS
    readable: bool = True
    has_input: bool = False
    has_output: bool = False

    def __or__(self, other: ApiUsageObject) -> ApiUsageObject:
        """The two objects as one: the larger of each count, the iterations of the more complete list."""
        return ApiUsageObject(
            _larger(self.top, other.top),
            _merged(self.iterations, other.iterations),
            PriceTerms(
                other.terms.speed or self.terms.speed,
                other.terms.inference_geo or self.terms.inference_geo,
                other.terms.service_tier or self.terms.service_tier,
                _most_uses(self.terms.server_tools, other.terms.server_tools),
                other.terms.fallback_credit or self.terms.fallback_credit,
            ),
            self.readable and other.readable,
            self.has_input or other.has_input,
            self.has_output or other.has_output,
        )

    def parts(self) -> tuple[UsagePart, ...]:
        """Everything that is billed, one part for each iteration; never less than the top level states."""
        return self._resolve()[0] if self.iterations else (self.top,)

    @property
    def exact(self) -> bool:
        """Whether `parts` is exactly what is billed; else it is a lower bound."""
        return self.readable and (not self.iterations or self._resolve()[1])

    @property
    def usage(self) -> Usage:
        """The sum of all that is billed."""
        return total(self.parts()) if self.iterations else self.top.usage

    @property
    def beside(self) -> Usage:
        """What the top level leaves out and Claude Code does not count either: compaction."""
        return total(self.beside_parts)

    @property
    def beside_parts(self) -> tuple[UsagePart, ...]:
        """The parts of `beside`."""
        return tuple(part for part in self.iterations if part.kind == COMPACTION)

    def _resolve(self) -> tuple[tuple[UsagePart, ...], bool]:
        hops = tuple(part for part in self.iterations if part.kind in _HOPS)
        others = tuple(part for part in self.iterations if part.kind not in _HOPS)
        known = all(part.kind in _BESIDE for part in others)
        if not hops:
            return (self.top, *others), known
        billed, agrees = self._billed_hops(hops)
        billed = _with_lifetimes(billed, self.top.written_for_1h_tokens)
        rest = _rest(self.top, billed)
        return (*billed, *rest, *others), known and agrees and not rest

    def _billed_hops(self, hops: tuple[UsagePart, ...]) -> tuple[tuple[UsagePart, ...], bool]:
        """The attempts that are billed, and whether the top level agrees.

        An attempt that a fallback follows was declined, and so was a fallback without output beside other attempts:
        those are not billed.
        """
        followers = (*(hop.kind == FALLBACK for hop in hops[1:]), False)
        served = tuple(hop for hop, declined in zip(hops, followers, strict=True) if not declined)
        messages = tuple(hop for hop in hops if hop.kind == MESSAGE)
        for explanation in (served, hops):
            if self._agrees(explanation):
                return explanation, True
        if self._agrees(messages):
            more = tuple(hop for hop in hops if hop.kind == FALLBACK and hop.usage.output_tokens)
            return (*messages, *more), not more
        return served, False

    def _agrees(self, hops: tuple[UsagePart, ...]) -> bool:
        """Whether these attempts add up to the top level, in the counts that the top level states."""
        is_stated = (self.has_input, self.has_output, False, False)
        counts = zip(self.top.usage.counts, total(hops).counts, is_stated, strict=True)
        return all(stated == added for stated, added, must_agree in counts if stated or must_agree)


NOTHING_STATED = ApiUsageObject()


def total(parts: Iterable[UsagePart]) -> Usage:
    """The sum of the parts; no count is larger than one that every JSON reader can represent."""
    sums = [sum(column) for column in zip(*(part.usage.counts for part in parts), strict=True)]
    return Usage(*(min(MAX_COUNT, count) for count in sums))


def read_usage(value: object) -> ApiUsageObject:
    """Read a `usage` object, whatever is there. Never raises: what cannot be read makes the result inexact."""
    if not isinstance(value, dict):
        return ApiUsageObject(readable=value is None)
    top, readable = _part(value, MESSAGE, "")
    stated = value.get("iterations")
    iterations = []
    for item in stated if isinstance(stated, list) else ():
        if not isinstance(item, dict):
            readable = False
            continue
        part, good = _part(item, _name(item.get("type")), _name(item.get("model")))
        iterations.append(part)
        readable = readable and good
    return ApiUsageObject(
        top,
        tuple(iterations),
        _terms(value),
        readable and (stated is None or isinstance(stated, list)),
        value.get("input_tokens") is not None,
        value.get("output_tokens") is not None,
    )


def read_count(value: object) -> tuple[int, bool]:
    """A token count, and whether it could be read (else it is zero); a missing or null one is zero."""
    if value is None:
        return 0, True
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
        return 0, False
    return value, True


def output_text(delta: object) -> str:
    """The output text in a `content_block_delta` event's `delta`; a signature is none."""
    texts = delta if isinstance(delta, dict) else {}
    found = (texts.get(key) for key in ("text", "thinking", "partial_json"))
    return next((text for text in found if isinstance(text, str) and text), "")


def least_tokens(text: str) -> int:
    """The least number of tokens that a streamed piece of text can have: a token ends where a word ends."""
    return max(1, len(text.split())) if text else 0


def rest_of(most: Usage, seen: Usage, more_input: int = MAX_COUNT) -> Usage:
    """What a request can still use that can use `most` and has used `seen`, whatever the kind of its input.

    Its input grows by at most `more_input`.
    """
    read = seen.total_tokens - seen.output_tokens
    rest = most - Usage(read, seen.output_tokens, read, read)
    return Usage(*(min(count, more_input) for count in rest))._replace(output_tokens=rest.output_tokens)


_KEYS = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


def _part(data: dict[str, object], kind: str, model: str) -> tuple[UsagePart, bool]:
    counts = [read_count(data.get(key)) for key in _KEYS]
    split = data.get("cache_creation")
    by_lifetime = split if isinstance(split, dict) else {}
    short, short_good = read_count(by_lifetime.get("ephemeral_5m_input_tokens"))
    long, long_good = read_count(by_lifetime.get("ephemeral_1h_input_tokens"))
    usage = Usage(*(count for count, _ in counts))
    written = usage.cache_creation_input_tokens
    # without the sum, the two lifetimes are what is certain
    agrees = short + long <= written or data.get("cache_creation_input_tokens") is None
    usage |= Usage(cache_creation_input_tokens=min(MAX_COUNT, short + long))
    good = all(good for _, good in counts) and short_good and long_good and agrees
    return UsagePart(kind, model, usage, long), good and (split is None or isinstance(split, dict))


def _terms(data: dict[str, object]) -> PriceTerms:
    uses = data.get("server_tool_use")
    counts = [(_name(name), read_count(count)[0]) for name, count in uses.items()] if isinstance(uses, dict) else []
    return PriceTerms(
        _name(data.get("speed")),
        _name(data.get("inference_geo")),
        _name(data.get("service_tier")),
        tuple(sorted((name, count) for name, count in counts if count)),
        _credit(data.get("fallback_credit")),
    )


def _credit(value: object) -> str:
    status = value.get("status") if isinstance(value, dict) else None
    return _name(status.get("type")) if isinstance(status, dict) else ""


def _most_uses(old: tuple[tuple[str, int], ...], new: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
    """The larger number of uses of each tool."""
    uses = dict(old)
    for name, count in new:
        uses[name] = max(count, uses.get(name, 0))
    return tuple(sorted(uses.items()))


def _name(value: object) -> str:
    """A short name that any file can hold; empty for anything else."""
    return value[:_MAX_NAME_CHARS].encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _larger(old: UsagePart, new: UsagePart) -> UsagePart:
    hour = max(old.written_for_1h_tokens, new.written_for_1h_tokens)
    return UsagePart(new.kind, new.model or old.model, old.usage | new.usage, hour)


def _merged(old: tuple[UsagePart, ...], new: tuple[UsagePart, ...]) -> tuple[UsagePart, ...]:
    if [part.kind for part in old] == [part.kind for part in new]:
        return tuple(map(_larger, old, new))
    return new if len(new) >= len(old) else old


def _with_lifetimes(billed: tuple[UsagePart, ...], hour: int) -> tuple[UsagePart, ...]:
    """The attempts, with cache writes that live an hour as far as only the top level states them."""
    missing = hour - sum(part.written_for_1h_tokens for part in billed)
    found = []
    for part in billed:
        more = max(0, min(missing, part.usage.cache_creation_input_tokens - part.written_for_1h_tokens))
        missing -= more
        found.append(part._replace(written_for_1h_tokens=part.written_for_1h_tokens + more))
    return tuple(found)


def _rest(top: UsagePart, billed: tuple[UsagePart, ...]) -> tuple[UsagePart, ...]:
    """What the top level states beyond the attempts."""
    missing = top.usage - total(billed)
    hour = top.written_for_1h_tokens - sum(part.written_for_1h_tokens for part in billed)
    hour = min(max(0, hour), missing.cache_creation_input_tokens)
    return (UsagePart(MESSAGE, "", missing, hour),) if missing.total_tokens else ()
