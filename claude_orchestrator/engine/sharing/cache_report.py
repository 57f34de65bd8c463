"""A run's use of the prompt cache: what it saved, what instances wrote again, and why. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Any

from claude_orchestrator.claude.events import Price
from claude_orchestrator.claude.prompt_cache import LIFETIME_S, CachePrefix
from claude_orchestrator.engine.sharing.cache_use import CacheUse, First, Kept
from claude_orchestrator.engine.state import InstanceStatus
from token_budget.models import Usage
from token_budget.named_tuples import NamedTuple
from token_budget.string_enums import StrEnum
from token_budget.text import counted, format_usd


class Why(StrEnum):
    """Why an instance wrote what another one with the same beginning had written."""

    TOGETHER = "started before the first response had begun"
    IDLE = f"started more than {LIFETIME_S / 60:g} minutes after the last use of the cache"
    UNKNOWN = "loaded other texts, for instance another CLAUDE.md, or the API had dropped the cache"


class Again(NamedTuple):
    """Instances that wrote tokens which they could have read. `at_most`: nobody has read them, so some may differ.

    `nano_usd` is what writing has cost more than reading would have; None without prices.
    """

    why: Why
    instances: int
    tokens: int
    at_most: bool = False
    nano_usd: int | None = None

    @property
    def cost(self) -> str:
        """The cost as a part of a line."""
        return f", for {format_usd(self.nano_usd)} more than reading them costs" if self.nano_usd else ""


class Separate(NamedTuple):
    """Instances that share no whole beginning with the largest group, and what they differ in."""

    instances: int
    written_tokens: int
    differs_in: tuple[str, ...]


class CacheReport(NamedTuple):
    """A run's use of the prompt cache. `saved_nano_usd` is None without prices.

    `shared_tokens` were read by first responses. `unread_tokens` were written by instances that made one response, and
    nobody has read them.
    """

    read_share: float
    shared_tokens: int
    saved_nano_usd: int | None
    unread_tokens: int
    again: tuple[Again, ...] = ()
    separate: tuple[Separate, ...] = ()
    kept: Kept = Kept()

    def fields(self) -> dict[str, Any]:
        """The JSON report's form."""
        return {
            "read_share": round(self.read_share, 4),
            "shared_tokens": self.shared_tokens,
            "saved_nano_usd": self.saved_nano_usd,
            "unread_tokens": self.unread_tokens,
            "written_again": [{**one._asdict(), "why": str(one.why)} for one in self.again],
            "separate": [{**one._asdict(), "differs_in": list(one.differs_in)} for one in self.separate],
            "kept_warm": {
                "calls": self.kept.calls,
                "tokens": self.kept.usage.total_tokens,
                "nano_usd": self.kept.nano_usd or None,
            },
        }

    def lines(self) -> list[str]:
        """The text report's lines."""
        saved = f", which saved {format_usd(self.saved_nano_usd)}" if self.saved_nano_usd else ""
        lines = [
            f"Prompt cache: {self.read_share:.0%} of the input was read from it. Instances read "
            f"{counted(self.shared_tokens, 'token')} that others had written{saved}."
        ]
        if self.kept.calls:
            cost = f", for {format_usd(self.kept.nano_usd)}" if self.kept.nano_usd else ""
            lines.append(
                f"Prompt cache: {counted(self.kept.calls, 'call')} of {counted(self.kept.usage.total_tokens, 'token')} "
                f"kept it warm while instances waited{cost}."
            )
        if self.unread_tokens:
            lines.append(f"Prompt cache: {counted(self.unread_tokens, 'token')} were written and never read.")
        lines += [
            f"Prompt cache: {counted(one.instances, 'instance')} wrote {'up to ' if one.at_most else ''}"
            f"{counted(one.tokens, 'token')} again{one.cost}: "
            f"{'it' if one.instances == 1 else 'they'} {one.why}."
            for one in self.again
        ]
        lines += [
            f"Prompt cache: {counted(one.instances, 'instance')} wrote {counted(one.written_tokens, 'token')} apart "
            f"from the others: another {', '.join(one.differs_in)}."
            for one in self.separate
        ]
        return lines


def cache_report(use: CacheUse, instances: Iterable[InstanceStatus]) -> CacheReport | None:
    """The report of a run; None where fewer than two instances began a session."""
    firsts = use.firsts
    if len(firsts) < 2:
        return None
    groups: dict[CachePrefix, list[First]] = {}
    for first in firsts:
        groups.setdefault(first.prefix, []).append(first)
    usages = {status.name: status.usage - use.kept.get(status.name, Kept()).usage for status in instances}
    total = sum(usages.values(), Usage())
    inputs = total.total_tokens - total.output_tokens
    return CacheReport(
        read_share=total.cache_read_input_tokens / inputs if inputs else 0.0,
        shared_tokens=sum(first.usage.cache_read_input_tokens for first in firsts),
        saved_nano_usd=_saved(firsts, use.price),
        unread_tokens=sum(_unread(group, usages) for group in groups.values()),
        again=_written_again(groups.values(), use.price),
        separate=tuple(_separate(groups)),
        kept=reduce(Kept.plus, use.kept.values(), Kept()),
    )


def _saved(firsts: Iterable[First], price: Price | None) -> int | None:
    """What reading cost less than writing would have cost."""
    if price is None:
        return None
    costs = [cost_of_writing(first.model, first.usage.cache_read_input_tokens, price) for first in firsts]
    known = [cost for cost in costs if cost is not None]
    return sum(known) if known else None


def cost_of_writing(model: str, tokens: int, price: Price) -> int | None:
    """What it costs more to write tokens than to read them, in nano-dollars; None if that is unknown."""
    written = price(model, Usage(cache_creation_input_tokens=tokens), 0)
    read = price(model, Usage(cache_read_input_tokens=tokens), 0)
    return None if written is None or read is None else written - read


def _unread(group: list[First], usages: dict[str, Usage]) -> int:
    """What instances with one response wrote; of the first one's, not what others have read."""
    tokens = 0
    shared = max((first.usage.cache_read_input_tokens for first in group[1:]), default=0)
    for place, first in enumerate(group):
        usage = usages.get(first.name)
        if usage is not None and usage.cache_read_input_tokens == first.usage.cache_read_input_tokens:
            read_by_others = max(0, shared - first.usage.cache_read_input_tokens) if place == 0 else 0
            tokens += max(0, usage.cache_creation_input_tokens - read_by_others)
    return tokens


def _written_again(groups: Iterable[list[First]], price: Price | None) -> tuple[Again, ...]:
    found: dict[Why, Again] = {}
    for group in groups:
        can_read = max(first.usage.cache_read_input_tokens for first in group)
        at_most = not can_read
        if at_most:
            can_read = min(first.usage.cache_creation_input_tokens for first in group)
        last_use = group[0].began_at
        for first in group[1:]:
            written = min(can_read - first.usage.cache_read_input_tokens, first.usage.cache_creation_input_tokens)
            if written > 0:
                why = Why.UNKNOWN
                if first.launched_at < group[0].began_at:
                    why = Why.TOGETHER
                elif first.launched_at - last_use > LIFETIME_S:
                    why = Why.IDLE
                one = found.get(why, Again(why, 0, 0))
                cost = None if price is None else cost_of_writing(first.model, written, price)
                total = one.nano_usd if cost is None else (one.nano_usd or 0) + cost
                found[why] = Again(why, one.instances + 1, one.tokens + written, one.at_most or at_most, total)
            last_use = first.began_at
    return tuple(found.values())


def _separate(groups: dict[CachePrefix, list[First]]) -> Iterable[Separate]:
    """What each group but the largest wrote for itself, by what it differs in."""
    largest = max(groups, key=lambda prefix: len(groups[prefix]))
    found: dict[tuple[str, ...], Separate] = {}
    for prefix, group in groups.items():
        written = group[0].usage.cache_creation_input_tokens
        names = (name for name in CachePrefix._fields if getattr(prefix, name) != getattr(largest, name))
        differs = tuple(dict.fromkeys(_NAMES[name] for name in names))
        if prefix != largest and written:
            one = found.get(differs, Separate(0, 0, differs))
            found[differs] = Separate(one.instances + len(group), one.written_tokens + written, differs)
    return found.values()


_NAMES = {
    "model": "model",
    "account": "account or environment",
    "options": "set of tools or options",
    "appends": "system prompt",
    "system": "system prompt",
    "folder": "folder",
}
