"""The signals that stop a run: the first one gracefully, the second one immediately."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable

from claude_orchestrator.engine.bus import Bus

STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


class Interrupts:
    """Catches the stop signals of this process and passes each to `on_stop(reason, at_once)`."""

    def __init__(self, bus: Bus) -> None:
        self.signal: signal.Signals | None = None
        self._bus = bus
        self._stops: list[tuple[str, bool]] = []
        self._on_stop: Callable[[str, bool], None] | None = None
        self._came = asyncio.Event()

    def catch(self) -> None:
        """Install the handlers in the running event loop."""
        loop = asyncio.get_running_loop()
        for name in STOP_SIGNALS:
            number = getattr(signal, name, None)
            if number is not None and sys.platform != "win32":
                if name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN:
                    continue  # nohup
                loop.add_signal_handler(number, self._stop, number)

    def pass_to(self, on_stop: Callable[[str, bool], None]) -> None:
        """Pass on every stop, including those that came before this call."""
        self._on_stop = on_stop
        for reason, at_once in self._stops:
            on_stop(reason, at_once)

    async def sleep(self, seconds: float) -> None:
        """Sleep, or return early when a stop has come."""
        try:
            await asyncio.wait_for(self._came.wait(), seconds)
        except TimeoutError:
            return

    def _stop(self, number: signal.Signals) -> None:
        at_once = self.signal is not None
        self.signal = self.signal or number
        self._came.set()
        how = "immediately" if at_once else "gracefully; a second signal stops immediately"
        self._bus.warn(f"{number.name}: stopping {how}")
        stop = f"cancelled by {number.name}", at_once
        self._stops.append(stop)
        if self._on_stop is not None:
            self._on_stop(*stop)
