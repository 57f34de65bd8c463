"""Reports a run to a collector by OTLP over HTTP. What is slow happens in threads, and never delays or fails a run."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

from token_budget.alerts import parse_webhook

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

    from claude_orchestrator.engine.control.run_control import RunControl
    from claude_orchestrator.engine.run_request import Door
    from claude_orchestrator.engine.run_view import RunView
    from token_budget.folders import Folder

OPTION = "--otlp"
EXTRA = "the extra otel (pip install 'claude-orchestrator[otel]')"
SEND_EVERY_MS = 10_000
INTERVAL_VARIABLE = "OTEL_METRIC_EXPORT_INTERVAL"
READ_EVERY_S = 2.0
SEND_S = 5.0  # for one request to the collector
LAST_WORDS_S = 3.0  # that the end of a run waits for the last ones at most
MOST_EVENTS = 1_000  # decisions and the like, of a run
MOST_CHARS = 300  # of a failure
LOGGER = "opentelemetry"


def parse_endpoint(text: str) -> str:
    """Check the base address of a collector, such as http://localhost:4318. Raises ValueError with one line."""
    url = parse_webhook(text, OPTION)
    if "?" in url or "#" in url or "@" in url.partition("//")[2].partition("/")[0]:
        raise ValueError(
            f"{OPTION}: expected an address such as http://localhost:4318, without a query or a password: "
            "OTEL_EXPORTER_OTLP_HEADERS can have credentials"
        )
    return url.rstrip("/")


def otlp_to(endpoint: str) -> Door:
    """What reports a run to a collector while it runs. Raises ValueError with one line."""
    base = parse_endpoint(endpoint)
    for needed in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"):
        if not _is_there(needed):
            raise ValueError(f"{OPTION}: needs {EXTRA}")

    def report(control: RunControl, folder: Folder) -> contextlib.AbstractAsyncContextManager[None]:
        return _reporting(base, control)

    return report


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@contextlib.asynccontextmanager
async def _reporting(base: str, control: RunControl) -> AsyncIterator[None]:
    from claude_orchestrator.engine.snapshot import Snapshots
    from claude_orchestrator.ui.metrics import metrics_of
    from claude_orchestrator.ui.otlp import names
    from claude_orchestrator.ui.otlp.observer import OtlpObserver, RunMetrics

    view = control.view
    snapshots = Snapshots(view)
    with _listening_to_complaints(base) as complaints:
        meters, traces = _providers(base, view)
        meter = meters.get_meter(names.SCOPE)
        observer = OtlpObserver(meter, traces.get_tracer(names.SCOPE), view.run_id, rehearsal=view.rehearsal)
        figures = RunMetrics(meter, metrics_of(snapshots.take(time.monotonic()), view.changes))
        control.watch(observer)

        def read() -> None:
            figures.put(metrics_of(snapshots.take(time.monotonic()), view.changes))
            complaints.report_to(control.complain)

        reading = asyncio.ensure_future(_repeat(read))
        try:
            yield
        finally:
            reading.cancel()
            read()
            observer.end()
            complaints.end()
            if not await _shut(meters, traces):
                complaints.say(f"it has not taken the last figures within {LAST_WORDS_S:g} s")
            complaints.report_to(control.complain)


async def _repeat(read: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(READ_EVERY_S)
        read()


def _providers(base: str, view: RunView) -> tuple[MeterProvider, TracerProvider]:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from claude_orchestrator import __version__
    from claude_orchestrator.ui.otlp import names

    about = {"service.version": __version__, names.RUN: view.run_id}
    resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME") or names.SERVICE, **about})
    every_ms = None if os.environ.get(INTERVAL_VARIABLE) else SEND_EVERY_MS
    sender = OTLPMetricExporter(endpoint=f"{base}/v1/metrics", timeout=SEND_S)
    reader = PeriodicExportingMetricReader(sender, export_interval_millis=every_ms)
    meters = MeterProvider([reader], resource, shutdown_on_exit=False)
    limits = SpanLimits(max_events=MOST_EVENTS)
    traces = TracerProvider(resource=resource, shutdown_on_exit=False, span_limits=limits)
    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{base}/v1/traces", timeout=SEND_S)))
    return meters, traces


async def _shut(meters: MeterProvider, traces: TracerProvider) -> bool:
    """Send what is left; False if that takes too long. The thread then stays behind, and ends with the program."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def shut() -> None:
        with contextlib.suppress(Exception):
            traces.shutdown()
        with contextlib.suppress(Exception):
            meters.shutdown(timeout_millis=LAST_WORDS_S * 1_000)
        with contextlib.suppress(RuntimeError):  # nobody waits any more
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=shut, name="otlp-end", daemon=True).start()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_WORDS_S):
            await done.wait()
    return done.is_set()


class _Complaints(logging.Handler):
    """Keeps the first failure that the SDK logs, in place of lines on the terminal."""

    def __init__(self, base: str) -> None:
        super().__init__(logging.WARNING)
        self._base = base
        self._said = False
        self._waiting: deque[str] = deque(maxlen=1)
        self._ending = False
        self._last = ""

    def end(self) -> None:
        """From now on nothing is tried again, so that a warning is a failure too."""
        self._ending = True

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line of the SDK."""
        text = record.getMessage().rstrip(".")
        if record.levelno >= logging.ERROR or self._ending:
            self.say(self._last or text)
        self._last = text

    def say(self, why: str) -> None:
        """Keep a failure, unless there was one before."""
        if not self._said:
            self._said = True
            self._waiting.append(f"{OPTION}: {self._base} does not get everything (reported once): {why[:MOST_CHARS]}")

    def report_to(self, complain: Callable[[str], None]) -> None:
        """Give the failure that nobody has got yet."""
        while self._waiting:
            complain(self._waiting.popleft())


@contextlib.contextmanager
def _listening_to_complaints(base: str) -> Iterator[_Complaints]:
    """The failures that the SDK logs while this is open."""
    logger, handler = logging.getLogger(LOGGER), _Complaints(base)
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.addHandler(logging.NullHandler())  # a thread that stays behind says no more
        logger.propagate = before
