"""Turns the events of a run into spans and measurements. It holds no text that an instance wrote or was asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from opentelemetry import trace
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.trace import Span, Status, StatusCode, Tracer

from claude_orchestrator.engine.run_events import (
    AttemptEnded,
    Crossed,
    Decided,
    Launched,
    RequestTimed,
    RunEnded,
    RunEvent,
    Steered,
    Stopping,
    UsageRecorded,
)
from claude_orchestrator.engine.state import InstanceStatus, State
from claude_orchestrator.engine.usage_delta import UsageDelta
from claude_orchestrator.ui.metrics import Labels, Metric
from claude_orchestrator.ui.otlp import names
from token_budget.models import Usage
from token_budget.text import NANO

CHAT = {names.OPERATION: "chat", names.PROVIDER: names.ANTHROPIC}
AGENT = {names.OPERATION: "invoke_agent", names.PROVIDER: names.ANTHROPIC}
FAILED = frozenset({State.FAILED, State.TIMED_OUT})
Value = str | bool | int | float


class OtlpObserver:
    """An observer of a run. The meter and the tracer take everything at once, and send it from their own threads.

    `wall_ns` is nanoseconds since 1970.
    """

    def __init__(
        self, meter: Meter, tracer: Tracer, run_id: str, *, rehearsal: bool, wall_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._tracer = tracer
        self._wall_ns = wall_ns
        self._attempts: dict[str, Span] = {}
        self._used_before: dict[str, tuple[Usage, int]] = {}
        self._ended = False
        self._tokens = meter.create_histogram(
            names.TOKEN_USAGE, "{token}", explicit_bucket_boundaries_advisory=names.TOKEN_BOUNDS
        )
        self._duration = meter.create_histogram(
            names.DURATION, "s", explicit_bucket_boundaries_advisory=names.DURATION_BOUNDS_S
        )
        self._first_chunk = meter.create_histogram(
            names.FIRST_CHUNK, "s", explicit_bucket_boundaries_advisory=names.DURATION_BOUNDS_S
        )
        facts: dict[str, Value] = {names.RUN: run_id, names.REHEARSAL: rehearsal, names.WORKFLOW: names.SERVICE}
        self._run = tracer.start_span(
            f"invoke_workflow {names.SERVICE}", attributes={names.OPERATION: "invoke_workflow", **facts}
        )

    def observe(self, event: RunEvent) -> None:
        """Take one event."""
        if self._ended:
            return
        match event:
            case UsageRecorded(_, delta):
                self._count(delta)
            case RequestTimed():
                self._time(event)
            case Launched(status):
                self._begin(status)
            case AttemptEnded(status):
                self._end_attempt(status)
            case Decided(instance, action, reason, budget):
                label = "" if budget is None else budget.label
                about = {names.AGENT: instance, names.ACTION: str(action), names.REASON: reason, names.BUDGET: label}
                self._run.add_event("decision", about)
            case Stopping(instance, state, reason, budget):
                label = "" if budget is None else budget.label
                about = {names.AGENT: instance, names.STATE: str(state), names.REASON: reason, names.BUDGET: label}
                self._run.add_event("stopping", about)
            case Crossed(budget):
                self._run.add_event("crossing", {names.BUDGET: budget.label, names.REASON: budget.figures()})
            case Steered(action, target, text, by):
                about = {names.ACTION: action, names.TARGET: target, names.REASON: text, names.WHO: str(by)}
                self._run.add_event("steering", about)
            case RunEnded(code):
                self._run.set_attribute(names.EXIT_CODE, code)
            case _:
                pass

    def end(self) -> None:
        """The run has ended, and everything that is still open ends with it."""
        if not self._ended:
            self._ended = True
            for span in self._attempts.values():
                span.end()
            self._run.end()

    def _count(self, delta: UsageDelta) -> None:
        """Tokens by model. A correction that is negative is no measurement; the run's own counters have it."""
        for portion, part in delta.portions.items():
            usage = part.spent.usage
            counts = {"input": usage.total_tokens - usage.output_tokens, "output": usage.output_tokens}
            for kind, count in counts.items():
                if count > 0:
                    self._tokens.record(count, {**CHAT, names.TOKEN_TYPE: kind, names.RESPONSE_MODEL: portion.model})

    def _time(self, event: RequestTimed) -> None:
        about: dict[str, Value] = {**CHAT, names.REQUEST_MODEL: event.model}
        failed = event.status is None or event.status >= 400
        if failed:
            about[names.ERROR] = str(event.status or "no_answer")
        self._duration.record(event.seconds, about)
        if event.first_byte_s is not None:
            self._first_chunk.record(event.first_byte_s, about)
        status: dict[str, Value] = {} if event.status is None else {names.STATUS: event.status}
        end_ns = self._wall_ns()
        span = self._tracer.start_span(
            f"chat {event.model}",
            trace.set_span_in_context(self._attempts.get(event.instance, self._run)),
            trace.SpanKind.CLIENT,
            {**about, **status, names.AGENT: event.instance},
            start_time=end_ns - round(event.seconds * NANO),
        )
        if event.first_byte_s is not None:
            first_ns = end_ns - round((event.seconds - event.first_byte_s) * NANO)
            span.add_event("first_byte", timestamp=first_ns)
        if failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_ns)

    def _begin(self, status: InstanceStatus) -> None:
        self._used_before[status.name] = status.usage, status.nano_usd or 0
        self._attempts[status.name] = self._tracer.start_span(
            f"invoke_agent {status.name}",
            trace.set_span_in_context(self._run),
            attributes={**AGENT, names.AGENT: status.name, names.ATTEMPT: status.attempts},
        )

    def _end_attempt(self, status: InstanceStatus) -> None:
        span = self._attempts.pop(status.name, None)
        if span is None:
            return
        before, nano_usd_before = self._used_before.pop(status.name, (Usage(), 0))
        used = Usage(*(max(0, now - then) for now, then in zip(status.usage.counts, before.counts, strict=True)))
        session, model = status.attempt.known_session, next(iter(status.models), None)
        found: dict[str, Value | None] = {
            names.CONVERSATION: session,
            names.RESPONSE_MODEL: model,
            names.INPUT_TOKENS: used.total_tokens - used.output_tokens,
            names.OUTPUT_TOKENS: used.output_tokens,
            names.CACHE_READ: used.cache_read_input_tokens,
            names.CACHE_WRITTEN: used.cache_creation_input_tokens,
            names.COST: None if status.nano_usd is None else (status.nano_usd - nano_usd_before) / NANO,
            names.STATE: str(status.state),
        }
        span.set_attributes({key: value for key, value in found.items() if value is not None})
        if status.state in FAILED:
            span.set_attribute(names.ERROR, str(status.state))
            span.set_status(Status(StatusCode.ERROR))
        span.end()


class RunMetrics:
    """The run's own metrics, as the last call of `put` had them. Exporters read them from their own threads."""

    def __init__(self, meter: Meter, first: Iterable[Metric]) -> None:
        described = list(first)
        self.put(described)
        for metric in described:
            create = meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
            create(names.metric_name(metric.name), [self._reading(metric.name)], description=metric.help)

    def put(self, found: Iterable[Metric]) -> None:
        """Replace what exporters read."""
        self._values: Mapping[str, list[tuple[Labels, float]]] = {metric.name: list(metric.values) for metric in found}

    def _reading(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def read(options: CallbackOptions) -> Iterable[Observation]:
            return [Observation(value, dict(labels)) for labels, value in self._values.get(name, ())]

        return read
