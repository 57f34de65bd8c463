"""Who used what of an instance: the main thread, its subagents by type and depth, side calls, and the rest. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from token_budget.models import NO_USAGE, Usage
from token_budget.named_tuples import NamedTuple
from token_budget.portions import CACHE_KEEPING, MAIN, NOT_AGENTS, SIDE_CALLS, TOOLS, UNKNOWN, Subagent
from token_budget.text import format_tokens, format_usd

NAMES = {
    MAIN: "main thread",
    SIDE_CALLS: "side calls",
    TOOLS: "claude in tools",
    CACHE_KEEPING: "cache keeping",
    UNKNOWN: "not divided",
}


class SourceUse(NamedTuple):
    """What one source has used; `subagent` if it is one. `nano_usd` is None where its cost is not known."""

    source: str
    usage: Usage
    nano_usd: int | None = None
    subagent: Subagent | None = None


class SourceLine(NamedTuple):
    """The uses of a kind of source: how many there were of it, and how deep below the main thread."""

    name: str
    number: int
    usage: Usage
    nano_usd: int | None
    depth: int = 0

    def text(self) -> str:
        """`2 × Explore 12.3K $0.02`."""
        times = f"{self.number} x " if self.depth and self.number > 1 else ""
        cost = "" if self.nano_usd is None else f" {format_usd(self.nano_usd)}"
        return f"{times}{self.name} {format_tokens(self.usage.total_tokens)}{cost}"


def cost_tree(
    parts: Iterable[tuple[str, Usage, int | None]], subagents: Mapping[str, Subagent]
) -> tuple[SourceUse, ...]:
    """Each source with the sum of its parts: the main thread, subagents each below its parent, and all others."""
    usages: dict[str, Usage] = {}
    costs: dict[str, int] = {}
    for source, usage, nano_usd in parts:
        usages[source] = _sum(usages.get(source, NO_USAGE), usage)
        if nano_usd is not None:
            costs[source] = costs.get(source, 0) + nano_usd
    agents = [subagents.get(source, Subagent(source)) for source in usages if source not in NOT_AGENTS]
    order = [MAIN, *(agent.id for agent in _below("", agents)), SIDE_CALLS, TOOLS, CACHE_KEEPING, UNKNOWN]
    known = {agent.id: agent for agent in agents}
    found = (SourceUse(name, usages[name], costs.get(name), known.get(name)) for name in order if name in usages)
    return tuple(use for use in found if any(use.usage) or use.nano_usd)


def by_kind(tree: Iterable[SourceUse]) -> tuple[SourceLine, ...]:
    """The tree with one line for all subagents of a type and depth."""
    lines: dict[tuple[str, int], SourceLine] = {}
    for use in tree:
        agent = use.subagent
        name = NAMES[use.source] if agent is None else agent.type or "subagent"
        key = name, 0 if agent is None else agent.depth
        old = lines.get(key, SourceLine(name, 0, NO_USAGE, None, key[1]))
        cost = use.nano_usd if old.nano_usd is None else old.nano_usd + (use.nano_usd or 0)
        lines[key] = SourceLine(name, old.number + 1, _sum(old.usage, use.usage), cost, key[1])
    return tuple(lines.values())


def _below(parent: str, agents: list[Subagent]) -> list[Subagent]:
    """Subagents in the order in which they were met, each followed by its own."""
    ids = {agent.id for agent in agents}
    children: dict[str, list[Subagent]] = {}
    for agent in agents:
        children.setdefault(agent.parent if agent.parent in ids else "", []).append(agent)
    ordered: dict[str, Subagent] = {}
    stack = list(reversed(children.get(parent, [])))
    while stack:
        agent = stack.pop()
        ordered[agent.id] = agent
        stack += reversed(children.get(agent.id, []))
    ordered.update({agent.id: agent for agent in agents if agent.id not in ordered})  # of a circle
    return list(ordered.values())


def _sum(one: Usage, other: Usage) -> Usage:
    """The sum, also where one has negative corrections."""
    return Usage(*(a + b for a, b in zip(one, other, strict=True)))
