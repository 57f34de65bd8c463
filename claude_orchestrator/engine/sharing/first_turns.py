"""Holds back first turns until the shared prompt cache can be read. Processes start meanwhile.

The first instance with a beginning sends its turn. The others start their claude, and send theirs when the first
response begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.engine.sharing.start_order import StartOrder

WAITS_FOR_CACHE = "waits for the shared prompt cache"


class FirstTurns:
    """Decides when an instance may send its first turn. It waits for `wait_s` at most once the first has started."""

    def __init__(self, wait_s: float, clock: Callable[[], float]) -> None:
        self._order = StartOrder(wait_s)
        self._clock = clock
        self._waiting: dict[str, tuple[LaunchSpec, Callable[[], None]]] = {}  # the first one first
        self._timer: asyncio.TimerHandle | None = None

    def may_begin(self, spec: LaunchSpec, begin: Callable[[], None]) -> bool:
        """Whether the instance may send its first turn now; else `begin` is called when it may."""
        now = self._clock()
        wait_s = self._order.wait_s(spec, now)
        if wait_s <= 0:
            self._order.launched(spec, now)
            return True
        self._order.waits(spec, now)
        self._waiting[spec.name] = spec, begin
        self._recheck_in(wait_s)
        return False

    def started(self, name: str) -> None:
        """The claude of the instance has started."""
        if self._order.started(name, self._clock()):
            self._recheck()

    def responded(self, name: str) -> None:
        """A response of the instance has begun: what it writes can be read."""
        if self._order.responded(name, self._clock()):
            self._recheck()

    def ended(self, name: str) -> None:
        """The instance has ended: nobody waits for it."""
        self._waiting.pop(name, None)
        self._order.ended(name)
        self._recheck()

    def _recheck(self) -> None:
        """Start those that need not wait any longer, in order."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now, left_s = self._clock(), []
        for name, (spec, begin) in list(self._waiting.items()):
            wait_s = self._order.wait_s(spec, now)
            if wait_s > 0:
                left_s.append(wait_s)
            elif self._waiting.pop(name, None) is not None:
                self._order.launched(spec, now)
                begin()
        if left_s:
            self._recheck_in(min(left_s))

    def _recheck_in(self, seconds: float) -> None:
        """Check again after this time, unless a check is due earlier."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + seconds:
                return
            self._timer.cancel()
        self._timer = loop.call_later(seconds, self._recheck)
