"""What an instance and Claude said, from recorded lines of the real CLI."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_orchestrator.engine.control.conversation_json import items_of
from tests.harness import ROOT


def items(name: str) -> list[dict[str, Any]]:
    return items_of((ROOT / "tests" / "data" / name).read_bytes().split(b"\n"))


def line(**data: object) -> bytes:
    return json.dumps(data).encode()


def delta(text: str, index: int = 0) -> bytes:
    event = {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}}
    return line(type="stream_event", event=event, parent_tool_use_id=None)


def test_a_session_with_a_subagent_is_a_tree_with_its_tokens() -> None:
    found = items("04-subagent.jsonl")
    kinds = [(item["kind"], item.get("tool"), item["parent"]) for item in found]
    assert ("tool", "Agent", None) in kinds and ("tool", "Bash", "toolu_0_1") in kinds
    assert [item["text"] for item in found if item["kind"] == "output" and item["parent"] == "toolu_0_1"] == [
        "from sub"
    ]
    assert [sum(item["usage"].values()) for item in found if item["kind"] == "usage" and item["parent"]] == [3_104]
    assert [item["tokens"] for item in found if item["kind"] == "agent" and item["id"] == "toolu_0_1"] == [3_105, 3_109]
    assert found[-1]["kind"] == "result" and found[-1]["text"] == "parent done 1"


def test_pieces_of_a_text_join_until_another_text_begins() -> None:
    found = items_of([delta("a"), delta("b"), delta("c", 1), line(type="assistant", message={"content": "whole"})])
    assert [(item["kind"], item["text"]) for item in found] == [("piece", "ab"), ("piece", "c"), ("text", "whole")]


def test_an_error_of_a_tool_is_marked() -> None:
    outputs = [item for item in items("12-perm-denied-default.jsonl") if item["kind"] == "output"]
    assert len(outputs) == 2 and all(item["error"] for item in outputs)


def test_long_texts_are_cut() -> None:
    content = [{"type": "text", "text": "x" * 5_000_000}]
    (item,) = items_of([line(type="assistant", message={"content": content})])
    assert item["cut"] and len(item["text"]) == 20_000


def output(content: object) -> bytes:
    block = {"type": "tool_result", "tool_use_id": "t1", "content": content}
    return line(type="user", message={"content": [block]})


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("plain", "plain"),
        (None, ""),
        ({"odd": 1}, '{"odd": 1}'),
        ([{"type": "text", "text": "a"}, {"type": "image", "source": {}}], "a\n[image]"),
    ],
)
def test_the_output_of_a_tool_as_text(content: object, text: str) -> None:
    (item,) = items_of([output(content)])
    assert (item["kind"], item["of"], item["error"], item["text"]) == ("output", "t1", False, text)


def test_thoughts_are_shown_whole_and_in_pieces() -> None:
    event = {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}
    whole = line(type="assistant", message={"content": [{"type": "thinking", "thinking": "hm, so"}]})
    piece, thought = items_of([line(type="stream_event", event=event), whole])
    assert (piece["kind"], piece["of"], piece["text"]) == ("piece", "thinking", "hm")
    assert (thought["kind"], thought["text"]) == ("thinking", "hm, so")


def test_what_the_system_says_of_the_session() -> None:
    lines = [
        line(type="system", subtype="init", session_id="s1"),
        line(type="system", subtype="api_retry", uuid="u", session_id="s1", attempt=2),
        line(type="system", subtype="compact_boundary"),
    ]
    assert [(item["kind"], item["text"]) for item in items_of(lines)] == [
        ("system", "session s1"),
        ("system", "the API refused a request: "),
        ("system", "the conversation was compacted"),
    ]


@pytest.mark.parametrize(
    "raw",
    [
        b"  ",
        line(type="new_type"),
        line(type="system", subtype="new_subtype"),
        line(type="system", subtype="task_progress", tool_use_id="t1", usage={"total_tokens": "many"}),
        line(type="stream_event", event={"type": "message_stop"}),
        line(type="assistant", message={"content": [{"type": "new block"}]}),
    ],
)
def test_a_line_without_anything_to_show(raw: bytes) -> None:
    assert items_of([raw]) == []


@pytest.mark.parametrize("raw", [b"no json", b"[1]", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_a_line_that_is_no_event_shows_as_it_is(raw: bytes) -> None:
    (item,) = items_of([raw])
    assert item["kind"] == "raw"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "id"]), inner),
    max_leaves=8,
)


@given(
    kind=st.sampled_from(["assistant", "user", "result", "system", "stream_event"]),
    fields=st.dictionaries(st.sampled_from(["message", "event", "subtype", "parent_tool_use_id", "result"]), JSON),
    content=st.lists(st.dictionaries(st.sampled_from(["type", "text", "input", "content", "id", "name"]), JSON)),
)
def test_odd_fields_never_raise(kind: str, fields: dict[str, Any], content: list[dict[str, Any]]) -> None:
    json.dumps(items_of([line(type=kind, **fields), line(type=kind, message={"content": content})]))
