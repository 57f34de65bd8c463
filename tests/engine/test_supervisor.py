"""The supervisor with scripted instances: histories of lines go in, states and decisions come out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.engine.state import State
from claude_orchestrator.engine.supervisor import Supervisor
from claude_orchestrator.launch.simulated import SimulatedLauncher
from tests.harness import Outcome, run_config
from tests.limits import HUNG_S
from tests.scripted import Script, ScriptedRunning

WORK = Path("/")


def go(script: Script, *instances: dict[str, Any], **options: Any) -> Outcome:
    """Run the instances at once: none waits for the prompt cache of another."""
    entries = [{"name": f"i{n}", **instance} for n, instance in enumerate(instances)]
    options = {"share_cache": "off", **options}
    return run_config({"instances": entries}, script, workspace=WORK, time_limit_s=HUNG_S, **options)


def states(outcome: Outcome) -> list[State]:
    return [status.state for status in outcome.instances]


def test_turns_go_one_after_the_other_in_one_session() -> None:
    script = Script()
    outcome = go(script, {"command": "/c", "pre_commands": ["/a", "/b"], "clear_history": True})
    assert script.log == ["launch i0", "i0: /clear", "i0: /a", "i0: /b", "i0: /c"]
    assert states(outcome) == [State.COMPLETED] and outcome.only.usage.total_tokens == 4 * 1001


def test_a_failed_turn_ends_the_session() -> None:
    script = Script()
    outcome = go(script, {"command": "/c", "pre_commands": ["broken", "/never"]})
    assert script.log == ["launch i0", "i0: broken"] and states(outcome) == [State.FAILED]
    assert outcome.only.reason == "error_during_execution"


def test_slots_are_kept() -> None:
    script = Script()
    outcome = go(script, *[{"command": "/c"}] * 9, max_parallel=3)
    assert script.peak == 3 and states(outcome) == [State.COMPLETED] * 9


def test_startup_delay_keeps_launches_apart() -> None:
    times: list[float] = []

    def note(supervisor: Supervisor) -> None:
        times[:] = sorted(
            status.attempt.started_at for status in supervisor.instances if status.attempt.started_at is not None
        )

    go(Script(), *[{"command": "/c"}] * 3, startup_delay_s=0.05, on_change=note)
    assert len(times) == 3 and all(later - sooner >= 0.049 for sooner, later in pairwise(times))


def test_who_waits_for_holds_starts_when_they_are_released() -> None:
    script = Script(tokens=100)
    big = {"command": "/big", "max_tokens_per_command": 800}
    outcome = go(script, big, big, overall_token_budget=1000, budget_enforcement_mode="block")
    assert states(outcome) == [State.COMPLETED] * 2 and script.peak == 1
    assert any("i1 waits: overall budget" in message for message in outcome.messages)
    assert outcome.manager.overall is not None and outcome.manager.overall.held == 0


def test_waiting_for_one_budget_does_not_stop_others() -> None:
    script = Script(tokens=100)
    instances = (
        {"command": "/big", "max_tokens_per_command": 800},
        {"command": "/big", "max_tokens_per_command": 800},
        {"command": "/small", "max_tokens_per_command": 150},
    )
    go(script, *instances, command_budgets=["/big=1000"], budget_enforcement_mode="block")
    launches = [entry for entry in script.log if entry.startswith("launch")]
    assert launches == ["launch i0", "launch i2", "launch i1"]


def test_block_stops_all_that_draw_on_the_budget_and_refuses_the_rest() -> None:
    script = Script(tokens=3000)
    outcome = go(
        script,
        {"command": "wait"},
        {"command": "wait"},
        {"command": "/later"},
        overall_token_budget=5000,
        budget_enforcement_mode="block",
        max_parallel=2,
    )
    assert states(outcome) == [State.STOPPED, State.STOPPED, State.BLOCKED]
    assert "overall budget: used 6,002/5,000" in outcome.instances[0].reason
    said = [message for message in outcome.messages if message.startswith(("ERROR: BLOCK", "WARNING"))]
    assert said[0] == "WARNING: Budget exceeded for overall session (used: 6002/5000 tokens)"
    assert "ERROR: BLOCK MODE: Budget exceeded for instance i2. Skipping. (overall budget: " in said[-1]


def test_a_command_budget_leaves_other_commands_alone() -> None:
    script = Script(tokens=3000)
    outcome = go(
        script, {"command": "/a"}, {"command": "/b"}, command_budgets=["/a=2000"], budget_enforcement_mode="block"
    )
    assert states(outcome) == [State.STOPPED, State.COMPLETED]


def test_warn_says_so_once_for_each_budget() -> None:
    script = Script(tokens=3000)
    outcome = go(script, {"command": "/a"}, {"command": "/a"}, overall_token_budget=5000, command_budgets=["a=2500"])
    warnings = [message for message in outcome.messages if message.startswith("WARNING")]
    assert states(outcome) == [State.COMPLETED] * 2 and len(warnings) == 2
    assert "WARNING: Budget exceeded for /a command (used: 3001/2500 tokens)" in warnings


def test_the_last_response_may_pass_the_budget_of_a_finished_instance() -> None:
    """The work is done when the CLI's final count shows more than was seen: nothing is left to stop."""
    script = Script(tokens=900)

    class Late(ScriptedRunning):
        def result(self, *, is_error: bool) -> None:
            base = {"type": "result", "subtype": "success", "is_error": False, "num_turns": 1}
            self.emit({**base, "modelUsage": {"m": {"inputTokens": 5000, "outputTokens": 1}}})

    class LateScript(Script):
        async def launch(self, spec: LaunchSpec) -> ScriptedRunning:
            return Late(self, spec)

    outcome = go(LateScript(900), {"command": "/a"}, overall_token_budget=1000, budget_enforcement_mode="block")
    assert states(outcome) == [State.COMPLETED] and outcome.manager.total_usage == 5001
    assert script.log == []


def test_own_budget_is_the_instances_max_tokens() -> None:
    outcome = go(Script(3000), {"command": "/a", "max_tokens_per_command": 2000}, budget_enforcement_mode="block")
    assert states(outcome) == [State.STOPPED] and "instance i0 budget" in outcome.only.reason
    # an explicit budget for its command stands instead
    setup = {"command": "/a", "max_tokens_per_command": 2000}
    outcome = go(Script(3000), setup, command_budgets=["/a=9000"], budget_enforcement_mode="block")
    assert states(outcome) == [State.COMPLETED]


def test_weights_draw_on_the_budgets() -> None:
    outcome = go(Script(1000), {"command": "/a"}, overall_token_budget=10**6, token_weights="input=2.5,output=10")
    assert outcome.manager.total_usage == 2500 + 10 and outcome.only.usage.total_tokens == 1001


def test_timeout_and_first_cause_wins() -> None:
    outcome = go(Script(), {"command": "wait", "timeout_s": 0.05})
    assert states(outcome) == [State.TIMED_OUT] and outcome.only.reason == "timed out after 0.05 s"


def test_cancel_stops_what_runs_and_what_waits() -> None:
    script = Script()

    def cancel_soon(supervisor: Supervisor) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(0.05, supervisor.cancel, "cancelled by test")
        loop.call_later(0.06, lambda: supervisor.cancel("again", at_once=True))

    outcome = go(script, {"command": "wait"}, {"command": "wait"}, max_parallel=1, at_start=cancel_soon)
    assert states(outcome) == [State.CANCELLED] * 2 and outcome.instances[0].reason == "cancelled by test"
    assert script.log == ["launch i0", "i0: wait", "stop i0"] or script.log[-1] == "stop i0"


def test_what_cannot_be_launched_fails_alone() -> None:
    outcome = go(Script(fail=OSError(11, "Resource temporarily unavailable")), {"command": "/a"}, {"command": "/b"})
    assert states(outcome) == [State.FAILED] * 2
    assert outcome.instances[0].reason == "cannot be launched: Resource temporarily unavailable"


def test_exit_without_result_is_failed_and_inexact() -> None:
    class Leaving(ScriptedRunning):
        def send(self, message: Mapping[str, Any]) -> None:
            super().send(message)
            if message["type"] == "user":
                self.close_input()

    class LeavingScript(Script):
        async def launch(self, spec: LaunchSpec) -> ScriptedRunning:
            return Leaving(self, spec)

    outcome = go(LeavingScript(silent=True), {"command": "/a"})
    assert states(outcome) == [State.FAILED] and "without a result" in outcome.only.reason
    assert outcome.only.usage.total_tokens == 1001 and not outcome.only.tally.exact


@pytest.mark.parametrize("count", [1, 40])
def test_rehearsal_spends_exactly_what_is_asked(count: int) -> None:
    entries = [
        {"name": f"i{n}", "prompt": "x", "rehearsal": {"tokens": 1000 + n, "seconds": 0.05, "turns": 3, "seed": n}}
        for n in range(count)
    ]
    outcome = run_config({"instances": entries}, SimulatedLauncher(), workspace=WORK, max_parallel=count)
    assert [status.total_tokens for status in outcome.instances] == [1000 + n for n in range(count)]
    assert all(status.state is State.COMPLETED and status.tally.exact for status in outcome.instances)
    again = run_config({"instances": entries}, SimulatedLauncher(), workspace=WORK, max_parallel=count)
    assert [status.usage for status in again.instances] == [status.usage for status in outcome.instances]


def test_rehearsal_is_stopped_by_a_budget_like_the_real_thing() -> None:
    entry = {"name": "a", "prompt": "x", "rehearsal": {"tokens": 10_000, "seconds": 0.2, "turns": 10}}
    outcome = run_config(
        {"instances": [entry]},
        SimulatedLauncher(),
        workspace=WORK,
        overall_token_budget=5000,
        budget_enforcement_mode="block",
    )
    assert states(outcome) == [State.STOPPED]
    assert 5000 < outcome.only.usage.total_tokens < 8000


def test_fail_fast_stops_the_others() -> None:
    script = Script()
    outcome = go(script, {"command": "broken"}, {"command": "wait"}, {"command": "/a"}, max_parallel=2, fail_fast=True)
    assert states(outcome) == [State.FAILED, State.CANCELLED, State.CANCELLED]
    assert outcome.instances[1].reason == "cancelled because i0 failed"
    assert states(go(Script(), {"command": "broken"}, {"command": "/a"})) == [State.FAILED, State.COMPLETED]


def test_silence_is_noticed_and_answers_are_none() -> None:
    """A stalled CLI still answers questions for its count."""

    class Answering(ScriptedRunning):
        def send(self, message: Mapping[str, Any]) -> None:
            super().send(message)
            if message["type"] == "control_request":
                session = {"total_cost_usd": 0, "model_usage": {}}
                response = {"subtype": "success", "request_id": "usage", "response": {"session": session}}
                self.emit({"type": "control_response", "response": response})

    class AnsweringScript(Script):
        async def launch(self, spec: LaunchSpec) -> ScriptedRunning:
            return Answering(self, spec)

    def ask_all(supervisor: Supervisor) -> None:
        for runner in supervisor._runners.values():
            runner._poller.ask()

    def ask_often(supervisor: Supervisor) -> None:
        loop = asyncio.get_running_loop()
        for number in range(20):
            loop.call_later(number * 0.02, ask_all, supervisor)

    outcome = go(AnsweringScript(), {"command": "wait"}, idle_timeout_s=0.2, at_start=ask_often)
    assert states(outcome) == [State.TIMED_OUT] and outcome.only.reason == "stalled: nothing printed for 0.2 s"


class WithSubagent(ScriptedRunning):
    """Its turn calls a subagent, whose first response has ended and whose second one never does."""

    def send(self, message: Mapping[str, Any]) -> None:
        super().send(message)
        if message["type"] == "user":
            usage = {"input_tokens": self.script.tokens, "output_tokens": 1}
            tools = [{"type": "tool_use", "id": "t2", "name": "Bash", "input": {}}]
            response = {"id": f"{self.spec.name}-sub", "model": "m", "content": tools, "usage": usage}
            self.emit({"type": "assistant", "message": response, "parent_tool_use_id": "t1"})
            result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t2", "content": "done"}]}
            self.emit({"type": "user", "message": result, "parent_tool_use_id": "t1"})


class SubagentScript(Script):
    async def launch(self, spec: LaunchSpec) -> ScriptedRunning:
        return WithSubagent(self, spec)


def test_responses_of_subagents_in_progress_count_when_a_run_is_stopped() -> None:
    block = {"budget_enforcement_mode": "block", "max_parallel": 1}
    outcome = go(SubagentScript(), {"command": "wait"}, {"command": "wait"}, overall_token_budget=2500, **block)
    assert states(outcome) == [State.STOPPED, State.BLOCKED]
    assert outcome.instances[0].reason == (
        "stopped by budget: overall budget: used 2,002/2,500 tokens and at least 1,000 tokens of responses in progress"
    )


def test_with_room_for_the_responses_in_progress_nothing_is_stopped() -> None:
    block = {"budget_enforcement_mode": "block", "timeout_s": 0.3}
    outcome = go(SubagentScript(), {"command": "wait"}, overall_token_budget=3002, **block)
    assert states(outcome) == [State.TIMED_OUT]


def test_in_warn_mode_nothing_is_foreseen() -> None:
    outcome = go(SubagentScript(), {"command": "wait"}, overall_token_budget=2500, timeout_s=0.3)
    assert states(outcome) == [State.TIMED_OUT]


def test_a_margin_stops_a_run_before_its_limit() -> None:
    block = {"budget_enforcement_mode": "block", "max_parallel": 1, "stop_margin": 10.0}
    outcome = go(Script(), *[{"command": "wait"}] * 2, overall_token_budget=1100, **block)
    assert states(outcome) == [State.STOPPED, State.BLOCKED]
    assert outcome.instances[0].reason == (
        "stopped by budget: overall budget: used 1,001/1,100 tokens, with a margin of 10 %"
    )
