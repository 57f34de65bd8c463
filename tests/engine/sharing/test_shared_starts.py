"""Runs whose instances share a prompt cache, with scripted instances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from claude_orchestrator.engine.activity import Activity, Doing
from claude_orchestrator.engine.run_events import Launched, RunEvent, UsageRecorded
from claude_orchestrator.engine.sharing.first_turns import WAITS_FOR_CACHE
from claude_orchestrator.engine.state import State
from claude_orchestrator.engine.supervisor import Supervisor
from tests.harness import Outcome, run_config
from tests.limits import HUNG_S
from tests.scripted import Script


class Starts:
    """What happened first: launches, waits and their ends, and the beginnings of responses."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.waited: set[str] = set()

    def on_event(self, event: RunEvent) -> None:
        match event:
            case Launched(status, _):
                self.order.append(f"+{status.name}")
            case Activity(name, Doing.STARTING, text) if text == WAITS_FOR_CACHE:
                self.waited.add(name)
            case Activity(name, Doing.STARTING) if name in self.waited:
                self.order.append(f">{name}")
            case UsageRecorded(status, delta) if delta.reads_input:
                self.order.append(f"={status.name}")
            case _:
                pass


def go(script: Script, *instances: dict[str, Any], **options: Any) -> tuple[Starts, Outcome]:
    starts = Starts()
    entries = [{"name": f"i{n}", **instance} for n, instance in enumerate(instances)]
    hook = starts.on_event
    outcome = run_config(
        {"instances": entries}, script, workspace=Path("/"), time_limit_s=HUNG_S, on_event=hook, **options
    )
    done = [status.state for status in outcome.instances if status.planned.command != "mute"]
    assert done == [State.COMPLETED] * len(done)
    return starts, outcome


ONE = {"command": "/a"}


def test_all_start_and_the_others_begin_when_the_first_response_begins() -> None:
    starts, _ = go(Script(delay_s=0.02), ONE, ONE, ONE)
    assert starts.order[:6] == ["+i0", "+i1", "+i2", "=i0", ">i1", ">i2"] and starts.waited == {"i1", "i2"}


def test_without_sharing_all_begin_at_once() -> None:
    starts, _ = go(Script(delay_s=0.02), ONE, ONE, ONE, share_cache="off")
    assert starts.order[:3] == ["+i0", "+i1", "+i2"] and not starts.waited


def test_another_model_begins_meanwhile() -> None:
    starts, _ = go(Script(delay_s=0.02), ONE, ONE, {**ONE, "model": "haiku"}, {**ONE, "model": "haiku"})
    assert starts.order[:4] == ["+i0", "+i1", "+i2", "+i3"] and starts.waited == {"i1", "i3"}


def test_those_that_wait_keep_their_slots() -> None:
    starts, _ = go(Script(delay_s=0.02), ONE, ONE, {**ONE, "model": "haiku"}, max_parallel=2)
    assert starts.order[:4] == ["+i0", "+i1", "=i0", ">i1"]


def test_those_that_wait_keep_their_place_at_a_budget() -> None:
    big = {**ONE, "max_tokens_per_command": 2000}
    other = {**big, "model": "haiku"}
    starts, _ = go(
        Script(tokens=500, delay_s=0.02),
        big,
        big,
        other,
        overall_token_budget=4500,
        hold_policy="off",
        budget_enforcement_mode="block",
    )
    assert starts.order[:4] == ["+i0", "+i1", "=i0", ">i1"]


def test_one_that_never_responds_is_waited_for_until_the_bound() -> None:
    mute = {"command": "mute", "timeout_s": 0.3}
    starts, outcome = go(Script(delay_s=0.02), mute, ONE, ONE, share_cache_wait_s=0.05)
    assert starts.order[3] == ">i1" and outcome.instances[0].state is State.TIMED_OUT


def test_one_that_ends_without_a_response_lets_the_next_one_lead() -> None:
    mute = {"command": "mute", "timeout_s": 0.05}
    starts, _ = go(Script(delay_s=0.02), mute, ONE, ONE)
    assert starts.order == ["+i0", "+i1", "+i2", ">i1", "=i1", ">i2", "=i2"]


def test_a_single_instance_never_waits() -> None:
    starts, _ = go(Script(delay_s=0.02), ONE)
    assert starts.order[0] == "+i0" and not starts.waited


def test_no_time_counts_while_one_waits() -> None:
    """Neither its own limit, nor that of silence, nor that of a start."""
    mute = {"command": "mute", "timeout_s": 1.2}
    limited = {**ONE, "timeout_s": 0.6}
    starts, outcome = go(
        Script(delay_s=0.02), mute, limited, share_cache_wait_s=1.0, idle_timeout_s=0.4, startup_timeout_s=0.4
    )
    assert starts.order[2] == ">i1" and outcome.instances[1].state is State.COMPLETED


def test_one_that_is_stopped_while_it_waits_is_waited_for_by_nobody() -> None:
    mute = {"command": "mute", "timeout_s": 0.3}

    def stop(supervisor: Supervisor) -> None:
        second = supervisor.instances[1]
        if second.activity is not None and second.activity.text == WAITS_FOR_CACHE and not second.ending:
            supervisor.stop(second, "enough")

    instances: list[dict[str, Any]] = [{"name": "i0", **mute}, {"name": "i1", **ONE}, {"name": "i2", **ONE}]
    config, script = {"instances": instances}, Script(delay_s=0.02)
    outcome = run_config(config, script, workspace=Path("/"), time_limit_s=HUNG_S, on_change=stop)
    assert [status.state for status in outcome.instances] == [State.TIMED_OUT, State.STOPPED, State.COMPLETED]
