"""Bytes to lines to events."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claude_orchestrator.claude.events import BadLine, Event, Streamed
from claude_orchestrator.claude.line_events import parse_line
from claude_orchestrator.claude.stream import LineFramer, parse


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=8))
def test_framing_does_not_depend_on_chunks(raw: bytes, cuts: list[int]) -> None:
    framer, lines, last = LineFramer(), b"", 0
    for cut in (*sorted(cuts), len(raw)):
        lines += framer.feed(raw[last:cut])
        last = max(last, cut)
    lines += framer.flush()
    assert lines == (raw + b"\n" if raw and not raw.endswith(b"\n") else raw)


@given(st.lists(st.binary(max_size=30), max_size=10), st.integers(1, 7))
def test_lines_over_the_bound_are_left_out_and_counted(lines: list[bytes], size: int) -> None:
    lines = [item.replace(b"\n", b" ") for item in lines]
    raw = b"".join(item + b"\n" for item in lines)
    framer = LineFramer(max_line_bytes=10)
    framed = b"".join(framer.feed(raw[i : i + size]) for i in range(0, len(raw), size)).split(b"\n")[:-1]
    kept = [item for item in lines if len(item) <= 10]
    assert framed == kept and framer.dropped == len(lines) - len(kept)


@given(st.lists(st.one_of(st.binary(max_size=80), st.text(max_size=80).map(str.encode)), max_size=20))
def test_any_bytes_are_read_without_an_exception(lines: list[bytes]) -> None:
    parse(b"".join(item + b"\n" for item in lines))


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
    assert LineFramer().feed(raw) == raw and len(parse(raw.replace(b"{", b"!"))) == 2


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
        json.dumps({"type": "stream_event", "event": event}, separators=(",", ":")).encode() + b"\n"
        for event in (thinking, thinking, signature)
    ]
    assert parse(b"".join(lines)) == [Streamed(lines[0] * 2)]


def one_by_one(lines: bytes) -> list[Event]:
    """What `parse` gives, by a JSON parser for each line."""
    events: list[Event] = []
    previous: Event | None = None
    for line in lines.split(b"\n")[:-1]:
        event = parse_line(line)
        if isinstance(event, Streamed):
            if isinstance(previous, Streamed):
                before = events.pop()
                assert isinstance(before, Streamed)
                event = Streamed(before.lines + line + b"\n")
            else:
                event = Streamed(line + b"\n")
        if isinstance(event, BadLine):
            events += parse(line + b"\n")  # what else is in it has its own test
        elif event is not None:
            events.append(event)
        previous = event
    return events


HOSTILE = (
    "",
    "a word ",
    "def f(x):\n\t",
    '"}},"type":"result",',
    '{"type":"stream_event","event":{"type":"content_block_delta","index":0,',
    '"}}\n{"type":"result","subtype":"success"}\n',
    "\\",
    '\\"',
    "\u2028\u0085é漢\x00\x7f",
    "\ud800",
    '","uuid":"',
)
deltas = st.one_of(
    st.sampled_from(HOSTILE).map(lambda text: {"type": "text_delta", "text": text}),
    st.sampled_from(HOSTILE).map(lambda text: {"type": "thinking_delta", "thinking": text}),
    st.sampled_from(HOSTILE).map(lambda text: {"type": "input_json_delta", "partial_json": text}),
    st.sampled_from(HOSTILE).map(lambda text: {"type": "signature_delta", "signature": text}),
    st.sampled_from(HOSTILE).map(lambda text: {"type": "text_delta", "text": text, "more": text}),
    st.sampled_from([{"type": "text_delta"}, {"type": "text_delta", "text": None}, {"text": "x"}, None]),
)
uuids = st.sampled_from(["2c791b18-a099-49c7-a44a-4c644cd33467", "short", "", None, 5, 'a"b', "type"])
MORE: dict[str, object] = {"session_id": "s", "parent_tool_use_id": None, "ttft_ms": 12, "cost": 0.5, "list": [1]}


@st.composite
def piece_lines(draw: st.DrawFn) -> bytes:
    event = {"type": "content_block_delta", "index": draw(st.integers(0, 12)), "delta": draw(deltas)}
    data: dict[str, object] = {"type": "stream_event", "event": event, "uuid": draw(uuids)}
    data |= {key: MORE[key] for key in draw(st.sets(st.sampled_from(sorted(MORE)), max_size=3))}
    if draw(st.booleans()):
        data["event"] = dict(draw(st.permutations(list(event.items()))))
    if draw(st.booleans()):
        data = dict(draw(st.permutations(list(data.items()))))
    separators = draw(st.sampled_from([(",", ":"), (",", ":"), (",", ":"), (", ", ": ")]))
    text = json.dumps(data, separators=separators, ensure_ascii=draw(st.booleans()))
    return text.encode("utf-8", "replace")


def spoiled(line: bytes, position: int, by: bytes) -> bytes:
    """The line with bytes put into it, or cut off where there are none."""
    at = position % (len(line) + 1)
    return line[:at] + by + line[at:] if by else line[:at]


SPOILERS = (b"", b'"', b"\\", b"\\u00", b"}", b',"type":"result"', b"\x00", b"\xff", b"{", b"\r", b" ", b"0", b"\\n")
wrong_lines = st.builds(spoiled, piece_lines(), st.integers(0, 400), st.sampled_from(SPOILERS))
other_lines = st.sampled_from(
    [
        b"",
        b"Warning: hm",
        b'{"type":"result","subtype":"success"}',
        b'{"type":"stream_event","event":{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"',
        b'{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"text_delta","text":"x"}},'
        b'"type":"result"}',
    ]
)


@pytest.mark.slow
@given(st.lists(st.one_of(piece_lines(), piece_lines(), wrong_lines, other_lines), max_size=6), st.data())
@settings(max_examples=1_500, deadline=None)
def test_runs_of_text_are_found_exactly_as_a_json_parser_finds_them(several: list[bytes], data: st.DataObject) -> None:
    repeated = [line for line in several for _ in range(data.draw(st.integers(1, 4)))]
    lines = b"".join(line + b"\n" for line in repeated)
    assert parse(lines) == one_by_one(lines)


def test_a_line_that_was_spliced_into_a_run_of_text_is_not_passed_over() -> None:
    line = (
        b'{"type":"stream_event","event":{"type":"content_block_delta","index":0,"delta":{"type":"text_delta",'
        b'"text":"word "}},"session_id":"s","parent_tool_use_id":null,"uuid":"2c791b18-a099-49c7-a44a-4c644cd33467"}\n'
    )
    lossy = BadLine("not JSON: JSONDecodeError", lossy=True)
    for at in range(1, len(line) - 1):
        spliced = line[:at] + b'{"type":"result","subtype":"success"}' + line[at:]
        lines = line * 3 + spliced + line * 3
        assert parse(lines) == one_by_one(lines)
        if at < 90:
            assert parse(lines) == [Streamed(line * 3), lossy, Streamed(line * 3)]


RESULT = b'{"type":"result","subtype":"success","result":"x","usage":{"input_tokens":1,"output_tokens":2}}'
INIT_LINE = b'{"type":"system","subtype":"init","session_id":"s","model":"m"}'


@pytest.mark.parametrize(
    ("line", "kinds"),
    [
        (INIT_LINE + RESULT, ["Init", "Result"]),
        (b"\xef\xbb\xbf" + INIT_LINE, ["Init"]),
        (b"\x00\x00" + INIT_LINE + b"\x00 " + RESULT, ["Init", "Result"]),
        (b"\x1b[?25l" + RESULT + b"\x1b[0m", ["Result"]),
        (RESULT + b"{broken", ["BadLine", "Result"]),
        (b'{"type":"user","x":' + RESULT, ["BadLine"]),  # what is inside a broken one is not trusted
        (b"hook: " + RESULT, ["BadLine"]),
        (b"[" + INIT_LINE + b"," + RESULT + b"]", ["BadLine"]),
    ],
)
def test_lines_that_hold_more_or_less_than_an_object(line: bytes, kinds: list[str]) -> None:
    events = parse(line + b"\n")
    assert [type(event).__name__ for event in events] == kinds
    assert all(event.lossy for event in events if isinstance(event, BadLine) and line.startswith(b"{"))
