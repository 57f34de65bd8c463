"""Arbitrary bytes and orders of events, from framing to the supervisor: never an exception, totals never fall, and an
end is always reached.

A longer run by hand: FUZZ_EXAMPLES=100000 python -m pytest tests/faults/test_fuzz.py
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from claude_orchestrator.claude.stream import LineBatch, LineFramer, parse
from claude_orchestrator.claude.tally import UsageTally
from claude_orchestrator.config.config import parse_config
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.config.plan import make_plan
from claude_orchestrator.config.settings import Settings
from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.journal import encode, records
from claude_orchestrator.engine.journal_history import read_history
from claude_orchestrator.engine.journal_records import record_of
from claude_orchestrator.engine.run_context import Clock, Services
from claude_orchestrator.engine.run_events import RunEvent
from claude_orchestrator.launch.base import Capabilities, Exit
from claude_orchestrator.launch.simulated import PassedCheck
from tests.harness import Watcher, make_supervisor
from tests.limits import HUNG_S

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with any of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


small = st.integers(0, 3)
ids = st.sampled_from(["a", "b", "c", ""])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
count = st.integers(0, 5000) | st.sampled_from([None, -1, 2**70, "5", 1.5, True])
usage = anything | some(
    input_tokens=count, output_tokens=count, cache_read_input_tokens=count, cache_creation_input_tokens=count
)
of_model = some(inputTokens=count, outputTokens=count, cacheReadInputTokens=count, costUSD=count)
model_usage = anything | st.dictionaries(st.sampled_from(["m", "n"]), of_model | anything, max_size=2)
parent = st.sampled_from([None, "toolu_1", 5])
stop_reason = st.sampled_from([None, "end_turn", "tool_use"])
block = some(
    type=st.sampled_from(["text", "tool_use"]),
    text=st.text(max_size=20),
    id=ids,
    name=st.sampled_from(["Bash", "Agent", "WebFetch"]),
)
message = some(
    id=ids,
    model=st.sampled_from(["m", "<synthetic>"]),
    usage=usage,
    stop_reason=stop_reason,
    content=st.lists(block, max_size=3),
)
stream_event = st.one_of(
    some(type=st.just("message_start"), message=message),
    some(type=st.just("message_delta"), usage=usage, delta=some(stop_reason=stop_reason)),
    some(type=st.just("content_block_delta"), delta=anything),
)


def line_of(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A line of this type, each of its fields as it should be, or anything, or missing."""
    return some(**{key: value | anything for key, value in fields.items()}).map(lambda data: {"type": kind, **data})


lines = st.one_of(
    line_of("stream_event", event=stream_event, parent_tool_use_id=parent),
    line_of("assistant", message=message, parent_tool_use_id=parent, error=st.sampled_from(["rate_limit", "x"])),
    line_of("user", message=st.just({"content": [{"type": "text", "text": "[Request interrupted by user]"}]})),
    line_of(
        "result",
        subtype=st.sampled_from(["success", "error"]),
        is_error=st.booleans(),
        usage=usage,
        num_turns=small,
        modelUsage=model_usage,
        total_cost_usd=count,
        result=st.just("API Error: x"),
        session_id=ids,
        api_error_status=st.sampled_from([429, 400, 529]),
        origin=st.just({"kind": "task-notification"}),
    ),
    line_of("control_response", response=some(response=some(session=some(model_usage=model_usage)))),
    line_of("control_request", request_id=ids, request=st.just({"subtype": "can_use_tool"})),
    line_of("rate_limit_event", rate_limit_info=some(status=st.just("rejected"), resetsAt=count)),
    line_of(
        "system",
        subtype=st.sampled_from(["init", "status", "task_started", "task_notification", "api_retry"]),
        status=st.sampled_from(["requesting", "compacting", "completed"]),
        task_id=ids,
        attempt=count,
        task_type=st.just("local_agent"),
        session_id=ids,
        slash_commands=st.just(["a"]),
    ),
    line_of("conversation_reset"),
)
raw_lines = st.one_of(
    lines.map(lambda data: json.dumps(data).encode()),
    anything.map(lambda data: json.dumps(data).encode()),
    st.binary(max_size=30),
)
streams = st.lists(raw_lines, max_size=25).map(lambda found: b"\n".join((*found, b"")))


@settings(max_examples=EXAMPLES)
@given(streams, st.lists(st.integers(1, 40), max_size=30), st.booleans())
def test_totals_never_fall_whatever_comes(data: bytes, cuts: list[int], resumed: bool) -> None:
    """The same bytes in other pieces give the same count, too."""
    framer, tally, whole = LineFramer(), UsageTally(resumed=resumed), UsageTally(resumed=resumed)
    rest, before = data, tally.usage
    for size in [*cuts, len(data) + 1]:
        piece, rest = rest[:size], rest[size:]
        for event in parse(framer.feed(piece)):
            tally.feed(event)
            assert tally.usage | before == tally.usage
            before = tally.usage
    tally.close()
    assert tally.usage | before == tally.usage and min(tally.usage.counts) >= 0
    for event in parse(LineFramer().feed(data)):
        whole.feed(event)
    whole.close()
    inputs = (tally.usage.counts[0], *tally.usage.counts[2:])
    assert inputs == (whole.usage.counts[0], *whole.usage.counts[2:])


class Noise:
    """A Launcher of instances that print what they are given, whatever they are told."""

    capabilities = Capabilities(simulated=True)

    def __init__(self, streams: list[bytes], codes: list[int]) -> None:
        self.streams, self.codes = streams, codes

    async def check(self, spec: LaunchSpec, command: str, folder: str) -> PassedCheck:
        return PassedCheck()

    async def launch(self, spec: LaunchSpec) -> NoiseRunning:
        await asyncio.sleep(0)
        if not self.streams:
            raise OSError(11, "no more")
        return NoiseRunning(self.streams.pop(), self.codes.pop() if self.codes else 0)


class NoiseRunning:
    def __init__(self, data: bytes, code: int) -> None:
        self.data, self.code = data, code
        self.stopped = False

    async def output(self) -> AsyncIterator[LineBatch]:
        framer = LineFramer()
        for start in range(0, len(self.data), 50):
            if self.stopped:
                break
            piece = self.data[start : start + 50]
            yield LineBatch(piece, framer.feed(piece))
            await asyncio.sleep(0)
        yield LineBatch(b"", framer.flush())

    def send(self, message: Mapping[str, Any]) -> None:
        json.dumps(message)

    def close_input(self) -> None:
        pass

    def stop(self, grace_s: float) -> None:
        self.stopped = True

    async def wait(self) -> Exit:
        return Exit(self.code, "last \x1b words")


class Kept:
    """A journal in memory."""

    def __init__(self) -> None:
        self.data = b""
        self.number = 0

    def write(self, kind: str, /, **fields: object) -> None:
        self.number += 1
        self.data += encode({"n": self.number, "kind": kind, "at": 0.0, **fields})

    def observe(self, event: RunEvent) -> None:
        record = record_of(event)
        if record is not None:
            self.write(record[0], **record[1])


@settings(max_examples=EXAMPLES)
@given(
    st.lists(streams, max_size=5),
    st.lists(st.sampled_from([0, 1, -9]), max_size=5),
    st.sampled_from(["warn", "block"]),
    st.integers(1, 8000),
    st.integers(0, 2),
    st.booleans(),
    st.integers(0, 60),
)
def test_a_run_always_ends_with_its_books_in_order(
    data: list[bytes], codes: list[int], mode: str, limit: int, retries: int, fail_fast: bool, cancel_at: int
) -> None:
    options = Settings(
        overall_token_budget=limit,
        budget_enforcement_mode=mode,
        command_budgets=(("/test", 3000),),
        max_parallel=2,
        retries=retries,
        fail_fast=fail_fast,
        wait_for_reset=True,
    )
    entries = [{"name": f"i{n}", "command": "/test", "pre_commands": ["/a"][: n % 2]} for n in range(3)]
    plan = make_plan(parse_config({"instances": entries}, "x"), options, workspace="/", claude_bin="claude")
    kept = Kept()
    kept.write("run", number=1, instances=[{"name": s.name, "base_command": "/test", "turns": "t"} for s in plan.specs])
    changes = 0
    ticks = iter(range(10**9))

    def on_event(event: RunEvent) -> None:
        nonlocal changes
        changes += 1
        if changes == cancel_at:
            supervisor.cancel("cancelled", at_once=cancel_at % 2 == 0)

    bus = Bus()
    bus.attach(kept)
    supervisor = make_supervisor(
        plan,
        options,
        Noise(data, codes),
        bus=bus,
        services=Services(knows_command=lambda folder, command: True),
        clock=Clock(lambda: 1000.0 * next(ticks), lambda: 10_000.0 * next(ticks), lambda: 0.0),
    )
    bus.attach(Watcher(on_event=on_event))

    async def run() -> None:
        async with asyncio.timeout(HUNG_S):
            await supervisor.run()

    asyncio.run(run())
    assert all(status.ended for status in supervisor.instances)
    total = sum(status.total_tokens for status in supervisor.instances)
    assert supervisor.manager.total_usage == total
    assert all(budget.held == 0 and budget.used == total for budget in supervisor.manager.budgets)
    history = read_history(records(kept.data))
    assert history.damaged_lines == 0 and history.usage.total_tokens == total
    states = {name: past.state for name, past in history.instances.items()}
    assert states == {status.name: status.state for status in supervisor.instances}


values = st.sampled_from(["run", "usage", "end", "launch", "a", 1, -1, None, [1, 2, 3, 4], [{"name": "a"}], 10**9])
entries = st.dictionaries(
    st.sampled_from(["kind", "instance", "attempt", "usage", "instances", "number", "state", "at"]), values | anything
)


@settings(max_examples=EXAMPLES)
@given(st.lists(st.binary(max_size=40) | entries.map(encode), max_size=8))
def test_a_journal_with_arbitrary_content_is_readable(found: list[bytes]) -> None:
    assert read_history(records(b"\n".join(found))).usage.total_tokens >= 0
