"""Who sends a request through the gateway, as claude 2.1.197 and 2.1.332 say in its headers. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from token_budget.named_tuples import NamedTuple
from token_budget.portions import NOT_AGENTS

AGENT = "x-claude-code-agent-id"  # of the subagent that asks
PARENT_AGENT = "x-claude-code-parent-agent-id"  # of the subagent that started it, if one did
MAX_AGENT_CHARS = 100


class Sender(NamedTuple):
    """The subagent that sends a request, and the one that started that subagent; both empty for the main thread."""

    agent: str = ""
    parent_agent: str = ""

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Sender:
        """Read it from a request's headers, which a tool of the instance may have written."""
        return cls(*(_agent_id(headers.get(name, "")) for name in (AGENT, PARENT_AGENT)))


def _agent_id(text: str) -> str:
    is_id = len(text) <= MAX_AGENT_CHARS and text.isascii() and text.isprintable()
    return text if is_id and text not in NOT_AGENTS else ""
