"""Delivers alerts to sinks, in a thread of its own. A delivery never slows or fails a run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from token_budget.usage.alert_sinks import AlertSink, reason_of

MAX_QUEUED = 1_000
CLOSE_TIMEOUT_S = 5.0
_LAST_WAIT_S = 1.0


class DeliveryThread:
    """Gives alerts to sinks, one after the other, from one daemon thread.

    `complain` gets one line for each kind of failure, once. The thread may call it.
    """

    def __init__(self, sinks: Sequence[AlertSink], complain: Callable[[str], None]) -> None:
        self._sinks = tuple(sinks)
        self._complain = complain
        self._complained: set[str] = set()
        self._queue: SimpleQueue[dict[str, object] | None] = SimpleQueue()
        self._closed = False
        self._abandoned = threading.Event()
        self._thread: threading.Thread | None = None
        if self._sinks:
            thread = threading.Thread(target=self._work, name="alert-delivery", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                complain(f"alerts: {error}: they go to the log alone")
            else:
                self._thread = thread

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def put(self, payload: Mapping[str, object]) -> None:
        """Queue one alert and return at once. A full queue drops it. Its `id` is the idempotency key."""
        if self._thread is None or self._closed:
            return
        if self._queue.qsize() >= MAX_QUEUED:
            self._complain_once("queue", f"alerts: more than {MAX_QUEUED:,} are waiting for their sinks: some are lost")
            return
        self._queue.put(dict(payload))

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Wait at most so long for queued alerts, then drop the rest and end the running delivery (within 1 s more)."""
        if self._thread is None or self._closed:
            return
        self._closed = True
        self._queue.put(None)
        try:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                self._complain_once("close", f"alerts: not all were delivered within {timeout_s:g} s of the end")
        finally:  # a Ctrl-C while waiting must not leave a command behind
            self._abandoned.set()
        self._thread.join(_LAST_WAIT_S)

    def _work(self) -> None:
        while (payload := self._queue.get()) is not None and not self._abandoned.is_set():
            for sink in self._sinks:
                if not self._abandoned.is_set():
                    self._try(sink, payload)

    def _try(self, sink: AlertSink, payload: dict[str, object]) -> None:
        """Send it, and report the first failure of each sink."""
        try:
            failure = sink.deliver(payload, self._abandoned)
        except Exception as error:  # the thread must survive for the next alert
            failure = reason_of(error)
        if failure is not None and not self._abandoned.is_set():
            self._complain_once(sink.name, f"{sink.name}: {failure}: an alert was not delivered (reported once)")

    def _complain_once(self, what: str, line: str) -> None:
        if what not in self._complained:
            self._complained.add(what)
            with suppress(Exception):  # to complain must not fail the run either
                self._complain(line)
