"""Silence is noticed, and an end without a result is a failure with its last words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from claude_orchestrator.engine.state import State
from tests.harness import Workplace, alive, content_of, run_config, run_real
from tests.limits import HUNG_S
from tests.scripted import Script
from tests.stand_in import StandIn, Text


def test_an_instance_that_prints_nothing_is_stopped_as_stalled(place: Workplace) -> None:
    hanging = {"name": "one", "prompt": "x", "env": {"FAKE_CLAUDE": "hang"}}
    setup = {"instances": [hanging, {"name": "two", "prompt": "y"}]}
    done = place.run("--config", place.config(setup), "--idle-timeout", "1", "--report", "report.json")
    one, two = place.report()["instances"]
    assert done.returncode == 1 and two["status"] == "completed"
    assert one["status"] == "timed_out" and one["reason"] == "stalled: nothing printed for 1 s"
    assert not one["usage"]["exact"] and one["usage"]["total_tokens"] == 1001  # what had begun is counted


def test_an_instance_that_prints_nothing_after_its_start_is_stopped_too(place: Workplace) -> None:
    setup = {"instances": [{"name": "one", "prompt": "x", "env": {"FAKE_CLAUDE": "never-speaks"}}]}
    place.run("--config", place.config(setup), "--idle-timeout", "1", "--report", "report.json")
    assert place.report()["instances"][0]["reason"] == "stalled: nothing printed for 1 s"


def test_an_instance_that_never_prints_anything_has_failed(tmp_path: Path) -> None:
    """One that has spoken may be silent for longer."""
    instances = [{"name": "a", "prompt": "mute"}, {"name": "b", "prompt": "wait", "timeout_s": 0.5}]
    outcome = run_config({"instances": instances}, Script(), workspace=tmp_path, startup_timeout_s=0.1)
    assert [status.state for status in outcome.instances] == [State.FAILED, State.TIMED_OUT]
    assert outcome.instances[0].reason == "printed nothing within 0.1 s of its start"


@pytest.mark.slow
def test_a_paused_orchestrator_does_not_take_its_own_pause_for_a_stall(place: Workplace) -> None:
    """What the instance printed meanwhile waits in the pipe."""
    env = {"FAKE_SECONDS": "3"}
    setup = {"instances": [{"name": "one", "prompt": "x", "env": env}]}
    argv = place.argv("--config", place.config(setup), "--idle-timeout", "4", "--report", "report.json", "--quiet")
    process = subprocess.Popen(argv, env=place.env, cwd=place.root, stdout=subprocess.DEVNULL)
    content_of(place.root / "turns.json", process)
    process.send_signal(signal.SIGSTOP)
    time.sleep(6)  # longer than the idle timeout
    process.send_signal(signal.SIGCONT)
    assert process.wait(timeout=HUNG_S) == 0 and place.report()["instances"][0]["status"] == "completed"


@pytest.mark.parametrize(
    ("scenario", "reason"),
    [
        ("crash", "exited with code 1 and without a result: something went wrong | badly"),
        ("no-result", "exited with code 0 and without a result: fatal: lost my way"),
        ("half-result", "exited with code 0 and without a result"),
    ],
)
def test_an_end_without_a_whole_result_is_failed_with_its_last_words(
    place: Workplace, scenario: str, reason: str
) -> None:
    setup = {"instances": [{"name": "one", "prompt": "x", "env": {"FAKE_CLAUDE": scenario}}]}
    done = place.run("--config", place.config(setup), "--report", "report.json")
    (instance,) = place.report()["instances"]
    assert done.returncode == 1 and instance["status"] == "failed" and instance["reason"].startswith(reason)
    assert f"one: failed: {reason}" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--idle-timeout", "--timeout"])
def test_a_process_that_does_not_leave_when_its_work_is_done_has_completed(place: Workplace, option: str) -> None:
    setup = {"instances": [{"name": "one", "command": "/test", "env": {"FAKE_CLAUDE": "lingers"}}]}
    limits = (option, "1.5", "--grace", "0.5", "--retries", "2", "--report", "report.json")
    assert place.run("--config", place.config(setup), *limits).returncode == 0
    (one,) = place.report()["instances"]
    assert (one["status"], one["attempts"], one["usage"]["total_tokens"]) == ("completed", 1, 1050)
    assert not any(map(alive, json.loads((place.root / "pids.json").read_text())))


@pytest.mark.slow
def test_a_process_that_closes_its_output_and_stays_is_ended(place: Workplace) -> None:
    setup = {"instances": [{"name": "one", "command": "/test", "env": {"FAKE_CLAUDE": "closes-its-output"}}]}
    done = place.run("--config", place.config(setup), "--grace", "0.5", "--report", "report.json")
    assert done.returncode == 1 and "without a result" in place.report()["instances"][0]["reason"]
    assert not any(map(alive, json.loads((place.root / "pids.json").read_text())))


def test_killed_by_somebody_else_is_failed(place: Workplace) -> None:
    setup = {"instances": [{"name": "one", "prompt": "x", "env": {"FAKE_CLAUDE": "hang"}}]}
    argv = place.argv("--config", place.config(setup), "--report", "report.json", "--quiet")
    process = subprocess.Popen(argv, env=place.env, cwd=place.root, stdout=subprocess.DEVNULL)
    pids = json.loads(content_of(place.root / "pids.json", process))
    os.kill(pids[0], signal.SIGKILL)
    assert process.wait(timeout=HUNG_S) == 1
    (instance,) = place.report()["instances"]
    assert instance["status"] == "failed" and instance["exit_code"] == -9
    assert instance["reason"] == "exited with code -9 and without a result"


@pytest.mark.slow
@pytest.mark.real_cli
def test_a_real_stall_in_the_middle_of_a_response(claude: str, tmp_path: Path) -> None:
    """Measured: the CLI itself is still silent after 100 s. Here the API stops in the middle of its text."""
    gate = threading.Event()
    with StandIn({"AMBER": [Text("one two three four", gate=gate, pings=False)]}) as api:
        entry = {"name": "one", "prompt": "AMBER work"}
        outcome = run_real({"instances": [entry]}, api, claude, tmp_path, idle_timeout_s=8.0, grace_s=2.0)
        gate.set()
        assert outcome.only.state is State.TIMED_OUT and outcome.only.reason == "stalled: nothing printed for 8 s"
        assert outcome.only.usage.counts[0] == api.billed().input_tokens and not outcome.only.exact
