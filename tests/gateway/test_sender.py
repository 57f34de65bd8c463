"""Who sends a request, as its headers say: a tool of the instance may have written them."""

from __future__ import annotations

import pytest

from claude_orchestrator.gateway.sender import AGENT, MAX_AGENT_CHARS, PARENT_AGENT, Sender
from token_budget.portions import MAIN, SIDE_CALLS, TOOLS


@pytest.mark.parametrize(
    ("headers", "sender"),
    [
        ({}, Sender()),
        ({"x-app": "cli"}, Sender()),
        ({AGENT: "a1"}, Sender("a1")),
        ({AGENT: "a2", PARENT_AGENT: "a1"}, Sender("a2", "a1")),
        ({AGENT: "a" * MAX_AGENT_CHARS}, Sender("a" * MAX_AGENT_CHARS)),
    ],
)
def test_the_headers_name_the_subagent_and_its_parent(headers: dict[str, str], sender: Sender) -> None:
    assert Sender.of(headers) == sender


@pytest.mark.parametrize("text", ["a" * (MAX_AGENT_CHARS + 1), "a\nb", "a\x1b[31m", "é", MAIN, SIDE_CALLS, TOOLS])
def test_what_is_no_id_counts_as_the_main_thread(text: str) -> None:
    """Among it the names that stand for no subagent: nobody may pass as one of these by a header."""
    assert Sender.of({AGENT: text, PARENT_AGENT: "a1"}) == Sender("", "a1")
    assert Sender.of({AGENT: "a1", PARENT_AGENT: text}) == Sender("a1", "")
