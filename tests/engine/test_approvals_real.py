"""Approvals with the real claude against the stand-in API: asked, answered late, and what was billed meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.engine.approvals import Approvals, Reply
from claude_orchestrator.engine.run_events import ApprovalAsked, ApprovalEnded, By, RunEvent
from claude_orchestrator.engine.state import State
from claude_orchestrator.engine.supervisor import Supervisor
from tests.harness import Outcome, run_real
from tests.stand_in import Call, StandIn, Text, Tools

pytestmark = pytest.mark.real_cli
BY = By("socket", "ann")


class Person:
    """Answers each question after a while, and notes what the instance had used before and after."""

    def __init__(self, reply: Reply, *, after_s: float = 0.0, always: bool = False) -> None:
        self.reply, self.after_s, self.always = reply, after_s, always
        self.asked: list[ApprovalAsked] = []
        self.ended: list[ApprovalEnded] = []
        self.used: list[int] = []
        self.doing: list[str] = []

    def start(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def see(self, event: RunEvent) -> None:
        match event:
            case ApprovalAsked():
                self.asked.append(event)
                loop = asyncio.get_running_loop()
                loop.call_later(min(2.0, self.after_s / 2), self._note)  # the end of the response is counted by then
                loop.call_later(self.after_s, self._answer, event.id)
            case ApprovalEnded():
                self.ended.append(event)
            case _:
                pass

    def _note(self) -> None:
        (status,) = self._supervisor.instances
        self.used.append(status.total_tokens)
        self.doing.append("" if status.activity is None else status.activity.words)

    def _answer(self, ask_id: str) -> None:
        self._note()
        approvals = self._supervisor._context.services.approvals
        assert isinstance(approvals, Approvals)
        approvals.answer(ask_id, self.reply, BY, always=self.always)


def run(person: Person, claude: str, tmp_path: Path, calls: list[Tools], **options: Any) -> tuple[Outcome, StandIn]:
    approvals = options.pop("rules", "ask")
    config = {"instances": [{"name": "one", "prompt": "greet me", "approvals": approvals}]}
    with StandIn({"greet": [*calls, Text("All done.")]}) as api:
        watch = {"on_event": person.see, "at_start": person.start}
        return run_real(config, api, claude, tmp_path, **watch, **options), api


def touch(name: str) -> Tools:
    return Tools((Call.bash(f"mkdir -p /tmp/nothing-{name}; touch {name}"),))


@pytest.mark.slow
def test_a_tool_runs_once_a_person_approves_and_no_time_counts_meanwhile(claude: str, tmp_path: Path) -> None:
    person = Person(Reply(True), after_s=32.0)
    outcome, api = run(person, claude, tmp_path, [touch("here")], idle_timeout_s="30s")
    assert outcome.only.state is State.COMPLETED, outcome.only.reason
    assert (tmp_path / "workspace" / "here").exists()
    assert [(one.tool, one.instance) for one in person.asked] == [("Bash", "one")]
    assert [(one.outcome, one.by) for one in person.ended] == [("allowed", BY)]
    assert person.used[0] == person.used[1] > 0
    assert person.doing[1] == "waits for approval"
    assert outcome.only.usage == api.billed() and outcome.only.tally.exact
    assert outcome.only.permission_denials == []


def test_a_denial_reaches_claude_with_its_message(claude: str, tmp_path: Path) -> None:
    person = Person(Reply(False, "Not on a Friday."))
    outcome, api = run(person, claude, tmp_path, [touch("here")])
    assert outcome.only.state is State.COMPLETED
    assert not (tmp_path / "workspace" / "here").exists()
    assert outcome.only.permission_denials == ["Bash"]
    assert outcome.only.usage == api.billed()


def test_a_rule_answers_without_a_person_and_always_answers_the_second_time(claude: str, tmp_path: Path) -> None:
    person = Person(Reply(True), always=True)
    rules = {"allow": ["Bash(mkdir *)"]}
    calls = [Tools((Call.bash("mkdir made"),)), touch("here"), touch("here")]
    outcome, _ = run(person, claude, tmp_path, calls, rules=rules)
    assert outcome.only.state is State.COMPLETED
    assert (tmp_path / "workspace" / "made").exists() and (tmp_path / "workspace" / "here").exists()
    assert len(person.asked) == 1
    assert [one.by.via for one in person.ended][-1] == "rules"


def test_nobody_answers_so_that_it_is_denied(claude: str, tmp_path: Path) -> None:
    person = Person(Reply(True), after_s=3600)
    outcome, _ = run(person, claude, tmp_path, [touch("here")], approval_timeout_s="1s")
    assert outcome.only.state is State.COMPLETED
    assert not (tmp_path / "workspace" / "here").exists()
    assert [one.by.via for one in person.ended] == ["timeout"]


def test_an_instance_that_is_stopped_while_a_tool_waits_ends_and_the_question_with_it(
    claude: str, tmp_path: Path
) -> None:
    person = Person(Reply(True), after_s=3600)
    outcome, _ = run(person, claude, tmp_path, [touch("here")], timeout_s="600s", on_change=stop_when(person))
    assert outcome.only.state is State.STOPPED
    assert [one.outcome for one in person.ended] == ["withdrawn"]


def stop_when(person: Person) -> Any:
    def change(supervisor: Supervisor) -> None:
        if person.asked and not supervisor.instances[0].ending:
            supervisor.stop(supervisor.instances[0], "enough")

    return change


def test_without_approvals_a_tool_that_needs_consent_does_not_run_and_is_listed(claude: str, tmp_path: Path) -> None:
    config = {"instances": [{"name": "one", "prompt": "greet me"}]}
    with StandIn({"greet": [touch("here"), Text("All done.")]}) as api:
        outcome = run_real(config, api, claude, tmp_path)
    assert outcome.only.state is State.COMPLETED and outcome.only.permission_denials == ["Bash"]
    assert not (tmp_path / "workspace" / "here").exists()
    assert not any("dangerously" in arg or "bypass" in arg for arg in outcome.only.planned.argv)
