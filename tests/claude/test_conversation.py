"""A log as a person reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from claude_orchestrator.claude.conversation import MAX_TEXT, NOTHING, EntryKind, Said, conversation

DATA = Path(__file__).parents[1] / "data"


def test_text_tools_outputs_and_the_result_in_their_order() -> None:
    block = {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls"}}
    thought = {"type": "thinking", "thinking": "hm"}
    content = [thought, {"type": "text", "text": "I look."}, block]
    output = {
        "type": "tool_result",
        "tool_use_id": "t1",
        "content": [{"type": "text", "text": "a\nb"}],
        "is_error": True,
    }
    lines = [
        {"type": "system", "subtype": "init", "session_id": "s", "model": "m"},
        {"type": "assistant", "message": {"content": content}},
        {"type": "user", "message": {"content": [output]}, "parent_tool_use_id": "t0"},
        {"type": "result", "subtype": "success", "result": "Done."},
        {"type": "result", "subtype": "error_during_execution", "errors": ["no", "way"]},
    ]
    said = conversation(json.dumps(line).encode() for line in lines)
    assert [one._replace(facts=NOTHING) for one in said] == [
        Said(EntryKind.TURN, "session s, model m"),
        Said(EntryKind.THOUGHT, "hm"),
        Said(EntryKind.TEXT, "I look."),
        Said(EntryKind.TOOL, "Bash: ls", id="t1", given={"command": "ls"}),
        Said(EntryKind.OUTPUT, "a\nb", True, "t0", "t1"),
        Said(EntryKind.RESULT, "Done."),
        Said(EntryKind.RESULT, "no, way", True),
    ]


@pytest.mark.parametrize("line", [b"", b"x", b"[]", b"7", b'{"type":7}', b'{"type":"user","message":5}', b"[" * 9000])
def test_odd_lines_say_nothing(line: bytes) -> None:
    assert list(conversation([line])) == []


def test_long_texts_and_half_surrogates_are_tamed() -> None:
    text = {"type": "text", "text": "\ud800" + "x" * MAX_TEXT}
    (said,) = conversation([json.dumps({"type": "assistant", "message": {"content": [text]}}).encode()])
    assert said.text == ("?" + "x" * MAX_TEXT)[:MAX_TEXT]


ASKED = {"subtype": "can_use_tool", "tool_name": "Bash", "input": {"command": "rm x"}}
IMAGE = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "image"}, {"type": "text", "text": "a"}]}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"type": "control_request", "request": ASKED}, [Said(EntryKind.NOTE, "asks for approval: Bash: rm x")]),
        ({"type": "control_request", "request": {"subtype": "interrupt"}}, []),
        ({"type": "assistant", "message": {"content": [{"type": "thinking", "thinking": " \n"}]}}, []),
        ({"type": "assistant", "message": {"content": [{"type": "new block", "text": "x"}]}}, []),
        ({"type": "user", "message": {"content": "go on"}}, [Said(EntryKind.PROMPT, "go on")]),
        (
            {"type": "user", "message": {"content": [{"type": "text", "text": "go on"}]}},
            [Said(EntryKind.PROMPT, "go on")],
        ),
        ({"type": "user", "message": {"content": [{"type": "image"}]}}, []),
        ({"type": "user", "message": {"content": [IMAGE]}}, [Said(EntryKind.OUTPUT, "[image]\na", id="t1")]),
        (
            {"type": "system", "subtype": "permission_denied", "tool_name": "Bash"},
            [Said(EntryKind.NOTE, "permission denied for Bash", failed=True)],
        ),
        (
            {"type": "system", "subtype": "api_retry", "error": "overloaded"},
            [Said(EntryKind.NOTE, "the API refused a request: overloaded", failed=True)],
        ),
        ({"type": "system", "subtype": "compact_boundary"}, [Said(EntryKind.NOTE, "the conversation was compacted")]),
        ({"type": "system", "subtype": "new_subtype"}, []),
        ({"type": "result", "subtype": "error_max_turns"}, [Said(EntryKind.RESULT, "error_max_turns", failed=True)]),
    ],
)
def test_what_each_line_says(line: dict[str, object], said: list[Said]) -> None:
    found = conversation([json.dumps(line).encode()])
    assert [one._replace(facts=NOTHING) for one in found] == said


@pytest.mark.parametrize("path", sorted(DATA.glob("*.jsonl")), ids=lambda path: path.stem)
def test_recorded_sessions_can_be_read(path: Path) -> None:
    said = list(conversation(path.read_bytes().split(b"\n")))
    assert all(one.text.encode() is not None for one in said)
