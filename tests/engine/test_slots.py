"""How many more instances may start."""

from __future__ import annotations

from claude_orchestrator.engine.slots import Slots


def test_those_that_run_take_their_places() -> None:
    assert [Slots(3).free(running) for running in range(4)] == [3, 2, 1, 0]


def test_a_pause_lets_nothing_start_until_it_ends() -> None:
    slots = Slots(3)
    slots.pause()
    assert slots.paused and slots.free(1) == 0
    slots.pause(False)
    assert not slots.paused and slots.free(1) == 2


def test_fewer_places_than_instances_let_nothing_start() -> None:
    slots = Slots(3)
    slots.allow(1)
    assert slots.free(3) <= 0 and slots.free(0) == 1
    slots.allow(5)
    assert slots.free(3) == 2
