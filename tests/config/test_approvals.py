"""The setting `approvals`: words, rules, and what is wrong with them."""

from __future__ import annotations

import pytest

from claude_orchestrator.config.approvals import APPROVALS, ApprovalRules
from token_budget.fields import BadValue


@pytest.mark.parametrize(
    ("value", "rules"),
    [
        ("ask", ApprovalRules("ask")),
        ("deny", ApprovalRules("deny")),
        ({}, ApprovalRules("ask")),
        ({"allow": ["Bash(npm test *)", "Read"]}, ApprovalRules("ask", ("Bash(npm test *)", "Read"))),
        ({"default": "deny", "allow": "Read,Grep"}, ApprovalRules("deny", ("Read", "Grep"))),
        ({"deny": ["Bash(rm *)"], "//": "a comment"}, ApprovalRules("ask", (), ("Bash(rm *)",))),
        ('{"allow": ["Read"]}', ApprovalRules("ask", ("Read",))),
        (ApprovalRules("ask"), ApprovalRules("ask")),
    ],
)
def test_what_is_accepted(value: object, rules: ApprovalRules) -> None:
    assert APPROVALS.read(value) == rules
    assert APPROVALS.read(APPROVALS.show(rules)) == rules


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("yes", "expected ask, deny, or an object"),
        (True, "expected ask, deny, or an object"),
        ({"alow": ["Read"]}, "did you mean 'allow'?"),
        ({"allow": ["Bash()"]}, "expected a tool such as Read"),
        ({"default": "always"}, "expected one of ask, deny"),
        ('{"allow":', "is not JSON"),
    ],
)
def test_what_is_refused(value: object, fault: str) -> None:
    with pytest.raises(BadValue, match=fault.replace("?", r"\?")):
        APPROVALS.read(value)


def test_only_what_can_be_answered_makes_claude_ask() -> None:
    assert [rules.handled for rules in map(APPROVALS.read, ("ask", "deny", {"allow": ["Read"]}))] == [True, False, True]
    assert not APPROVALS.read({"default": "deny", "deny": ["Read"]}).handled
