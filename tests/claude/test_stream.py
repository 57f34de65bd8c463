"""Bytes to lines to events."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from claude_orchestrator.claude.events import BadLine, Streamed
from claude_orchestrator.claude.stream import LineFramer, parse_line, parse_lines


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=8))
def test_framing_does_not_depend_on_chunks(raw: bytes, cuts: list[int]) -> None:
    framer, lines, last = LineFramer(), [], 0
    for cut in (*sorted(cuts), len(raw)):
        lines += framer.feed(raw[last:cut])
        last = max(last, cut)
    lines += framer.flush()
    expected = raw.split(b"\n")
    assert lines == (expected if expected[-1] else expected[:-1])


@given(st.lists(st.binary(max_size=30), max_size=10), st.integers(1, 7))
def test_lines_over_the_bound_are_left_out_and_counted(lines: list[bytes], size: int) -> None:
    lines = [item.replace(b"\n", b" ") for item in lines]
    raw = b"".join(item + b"\n" for item in lines)
    framer = LineFramer(max_line_bytes=10)
    framed = [item for i in range(0, len(raw), size) for item in framer.feed(raw[i : i + size])]
    kept = [item for item in lines if len(item) <= 10]
    assert framed == kept and framer.dropped == len(lines) - len(kept)


@given(st.lists(st.one_of(st.binary(max_size=80), st.text(max_size=80).map(str.encode)), max_size=20))
def test_any_bytes_are_read_without_an_exception(lines: list[bytes]) -> None:
    parse_lines(lines)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
TYPES = ["stream_event", "assistant", "user", "system", "result", "control_response", "control_request"]
FIELDS = ["event", "message", "subtype", "usage", "modelUsage", "response", "session", "content", "errors", "id"]


@given(st.sampled_from(TYPES), st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_any_shape_of_a_known_type_is_read_without_an_exception(kind: str, fields: dict[str, object]) -> None:
    parse_line(json.dumps({"type": kind, **fields}).encode())


def test_only_lf_ends_a_line() -> None:
    raw = b'{"a":"\xc2\x85\xe2\x80\xa8\x0b"}\r\n{"b":1}\n'
    assert LineFramer().feed(raw) == [b'{"a":"\xc2\x85\xe2\x80\xa8\x0b"}\r', b'{"b":1}']


def test_what_cannot_be_read_is_said() -> None:
    assert parse_line(b'{"type":"result"') == BadLine("not JSON: JSONDecodeError", lossy=True)
    assert parse_line(b"Warning: hm") == BadLine("not JSON: JSONDecodeError", lossy=False)
    assert parse_line(b"[" * 100_000) == BadLine("not JSON: RecursionError", lossy=False)
    assert parse_line(b"[1]") == BadLine("not a JSON object", lossy=False)
    assert parse_line(b'{"type":"of tomorrow"}') is None and parse_line(b" \r") is None


def test_signatures_are_no_output_text() -> None:
    signature = {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "signature_delta", "signature": "x" * 2000},
    }
    thinking = {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hmm "}}
    lines = [
        json.dumps({"type": "stream_event", "event": event}, separators=(",", ":")).encode()
        for event in (thinking, thinking, signature)
    ]
    assert parse_lines(lines) == [Streamed(2, 8)]
