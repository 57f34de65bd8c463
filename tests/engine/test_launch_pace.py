"""Launches are spread after a rate limit, with a delay that grows, and come closer again when it is quiet."""

from __future__ import annotations

from pathlib import Path

from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.engine.launch_pace import FIRST_S, LONGEST_S, QUIET_S, LaunchPace
from claude_orchestrator.engine.run_events import Launched, Paced, RunEvent
from claude_orchestrator.engine.state import State
from tests.harness import run_config
from tests.scripted import Script, ScriptedRunning


def test_nothing_is_spread_before_a_refusal() -> None:
    pace = LaunchPace()
    assert pace.delay_s(5.0) == 0 and pace.next_at(5.0) == 5.0 and pace.describe(5.0) is None


def test_the_delay_grows_with_each_refusal_and_has_a_bound() -> None:
    pace, now, delays = LaunchPace(), 100.0, []
    for _ in range(8):
        pace.refused(now)
        delays.append(pace.delay_s(now))
        assert not pace.refused(now + 0.1)  # others at the same moment
        now += delays[-1]
    assert delays == [FIRST_S, 4, 8, 16, 32, LONGEST_S, LONGEST_S, LONGEST_S]


def test_the_next_launch_comes_a_delay_after_the_last() -> None:
    pace = LaunchPace()
    assert pace.refused(10.0)
    assert pace.next_at(10.0) == 10 + FIRST_S
    pace.launched(13.0)
    assert pace.next_at(13.0) == 13 + FIRST_S
    assert pace.describe(13.0) == "launches are at least 2 s apart, because the API refuses requests"


def test_quiet_brings_launches_together_again() -> None:
    pace = LaunchPace()
    pace.refused(0.0)
    pace.refused(2.0)
    assert pace.delay_s(2.0) == 4 and pace.delay_s(2 + QUIET_S) == 2 and pace.delay_s(2 + 3 * QUIET_S) == 0


class Refused(Script):
    """Instances whose first request is refused by a rate limit, as the CLI reports it."""

    async def launch(self, spec: LaunchSpec) -> ScriptedRunning:
        running = await super().launch(spec)
        retry = {"attempt": 1, "max_retries": 10, "error_status": 429, "error": "rate_limit"}
        running.emit({"type": "system", "subtype": "api_retry", **retry})
        return running


def test_a_refusal_in_the_stream_spreads_the_launches_after_it(tmp_path: Path) -> None:
    events: list[RunEvent] = []
    config = {"instances": [{"name": name, "prompt": "Go"} for name in ("one", "two")]}
    outcome = run_config(config, Refused(), workspace=tmp_path, on_event=events.append, max_parallel=1)
    seen = [event.text if isinstance(event, Paced) else "" for event in events if isinstance(event, Paced | Launched)]
    text = "launches are at least 2 s apart, because the API refuses requests"
    assert seen[:4] == ["", text, None, ""]  # then nothing is left to launch
    assert f"WARNING: {text}" in outcome.messages
    assert all(status.state is State.COMPLETED for status in outcome.instances)
