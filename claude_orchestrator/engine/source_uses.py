"""What the sources of an instance have used in all its attempts. Pure."""

from __future__ import annotations

from typing import Any

from claude_orchestrator.engine.attempt import AttemptStatus
from claude_orchestrator.engine.state import InstanceStatus
from token_budget.cost_tree import SourceUse, by_kind, cost_tree
from token_budget.models import Usage
from token_budget.portions import UNKNOWN
from token_budget.text import decimal_usd


def tree_of(status: InstanceStatus) -> tuple[SourceUse, ...]:
    """The use of an instance, divided by who caused it. What an earlier orchestrator had counted is not divided."""
    agents = {}
    parts: list[tuple[str, Usage, int | None]] = []
    divided = Usage()
    for attempt in status.divided:
        agents.update(attempt.tally.attribution.subagents)
        costs = attempt.costs.by_portion
        spent = attempt.tally.by_portion
        for portion in {**spent, **costs}:
            usage = spent[portion].usage if portion in spent else Usage()
            divided += usage
            parts.append((portion.source, usage, costs.get(portion)))
    parts.append((UNKNOWN, status.usage - divided, None))
    return cost_tree(parts, agents)


def source_fields(status: InstanceStatus) -> list[dict[str, Any]]:
    """The tree as reports have it."""
    return [
        {
            "source": "subagent" if use.subagent is not None else (use.source or "not divided"),
            **({} if use.subagent is None else use.subagent._asdict()),
            **use.usage._asdict(),
            "total_tokens": use.usage.total_tokens,
            "cost_usd": None if use.nano_usd is None else decimal_usd(use.nano_usd),
        }
        for use in tree_of(status)
    ]


def source_line(status: InstanceStatus) -> str:
    """The tree in one line, by kind; empty where the main thread has used all."""
    lines = by_kind(tree_of(status))
    if all(line.depth == 0 for line in lines) and len(lines) < 2:
        return ""
    return ", ".join(line.text() if line.depth < 2 else f"{line.text()} at depth {line.depth}" for line in lines)


def share_of_subagents(status: InstanceStatus) -> str:
    """How many subagents an instance had, and their share of its tokens: `3 (45%)`; empty without any."""
    attempt: AttemptStatus = status.attempt
    if not attempt.tally.attribution.has_subagents and len(status.divided) < 2:
        return ""
    agents = [use for use in tree_of(status) if use.subagent is not None]
    total = status.total_tokens
    if not agents or not total:
        return ""
    return f"{len(agents)} ({100 * sum(use.usage.total_tokens for use in agents) // total}%)"
