"""Timers by name, on a loop whose clock the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from claude_orchestrator.engine.timers import LATE_S, Timers


class SteppedLoop(asyncio.SelectorEventLoop):
    """A loop in which time passes only when a test says so."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def after(self, seconds: float) -> None:
        """Let time pass, and call what is due."""
        self.now += seconds
        for _ in range(3):
            self.run_until_complete(asyncio.sleep(0))

    def inside(self, call: Callable[[], None]) -> None:
        """Call something in the loop."""

        async def once() -> None:
            call()

        self.run_until_complete(once())


class Clockwork:
    """Timers in such a loop, and what they have called."""

    def __init__(self) -> None:
        self.loop = SteppedLoop()
        self.timers = Timers()
        self.called: list[str] = []

    def set(self, name: str, delay_s: float, *, punctual: bool = False) -> None:
        call = self.timers.set_punctual if punctual else self.timers.set
        self.loop.inside(lambda: call(name, delay_s, lambda: self.called.append(name)))

    def after(self, seconds: float) -> list[str]:
        """What is called while so much time passes."""
        self.loop.after(seconds)
        called, self.called = self.called, []
        return called


@pytest.fixture
def clock() -> Iterator[Clockwork]:
    clock = Clockwork()
    yield clock
    clock.loop.close()


def test_a_timer_calls_once_and_a_later_one_replaces_it(clock: Clockwork) -> None:
    clock.set("idle", 5)
    clock.set("exit", 3)
    assert clock.after(3) == ["exit"]
    clock.set("idle", 5)
    assert clock.after(4) == [] and clock.after(1) == ["idle"]
    assert clock.timers.was_set("idle") and not clock.timers.was_set("linger")
    clock.timers.cancel("idle")
    clock.timers.cancel("idle")
    assert not clock.timers.was_set("idle") and clock.after(100) == []


def test_a_paused_timer_has_the_time_left_that_it_had(clock: Clockwork) -> None:
    clock.set("timeout", 10)
    clock.after(4)
    clock.loop.inside(lambda: clock.timers.pause("timeout"))
    assert clock.after(100) == []
    clock.loop.inside(lambda: clock.timers.resume("timeout"))
    assert clock.after(5) == [] and clock.after(1) == ["timeout"]
    clock.loop.inside(lambda: clock.timers.pause("timeout"))  # it has called: nothing is left
    clock.loop.inside(lambda: clock.timers.resume("timeout"))
    assert clock.after(100) == []


def test_a_timer_that_comes_late_begins_again(clock: Clockwork) -> None:
    clock.set("idle", 5, punctual=True)
    assert clock.after(5 + LATE_S / 2) == ["idle"]
    clock.set("idle", 5, punctual=True)
    assert clock.after(5 + 2 * LATE_S) == [] and clock.after(4) == [] and clock.after(1) == ["idle"]


def test_closed_timers_call_nothing(clock: Clockwork) -> None:
    clock.set("idle", 1)
    clock.set("timeout", 1)
    clock.loop.inside(lambda: clock.timers.pause("timeout"))
    clock.timers.close()
    clock.loop.inside(lambda: clock.timers.resume("timeout"))
    assert clock.after(10) == []
