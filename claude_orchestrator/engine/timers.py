"""The timers of one attempt at an instance: named, replaceable, and able to pause."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from token_budget.named_tuples import NamedTuple

LATE_S = 1.0


class _Paused(NamedTuple):
    """What is left of a paused timer."""

    left_s: float
    call: Callable[[], None]


class Timers:
    """At most one timer of each name. It calls in the event loop."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[asyncio.TimerHandle, Callable[[], None]]] = {}
        self._paused: dict[str, _Paused] = {}

    def set(self, name: str, delay_s: float, call: Callable[[], None]) -> None:
        """Call in `delay_s`. This replaces the timer of that name."""
        self.cancel(name)
        self._running[name] = (asyncio.get_running_loop().call_later(delay_s, call), call)

    def set_punctual(self, name: str, delay_s: float, call: Callable[[], None]) -> None:
        """Call in `delay_s`. If the orchestrator itself was suspended meanwhile, begin again: unread output may
        wait."""
        due = asyncio.get_running_loop().time() + delay_s

        def call_unless_late() -> None:
            if asyncio.get_running_loop().time() - due > LATE_S:
                self.set_punctual(name, delay_s, call)
            else:
                call()

        self.set(name, delay_s, call_unless_late)

    def cancel(self, name: str) -> None:
        """Forget the timer of that name, if there is one."""
        self._paused.pop(name, None)
        if name in self._running:
            self._running.pop(name)[0].cancel()

    def was_set(self, name: str) -> bool:
        """Whether a timer of that name was set, and not cancelled since. It may have called."""
        return name in self._running

    def pause(self, name: str) -> None:
        """Pause the timer."""
        if name in self._running:
            timer, call = self._running[name]
            left_s = timer.when() - asyncio.get_running_loop().time()
            if left_s > 0:
                self.cancel(name)
                self._paused[name] = _Paused(left_s, call)

    def resume(self, name: str) -> None:
        """Continue the timer, if it is paused."""
        if name in self._paused:
            paused = self._paused.pop(name)
            self.set(name, paused.left_s, paused.call)

    def close(self) -> None:
        """Forget all of them."""
        for name in [*self._running, *self._paused]:
            self.cancel(name)
