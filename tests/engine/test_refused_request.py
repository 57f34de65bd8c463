"""A refused request, until it is clear whether claude can do without it."""

from __future__ import annotations

from claude_orchestrator.engine.refused_request import RefusedRequest
from claude_orchestrator.gateway.refusals import BudgetRefusal
from claude_orchestrator.gateway.sender import Sender
from token_budget.models import Budget, Scope

MAIN, SUBAGENT = Sender(), Sender("a1")
FIRST, SECOND = (BudgetRefusal(Budget(10_000, scope=Scope.OVERALL, used=used), 5_000) for used in (6_000, 7_000))


def requests() -> tuple[RefusedRequest, list[bool]]:
    changes: list[bool] = []
    return RefusedRequest(changes.append), changes


def test_the_first_refusal_stands_and_is_taken_once() -> None:
    refused, changes = requests()
    assert refused.take() is None
    refused.refused(FIRST, MAIN)
    refused.refused(SECOND, SUBAGENT)
    assert refused.take() is FIRST and refused.take() is None
    assert changes == [True]


def test_a_later_request_of_the_same_sender_withdraws_it() -> None:
    refused, changes = requests()
    refused.refused(FIRST, MAIN)
    refused.admitted(MAIN)
    refused.admitted(MAIN)
    assert refused.take() is None and changes == [True, False]


def test_requests_of_others_change_nothing() -> None:
    refused, changes = requests()
    refused.refused(FIRST, SUBAGENT)
    refused.admitted(MAIN)
    assert refused.take() is FIRST and changes == [True]
