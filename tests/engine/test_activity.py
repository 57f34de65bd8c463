"""What an instance does at the moment, from the lines of its stream."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from claude_orchestrator.claude.stream import parse
from claude_orchestrator.claude.tool_text import MAX_CHARS, call_text
from claude_orchestrator.engine.activity import MAX_CALLS, Activity, ActivityTracker, Doing
from claude_orchestrator.engine.run_events import RunEvent
from tests.harness import run_config
from tests.scripted import Script

DATA = Path(__file__).parents[1] / "data"


def lines(*objects: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in objects)


def block(kind: str, **more: object) -> dict[str, Any]:
    return {"type": "stream_event", "event": {"type": "content_block_start", "content_block": {"type": kind, **more}}}


def call(tool_id: str, name: str, parent: str | None = None, **given: object) -> dict[str, Any]:
    content = [{"type": "tool_use", "id": tool_id, "name": name, "input": given}]
    return {"type": "assistant", "message": {"id": "m", "content": content}, "parent_tool_use_id": parent}


def result_of(tool_id: str, parent: str | None = None) -> dict[str, Any]:
    content = [{"type": "tool_result", "tool_use_id": tool_id}]
    return {"type": "user", "message": {"content": content}, "parent_tool_use_id": parent}


def followed(data: bytes, folder: str = "/w") -> list[tuple[Doing, str]]:
    tracker = ActivityTracker(lambda: folder)
    changes = [tracker.take(event) for event in parse(data)]
    return [change for change in changes if change is not None]


def test_a_turn_from_thinking_over_tools_to_its_end() -> None:
    data = lines(
        {"type": "system", "subtype": "init"},
        block("thinking"),
        block("text"),
        block("tool_use", name="Write"),
        call("t1", "Write", file_path="/w/src/a.py", content="x"),
        call("t2", "Bash", command="pytest -q\nexit"),
        result_of("t2"),
        result_of("t1"),
        block("text"),
        {"type": "result", "subtype": "success"},
    )
    assert followed(data) == [
        (Doing.THINKING, ""),
        (Doing.ANSWERING, ""),
        (Doing.THINKING, "preparing Write"),
        (Doing.TOOL, "writing src/a.py"),
        (Doing.TOOL, "Bash: pytest -q (+1)"),
        (Doing.TOOL, "writing src/a.py"),
        (Doing.THINKING, ""),
        (Doing.ANSWERING, ""),
        (Doing.IDLE, ""),
    ]


def test_what_a_subagent_does_is_not_what_its_instance_does() -> None:
    data = lines(call("t1", "Task", description="look around"), call("t2", "Read", "t1"), result_of("t2", "t1"))
    assert followed(data) == [(Doing.TOOL, "Task: look around")]


def test_the_number_of_open_calls_is_bounded() -> None:
    changes = followed(lines(*(call(f"t{number}", "Read") for number in range(MAX_CALLS * 3))))
    assert changes[-1] == (Doing.TOOL, f"Read (+{MAX_CALLS - 1})")


@pytest.mark.parametrize(
    ("tool", "given", "text"),
    [
        ("Bash", {"command": " npm test "}, "Bash: npm test"),
        ("Grep", {"pattern": "def x", "path": "/w"}, "Grep: def x"),
        ("mcp__db__query", {"query": "select 1"}, "mcp__db__query: select 1"),
        ("Read", {"file_path": 7}, "Read"),
        ("Odd", ["x"], "Odd"),
        ("Odd", None, "Odd"),
        ("Bash", {"command": "x" * 10_000}, ("Bash: " + "x" * 10_000)[:MAX_CHARS]),
    ],
)
def test_a_call_in_a_few_words(tool: str, given: object, text: str) -> None:
    assert call_text(tool, given) == text


@pytest.mark.parametrize("path", sorted(DATA.glob("*.jsonl")), ids=lambda path: path.stem)
def test_recorded_streams_begin_with_a_thought_and_leave_no_tool_open(path: Path) -> None:
    changes = followed(path.read_bytes())
    assert all(text for doing, text in changes if doing is Doing.TOOL)
    assert all(before != after for before, after in pairwise(changes))


def test_a_run_publishes_what_its_instances_do(tmp_path: Path) -> None:
    seen: list[RunEvent] = []
    config = {"instances": [{"name": "one", "prompt": "hello", "pre_commands": ["first"]}]}
    outcome = run_config(config, Script(), workspace=tmp_path, on_event=seen.append)
    did = [(event.doing, event.turn) for event in seen if isinstance(event, Activity)]
    begun = [(Doing.THINKING, 1), (Doing.IDLE, 1), (Doing.THINKING, 2), (Doing.IDLE, 2)]
    assert did == [(Doing.STARTING, 1), *begun]
    assert outcome.only.activity is None
