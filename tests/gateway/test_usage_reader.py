"""The usage of the API's answers, read from their bytes."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.gateway import usage_reader
from claude_orchestrator.gateway.usage_reader import EventFramer, answer_meter
from token_budget import Usage

INPUT: dict[str, Any] = {"input_tokens": 100, "output_tokens": 1}
START: dict[str, Any] = {"type": "message_start", "message": {"id": "msg_1", "model": "m", "usage": INPUT}}
TEXT: dict[str, Any] = {
    "type": "content_block_delta",
    "index": 0,
    "delta": {"type": "text_delta", "text": "some words " * 20},
}
DELTA: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 50}}
STOP: dict[str, Any] = {"type": "message_stop"}
WHOLE = [START, TEXT, DELTA, STOP]
BODY: dict[str, Any] = {"id": "msg_1", "type": "message", "model": "m", "stop_reason": "end_turn"}


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


def read(data: bytes, encoding: str = "", chunk: int = 10_000) -> ApiUsage:
    """The usage at the end of an answer that came in chunks."""
    meter = answer_meter(encoding)
    for start in range(0, len(data), chunk):
        meter.feed(data[start : start + chunk])
    usage = meter.close()
    assert usage is not None
    return usage


def read_body(data: Any, encoding: str = "") -> ApiUsage:
    return read(json.dumps(data).encode(), encoding)


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_a_whole_stream_in_any_chunks_and_with_any_line_ends(chunk: int, line_end: bytes) -> None:
    usage = read(b"\xef\xbb\xbf" + sse(*WHOLE).replace(b"\n", line_end), chunk=chunk)
    assert usage.usage == Usage(100, 50)
    assert (usage.id, usage.model, usage.stop_reason) == ("msg_1", "m", "end_turn")
    assert usage.whole and usage.exact and usage.told and not usage.cut


@pytest.mark.parametrize("before", [b"", b"\n", b"\xef\xbb\xbf", b"\r\n \t"])
@pytest.mark.parametrize("chunk", [1, 10_000])
def test_the_content_decides_what_is_read(before: bytes, chunk: int) -> None:
    """Servers label events as text, as JSON or not at all, and claude reads them all the same."""
    assert read(before + sse(*WHOLE), chunk=chunk).usage == Usage(100, 50)
    if not before.startswith(b"\xef") or chunk > 1:
        document = json.dumps({**BODY, "usage": {"input_tokens": 7, "output_tokens": 3}}).encode()
        assert read(before + document, chunk=chunk).usage == Usage(7, 3)


def test_usage_is_known_while_the_stream_passes() -> None:
    meter = answer_meter("")
    assert meter.feed(b": a comment\n\n") is None
    first = meter.feed(sse(START))
    assert first is not None and first.usage == Usage(100, 1) and not first.whole
    assert meter.feed(sse(TEXT)) is None
    last = meter.feed(sse(DELTA, STOP))
    assert last is not None and last.usage == Usage(100, 50) and last.whole


def test_an_answer_that_was_cut_off_is_charged_at_least_what_it_streamed() -> None:
    usage = read(sse(START, TEXT))
    assert usage.cut and not usage.whole
    assert usage.usage.input_tokens == 100 and usage.usage.output_tokens > 10


def test_an_answer_without_output_counts_is_a_lower_bound() -> None:
    usage = read(sse(START, TEXT, {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}))
    assert usage.whole and not usage.exact and not usage.told


def test_the_last_event_counts_although_no_blank_line_follows_it() -> None:
    assert read(sse(START, DELTA).rstrip(b"\n")).usage == Usage(100, 50)


def test_an_error_before_the_message_costs_nothing() -> None:
    usage = read(sse({"type": "error", "error": {"type": "overloaded_error"}}))
    assert usage.usage == Usage() and usage.told


def test_a_stream_that_says_nothing_has_no_usage() -> None:
    meter = answer_meter("")
    meter.feed(sse({"type": "ping"}) + b"data: [1]\n\n")
    assert meter.close() is None


def test_a_broken_event_makes_the_count_a_lower_bound() -> None:
    usage = read(sse(START) + b'data: {"type": "message_delta", "usage"\n\n' + sse(DELTA, STOP))
    assert usage.usage == Usage(100, 50) and not usage.exact and not usage.told


@pytest.mark.parametrize("message", [None, 5, {"usage": "none"}, {}])
def test_a_message_of_another_shape_is_no_exact_count(message: object) -> None:
    assert not read(sse({"type": "message_start", "message": message}, DELTA, STOP)).exact


@pytest.mark.parametrize("delta", [None, [], {"stop_reason": 5}])
def test_a_delta_of_another_shape_names_no_reason(delta: object) -> None:
    usage = read(sse(START, {**DELTA, "delta": delta}))
    assert usage.usage == Usage(100, 50) and usage.stop_reason is None


def test_an_event_that_is_too_long_is_left_out_and_counted() -> None:
    framer = EventFramer(max_event_bytes=40)
    assert framer.feed(b"data: short\n\ndata: " + b"x" * 100 + b"\n\ndata: next\n\n") == [b"short", b"next"]
    assert framer.dropped == 1
    assert framer.feed(b"data: 20 characters long\n" * 3 + b"\n") == [] and framer.dropped == 2


def test_lines_of_data_are_joined_and_other_fields_are_skipped() -> None:
    framer = EventFramer()
    assert framer.feed(b"id: 5\ndata: a\nretry: 3\ndata:b\n\n\nid: 6\n\n") == [b"a\nb"]


def test_a_document_states_its_usage_at_its_end() -> None:
    usage = read_body({**BODY, "usage": {"input_tokens": 10, "output_tokens": 20}})
    assert usage.usage == Usage(10, 20) and usage.exact and usage.told and usage.whole
    assert (usage.id, usage.model, usage.stop_reason) == ("msg_1", "m", "end_turn")
    assert not read_body({**BODY, "stop_reason": 1, "usage": {"input_tokens": 10}}).told


def test_an_error_document_costs_nothing() -> None:
    assert read_body({"type": "error"}).usage == Usage()


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b'{"usage": 5}', b"[" * 100_000])
def test_a_document_without_usage(body: bytes) -> None:
    meter = answer_meter("")
    meter.feed(body)
    assert meter.close() is None


def test_a_document_that_is_too_large_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_reader, "MAX_BODY_BYTES", 10)
    meter = answer_meter("")
    meter.feed(json.dumps({**BODY, "usage": INPUT}).encode())
    assert meter.close() is None


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize("chunk", [1, 10_000])
@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(sse(*WHOLE))),
        ("x-gzip", gzip.compress(sse(START, TEXT)) + gzip.compress(sse(DELTA, STOP))),
        ("deflate", zlib.compress(sse(*WHOLE))),
        ("deflate", raw_deflate(sse(*WHOLE))),
    ],
)
def test_compressed_answers(encoding: str, packed: bytes, chunk: int) -> None:
    usage = read(packed, encoding=encoding, chunk=chunk)
    assert usage.usage == Usage(100, 50) and usage.exact


@pytest.mark.parametrize(
    "packed", [gzip.compress(sse(*WHOLE))[:-8], gzip.compress(sse(*WHOLE)) + b"and something else"]
)
def test_a_damaged_compression_is_no_exact_count(packed: bytes) -> None:
    usage = read(packed, encoding="gzip", chunk=1_000)
    assert usage.usage == Usage(100, 50) and not usage.exact and not usage.told


def test_nothing_is_read_after_a_damage() -> None:
    meter = answer_meter("gzip")
    assert meter.feed(b"no gzip at all") is None
    assert meter.feed(gzip.compress(sse(*WHOLE))) is None and meter.close() is None
