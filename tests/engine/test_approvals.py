"""Tools that wait for a person: one reply each, in time, with a record of who answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from claude_orchestrator.claude.events import ControlRequest
from claude_orchestrator.claude.permission_rules import Call, Rule, allowing
from claude_orchestrator.config.approvals import APPROVALS
from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.config.plan import make_plan
from claude_orchestrator.config.settings import merge
from claude_orchestrator.engine import approvals as module
from claude_orchestrator.engine.approvals import UNATTENDED, Approvals, Reply
from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.permissions import Permissions
from claude_orchestrator.engine.run_events import ApprovalAsked, ApprovalEnded, By, RuleMade, RunEvent

BY = By("socket", "ann")


@dataclass
class Desk:
    """Approvals with an observer, and the replies that came."""

    timeout_s: float = 60.0
    bus: Bus = field(default_factory=Bus)
    events: list[RunEvent] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bus.attach(self)
        self.approvals = Approvals(self.bus, self.timeout_s, lambda: 1000.0)

    def observe(self, event: RunEvent) -> None:
        self.events.append(event)

    def ask(self, command: str = "npm test", instance: str = "one") -> str:
        return self.approvals.ask(instance, Call("Bash", {"command": command}, "/w"), "Run", self.replies.append)


def in_loop(work: Callable[[], None]) -> None:
    async def main() -> None:
        work()

    asyncio.run(main())


def test_a_question_gets_one_reply_and_a_record() -> None:
    def work() -> None:
        desk = Desk()
        assert desk.ask() == "1"
        (ask,) = desk.approvals.pending
        assert (ask.text, ask.asked_at, ask.until, ask.given) == (
            "Bash: npm test",
            1000.0,
            1060.0,
            {"command": "npm test"},
        )
        assert desk.approvals.answer("1", Reply(True), BY)
        assert not desk.approvals.answer("1", Reply(False), BY)
        assert desk.replies == [Reply(True)]
        assert desk.approvals.pending == ()
        assert desk.events == [
            ApprovalAsked("1", "one", "Bash", "Bash: npm test"),
            ApprovalEnded("1", "one", "Bash: npm test", "allowed", BY),
        ]

    in_loop(work)


def test_nobody_answers_in_time() -> None:
    async def main() -> None:
        desk = Desk(timeout_s=0.01)
        desk.ask()
        await asyncio.sleep(0.05)
        assert desk.replies == [Reply(False, "Permission denied: nobody answered in time.")]
        ended = desk.events[-1]
        assert isinstance(ended, ApprovalEnded)
        assert (ended.outcome, ended.by.via) == ("denied", "timeout")

    asyncio.run(main())


def test_always_answers_what_waits_and_what_comes_for_the_same_call_only() -> None:
    def work() -> None:
        desk = Desk()
        first, same, other = desk.ask(), desk.ask(instance="two"), desk.ask("npm test; rm x")
        desk.approvals.answer(first, Reply(True), BY, always=True)
        assert desk.replies == [Reply(True), Reply(True)]
        assert [ask.id for ask in desk.approvals.pending] == [other]
        ended = desk.events[-1]
        assert isinstance(ended, ApprovalEnded)
        assert (ended.id, ended.by) == (same, By("rules", "ann", "Bash(npm test) is always allowed"))

    in_loop(work)


def test_the_number_of_questions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING", 1)

    def work() -> None:
        desk = Desk()
        desk.ask()
        desk.ask()
        assert [reply.allowed for reply in desk.replies] == [False]

    in_loop(work)


# -- one instance --


def spec_of(approvals: object) -> LaunchSpec:
    config = parse_config({"instances": [{"name": "one", "prompt": "x", "approvals": approvals}]}, "test")
    return make_plan(config, merge({}, {}, "test"), workspace="/w", claude_bin="claude").specs[0]


class Instance:
    """The permissions of an instance, what was sent to its claude, and whether it waited."""

    def __init__(self, approvals: object, desk: Desk) -> None:
        self.sent: list[tuple[str, Reply]] = []
        self.waited: list[bool] = []
        self.permissions = Permissions(
            spec_of(approvals),
            desk.approvals,
            desk.bus,
            lambda request, reply: self.sent.append((request.request_id, reply)),
            lambda: self.waited.append(self.permissions.waits),
        )

    def ask(self, request_id: str, command: str = "npm test") -> None:
        self.permissions.decide(ControlRequest(request_id, "can_use_tool", "Bash", {"command": command}), "/w")


def test_rules_answer_first_and_a_person_the_rest() -> None:
    def work() -> None:
        desk = Desk()
        instance = Instance({"allow": ["Bash(npm test *)"], "deny": ["Bash(rm *)"]}, desk)
        for number, command in enumerate(("npm test", "npm test && rm x", "ls")):
            instance.ask(f"q{number}", command)
        assert [(one, reply.allowed) for one, reply in instance.sent] == [("q0", True), ("q1", False)]
        assert instance.sent[1][1].message == "Permission denied: the rule Bash(rm *) denies it."
        assert [ask.text for ask in desk.approvals.pending] == ["Bash: ls"]
        vias = [(event.outcome, event.by.via) for event in desk.events if isinstance(event, ApprovalEnded)]
        assert vias == [("allowed", "rules"), ("denied", "rules")]
        desk.approvals.answer("1", Reply(False, "no"), BY)
        assert instance.sent[-1] == ("q2", Reply(False, "no"))
        assert instance.waited == [True, False]

    in_loop(work)


@pytest.mark.parametrize("approvals", ["deny", {"default": "deny", "allow": ["Read"]}])
def test_without_a_person_the_rest_is_denied_at_once(approvals: Any) -> None:
    def work() -> None:
        instance = Instance(approvals, Desk())
        instance.ask("q")
        assert instance.sent == [("q", Reply(False, UNATTENDED))]

    in_loop(work)


def test_a_question_that_claude_takes_back_or_whose_attempt_ends_is_withdrawn() -> None:
    def work() -> None:
        desk = Desk()
        instance = Instance("ask", desk)
        instance.ask("q1")
        instance.ask("q2", "ls")
        instance.permissions.withdraw("q1")
        instance.permissions.withdraw("unknown")
        assert [ask.text for ask in desk.approvals.pending] == ["Bash: ls"]
        instance.permissions.close()
        assert desk.approvals.pending == ()
        assert instance.sent == []
        outcomes = [event.outcome for event in desk.events if isinstance(event, ApprovalEnded)]
        assert outcomes == ["withdrawn", "withdrawn"]

    in_loop(work)


def test_what_one_instance_was_always_allowed_another_one_may() -> None:
    def work() -> None:
        desk = Desk()
        one, two = Instance("ask", desk), Instance("ask", desk)
        one.ask("q1")
        desk.approvals.answer("1", Reply(True), BY, always=True)
        two.ask("q2")
        assert two.sent == [("q2", Reply(True))]
        assert two.waited == []

    in_loop(work)


def test_the_option_makes_claude_ask() -> None:
    assert "--permission-prompt-tool=stdio" in spec_of("ask").argv
    assert "--permission-prompt-tool=stdio" not in spec_of("deny").argv
    assert spec_of({"allow": ["Read"]}).approvals == APPROVALS.read({"allow": ["Read"]})


def test_rules_of_an_earlier_start_are_asked_first() -> None:
    def work() -> None:
        desk = Desk()
        desk.ask()
        desk.approvals.answer("1", Reply(True), BY, always=True)
        made = [event.rule for event in desk.events if isinstance(event, RuleMade)]
        assert made == [Rule("Bash", "npm test", exact=True)]
        desk.ask()
        desk.approvals.answer("2", Reply(True), BY, always=True)
        assert len([event for event in desk.events if isinstance(event, RuleMade)]) == 1
        later = Approvals(desk.bus, 60.0, rules=made)
        assert allowing(later.rules, Call("Bash", {"command": "npm test"}, "/elsewhere")) == made[0]
        assert allowing(later.rules, Call("Bash", {"command": "npm test; rm -rf /"}, "/w")) is None

    in_loop(work)
