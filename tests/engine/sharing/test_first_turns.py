"""When first turns that wait for the shared prompt cache are let go, on a loop whose clock the test moves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.engine.sharing.first_turns import FirstTurns
from tests.engine.sharing.test_start_order import WAIT_S, A, B, spec
from tests.engine.test_timers import SteppedLoop


class Starts:
    """First turns in such a loop, and those that have begun."""

    def __init__(self) -> None:
        self.loop = SteppedLoop()
        self.turns = FirstTurns(WAIT_S, self.loop.time)
        self.begun: list[str] = []

    def ask(self, spec: LaunchSpec) -> None:
        def call() -> None:
            if self.turns.may_begin(spec, lambda: self.begun.append(spec.name)):
                self.begun.append(spec.name)

        self.loop.inside(call)

    def after(self, seconds: float) -> list[str]:
        """Those that begin while so much time passes."""
        self.loop.after(seconds)
        begun, self.begun = self.begun, []
        return begun


@pytest.fixture
def starts() -> Iterator[Starts]:
    starts = Starts()
    yield starts
    starts.loop.close()


def test_nobody_waits_longer_because_another_one_begins_to_wait(starts: Starts) -> None:
    starts.ask(A)
    starts.ask(B)
    starts.loop.inside(lambda: starts.turns.started("a"))
    assert starts.after(WAIT_S / 2) == ["a"]
    starts.ask(spec("c", model="haiku"))
    starts.ask(spec("d", model="haiku"))
    starts.loop.inside(lambda: starts.turns.started("c"))
    assert starts.after(WAIT_S / 2) == ["c", "b"]
    assert starts.after(WAIT_S / 2) == ["d"]


def test_they_wait_longer_while_the_claude_of_the_first_one_starts(starts: Starts) -> None:
    starts.ask(A)
    starts.ask(B)
    assert starts.after(2 * WAIT_S) == ["a"]
    starts.loop.inside(lambda: starts.turns.started("a"))
    assert starts.after(WAIT_S / 2) == []
    assert starts.after(WAIT_S / 2) == ["b"]
