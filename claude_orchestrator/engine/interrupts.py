"""What stops a run from outside: the signals of this process, or the code that called the run."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Callable

from claude_orchestrator.engine.bus import Bus

STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
OnStop = Callable[[str, bool], None]


class StopSwitch:
    """Stops a run from any thread, also before the run has begun."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: list[tuple[str, bool]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_stop: OnStop | None = None

    def stop(self, reason: str, *, at_once: bool = False) -> None:
        """Stop everything; `at_once` leaves no grace time. The reason is shown with each instance that it ends."""
        with self._lock:
            if self._loop is None or self._on_stop is None:
                self._asked.append((reason, at_once))
            else:
                with contextlib.suppress(RuntimeError):  # the run has ended, and its loop is closed
                    self._loop.call_soon_threadsafe(self._on_stop, reason, at_once)

    def connect(self, on_stop: OnStop) -> None:
        """Pass every stop, earlier ones too, to `on_stop` in the running event loop."""
        with self._lock:
            self._loop, self._on_stop = asyncio.get_running_loop(), on_stop
            for stop in self._asked:
                self._loop.call_soon(on_stop, *stop)


class Interrupts:
    """Passes each stop to `on_stop(reason, at_once)`: those of a switch, or the stop signals of this process."""

    def __init__(self, bus: Bus) -> None:
        self.signal: signal.Signals | None = None
        self._bus = bus
        self._stops: list[tuple[str, bool]] = []
        self._on_stop: OnStop | None = None
        self._came = asyncio.Event()

    @property
    def came(self) -> bool:
        """Whether a stop has come."""
        return bool(self._stops)

    def catch(self, switch: StopSwitch | None) -> None:
        """Listen in the running event loop. With a switch, signals stay the business of the caller."""
        if switch is not None:
            switch.connect(self.stop)
            return
        loop = asyncio.get_running_loop()
        for name in STOP_SIGNALS:
            number = getattr(signal, name, None)
            if number is not None and sys.platform != "win32":
                if name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN:
                    continue  # nohup
                loop.add_signal_handler(number, self._signalled, number)

    def pass_to(self, on_stop: OnStop) -> None:
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

    def _signalled(self, number: signal.Signals) -> None:
        at_once = self.signal is not None
        self.signal = self.signal or number
        how = "immediately" if at_once else "gracefully; a second signal stops immediately"
        self._bus.warn(f"{number.name}: stopping {how}")
        self.stop(f"cancelled by {number.name}", at_once)

    def stop(self, reason: str, at_once: bool) -> None:
        """Pass on a stop, or keep it until somebody can take it."""
        self._stops.append((reason, at_once))
        self._came.set()
        if self._on_stop is not None:
            self._on_stop(reason, at_once)
