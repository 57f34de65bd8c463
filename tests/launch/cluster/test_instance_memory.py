"""What an instance is expected to take, by values."""

from __future__ import annotations

import pytest

from claude_orchestrator.launch.cluster.instance_memory import ASSUMED_BYTES, MIB, RUNS, InstanceMemory, recalled


def test_before_anything_was_measured_a_figure_is_assumed() -> None:
    memory = InstanceMemory()
    assert memory.expected_bytes == ASSUMED_BYTES and memory.text == "400 MiB assumed"
    assert not memory.saw([]) and memory.remembered() is None


def test_the_largest_that_was_measured_counts() -> None:
    memory = InstanceMemory()
    assert not memory.saw([200 * MIB, 312 * MIB - 1])  # less than was assumed
    assert memory.text == "312 MiB measured"
    assert not memory.saw([100 * MIB]) and memory.saw([313 * MIB]) and memory.expected_bytes == 313 * MIB


def test_the_last_runs_count_and_an_unusual_one_is_forgotten() -> None:
    runs = (5000 * MIB, *(300 * MIB for _ in range(RUNS - 1)))
    memory = InstanceMemory(runs)
    assert memory.expected_bytes == 5000 * MIB and memory.text == "5000 MiB measured"
    assert not memory.saw([310 * MIB])
    kept = memory.remembered()
    assert kept is not None
    again = recalled(kept.decode())
    assert len(again) == RUNS and InstanceMemory(again).expected_bytes == 310 * MIB


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[]",
        "7",
        '{"largest_instance_bytes": 7}',
        '{"largest_instance_bytes": [true, "9", 0, -1, 1e9, null, 99999999999999999]}',
    ],
)
def test_a_damaged_file_says_nothing(text: str) -> None:
    assert recalled(text) == ()
