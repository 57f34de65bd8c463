"""Requests that wait for a budget: who goes when room is made, and what is learned from answers."""

from __future__ import annotations

from claude_orchestrator.gateway.admission import ENOUGH_ANSWERS, Admission, Ticket, Verdict
from token_budget import TokenBudgetManager
from token_budget.models import Budget


def a_ticket(budget: Budget, answers: list[Verdict], tokens: int = 100, max_tokens: int = 800) -> Ticket:
    ticket = Ticket((budget,), tokens, max_tokens)
    ticket.answer = answers.append
    return ticket


def full() -> tuple[Admission, Budget, Ticket]:
    """An admission whose only budget is held by one request."""
    manager = TokenBudgetManager(1_000, "block")
    admission, budget = Admission(manager), manager.budgets[0]
    first = a_ticket(budget, [])
    assert admission.has_room(first) and admission.ask(first) is Verdict.GO
    return admission, budget, first


def test_a_request_that_waits_goes_when_another_one_ends() -> None:
    admission, budget, first = full()
    answers: list[Verdict] = []
    second = a_ticket(budget, answers)
    assert not admission.has_room(second) and admission.ask(second) is Verdict.WAIT
    admission.settle(first)
    assert answers == [Verdict.GO] and not admission.waiting
    admission.settle(second)
    admission.settle(second)  # a second end gives nothing back
    assert budget.held == 0 and admission.in_flight == 0


def test_a_request_queues_behind_one_that_waits_for_the_same_budget() -> None:
    admission, budget, first = full()
    answers: list[Verdict] = []
    second, small = a_ticket(budget, answers), a_ticket(budget, answers, tokens=1, max_tokens=5)
    assert admission.ask(second) is Verdict.WAIT
    assert not admission.has_room(small) and admission.ask(small) is Verdict.WAIT
    admission.recheck()
    assert answers == [] and list(admission.waiting) == [second, small]
    admission.leave(second)
    assert second not in admission.waiting
    admission.settle(first)
    assert not admission.waiting and answers[-1] is Verdict.GO


def test_the_expected_output_follows_the_answers_that_were_seen() -> None:
    admission = Admission(TokenBudgetManager(10**6, "block"))
    before = admission.expected
    for _ in range(ENOUGH_ANSWERS - 1):
        admission.learn(4_000)
    assert admission.expected == before
    admission.learn(4_000)
    assert 4_000 <= admission.expected <= 8_000
