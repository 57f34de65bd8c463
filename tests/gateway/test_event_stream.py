"""Bedrock's framing of events: cut anywhere, broken anywhere, and read as the Messages API's own."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.gateway.accounts import account_of
from claude_orchestrator.gateway.bedrock.event_stream import BrokenStream, Messages, as_events
from claude_orchestrator.gateway.usage_reader import answer_meter
from tests.bedrock_frames import framed
from token_budget.models import Usage

USAGE = {"input_tokens": 7, "output_tokens": 1}
START = {"type": "message_start", "message": {"id": "m1", "model": "m", "usage": USAGE}}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}
STOP = {"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 7}}


def read(raw: bytes, cuts: list[int]) -> ApiUsage | None:
    meter, last = answer_meter("", in_frames=True), 0
    for cut in (*sorted(cuts), len(raw)):
        meter.feed(raw[last:cut])
        last = max(last, cut)
    return meter.close()


@given(st.lists(st.integers(0, 900), max_size=6))
def test_usage_does_not_depend_on_where_the_bytes_are_cut(cuts: list[int]) -> None:
    raw = b"".join(map(framed, (START, END, STOP)))
    usage = read(raw, [cut for cut in cuts if cut < len(raw)])
    assert usage is not None and usage.usage == Usage(7, 5) and usage.id == "m1" and usage.exact


def test_a_stream_that_breaks_is_inexact_and_never_less_than_was_stated() -> None:
    raw = b"".join(map(framed, (START, END, STOP)))
    for place in range(len(framed(START)), len(raw), 7):
        damaged = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        usage = read(damaged, [])
        assert usage is not None and usage.usage.input_tokens == 7 and not (usage.exact and usage.whole), place


@pytest.mark.parametrize("size", [0, 3, 15, 2**31, 2**24 + 1])
def test_impossible_lengths_are_no_stream(size: int) -> None:
    import zlib

    beginning = size.to_bytes(4, "big") + (0).to_bytes(4, "big")
    with pytest.raises(BrokenStream, match="length"):
        list(Messages().feed(beginning + zlib.crc32(beginning).to_bytes(4, "big")))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_another_exception(data: bytes) -> None:
    with contextlib.suppress(BrokenStream):
        list(Messages().feed(data))
    assert answer_meter("", in_frames=True).feed(data) is None


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b'{"message":"throttled"}', b'{"bytes":7}', b'{"bytes":"%%"}', b'{"bytes":"AA=="}']
)
def test_what_is_no_event_is_an_error(payload: bytes) -> None:
    assert as_events(payload).startswith(b"event: error\n")


def test_requests_with_one_key_have_one_account_whatever_their_signatures() -> None:
    signed = "AWS4-HMAC-SHA256 Credential=AKIA{}/2026/us-east-1/bedrock/aws4_request, SignedHeaders=host, Signature={}"
    first, second = ({"authorization": signed.format("ONE", number)} for number in range(2))
    assert account_of(first) == account_of(second) != account_of({"authorization": signed.format("TWO", 0)})
    assert account_of({"x-api-key": "a"}) != account_of({"x-api-key": "b"})
    assert account_of({"authorization": "Bearer a"}) != account_of({"authorization": "Bearer b"})
