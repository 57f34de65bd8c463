"""Few instances start at a time, as many as the machine has processors for. Time is a number here."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_orchestrator.engine.starts import LONGEST_START_S, SAMPLE_S, Starts
from claude_orchestrator.engine.state import State
from claude_orchestrator.engine.supervisor import Supervisor
from claude_orchestrator.launch.processors import IdleShare
from tests.harness import run_config, run_real
from tests.scripted import Script
from tests.stand_in import StandIn, Text


def busy() -> float:
    return 0.0


def started(starts: Starts, now: float, most: int = 9) -> int:
    """How many start at that moment."""
    for count in range(most):
        if starts.is_crowded(now):
            return count
        starts.began(f"{now} {count}", now)
    return most


def test_each_processor_has_one_start_until_its_first_request() -> None:
    starts = Starts(2, busy)
    assert started(starts, 0.0) == 2
    assert started(starts, 5.0) == 0
    starts.ended("0.0 1")
    starts.ended("of nobody")
    assert started(starts, 5.5) == 1


def test_what_idles_takes_one_more_each_time_that_it_is_looked_at() -> None:
    starts = Starts(4, lambda: 0.5)
    assert started(starts, 0.0) == 4 + 2
    assert started(starts, SAMPLE_S / 2) == 0
    assert started(starts, SAMPLE_S) == 2


def test_who_takes_long_waits_for_something_else() -> None:
    starts = Starts(1, busy)
    assert started(starts, 0.0) == 1
    assert started(starts, LONGEST_START_S) == 0
    assert started(starts, LONGEST_START_S + 0.1) == 1


def texts(*found: str) -> Iterator[str]:
    yield from found


def test_the_idle_share_is_that_of_the_time_since_the_last_look() -> None:
    lines = texts(
        "cpu  10 0 10 70 10 0 0 0 5 0\ncpu0 1 2 3",
        "cpu  20 0 20 140 20 0 0 0 9 0\n",
        "cpu  95 0 45 140 20 0 0 0 9 0\n",
        "cpu  95 0 45 140 20 0 0 0 9 0\n",
        "intr 1 2 3",
        "cpu  95 0 45 140 20 0 0 0 9 0\n",
    )
    share = IdleShare(lambda: next(lines))
    assert [share() for _ in range(5)] == [0.8, 0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("text", ["", "cpu", "cpu 1 2 x 4 5", "cpu 1 2 3"])
def test_where_nobody_knows_all_is_idle(text: str) -> None:
    assert IdleShare(lambda: text)() == 1.0


def test_a_machine_without_such_a_file_is_idle(tmp_path: Path) -> None:
    assert IdleShare((tmp_path / "none").read_text)() == 1.0


def test_launches_wait_while_the_machine_is_busy_with_starts() -> None:
    for starts, peak in ((Starts(1, busy), 1), (Starts(2, lambda: 1.0), 3)):
        script = Script(delay_s=0.05)
        config = {"instances": [{"name": f"i{n}", "prompt": "Go"} for n in range(3)]}
        outcome = run_config(config, script, workspace=Path("/"), share_cache="off", starts=starts)
        assert script.peak == peak
        assert [status.state for status in outcome.instances] == [State.COMPLETED] * 3


@pytest.mark.real_cli
def test_the_first_request_ends_a_start(claude: str, tmp_path: Path) -> None:
    both = threading.Event()  # the first answer ends once the second instance runs

    def watch(supervisor: Supervisor) -> None:
        if all(status.state is State.RUNNING for status in supervisor.instances):
            both.set()

    config = {"instances": [{"name": f"i{n}", "prompt": f"task {n}"} for n in range(2)]}
    with StandIn({"task 0": [Text(gate=both)], "task 1": [Text()]}) as api:
        options = {"share_cache": "off", "meter": "api", "starts": Starts(1, busy)}
        outcome = run_real(config, api, claude, tmp_path, on_change=watch, **options)
    assert [status.state for status in outcome.instances] == [State.COMPLETED] * 2 and both.is_set()
