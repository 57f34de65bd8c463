"""The tally on recorded streams of the real CLI, and on any stream."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claude_orchestrator.claude.events import Streamed
from claude_orchestrator.claude.stream import LineFramer, parse
from claude_orchestrator.claude.tally import UsageTally
from tests.harness import ROOT
from token_budget import Usage

DATA = ROOT / "tests" / "data"
BILLED: dict[str, dict[str, Any]] = json.loads((DATA / "billed.json").read_text())
UNSEEN = {"01-bg-agent-SIGINT"}  # what the stream never shows: a killed process's background subagent


def tally_of(raw: bytes, *cuts: int, resumed: bool = False) -> UsageTally:
    """The tally of a stream that came in pieces, cut at these offsets."""
    tally, framer = UsageTally(resumed=resumed), LineFramer()
    last = 0
    for cut in (*sorted(cuts), len(raw)):
        for event in parse(framer.feed(raw[last:cut])):
            tally.feed(event)
        last = cut
    for event in parse(framer.flush()):
        tally.feed(event)
    tally.close()
    return tally


@pytest.mark.parametrize("name", BILLED)
def test_recorded_stream(name: str) -> None:
    expected = BILLED[name]
    billed = Usage(*expected["billed"])
    tally = tally_of((DATA / f"{name}.jsonl").read_bytes(), resumed=expected["resumed"])
    if name in UNSEEN:
        assert not tally.exact and (tally.usage | billed) == billed
    elif expected["cut_off"]:
        assert not tally.exact
        inputs = Usage(output_tokens=10**9)
        assert tally.usage - inputs == billed - inputs
        assert billed.output_tokens <= tally.usage.output_tokens <= billed.output_tokens + 15
    else:
        assert tally.usage == billed
        # interrupted while a subagent was at work: the stream cannot tell whether it was in a call
        assert tally.exact or expected["exit"] < 0 or name == "01-subagent-tool-SIGINT"


@pytest.mark.parametrize("name", ["02-get-usage-live", "04-subagent-background", "06-drop-after-block-once"])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_chunking_gives_the_same_total(name: str, data: st.DataObject) -> None:
    raw = (DATA / f"{name}.jsonl").read_bytes()
    cuts = data.draw(st.lists(st.integers(0, len(raw)), max_size=20))
    assert tally_of(raw, *cuts).usage == tally_of(raw).usage


@pytest.mark.parametrize("name", BILLED)
def test_total_never_falls_nor_passes_what_was_billed(name: str) -> None:
    expected = BILLED[name]
    tally, last = UsageTally(resumed=expected["resumed"]), Usage()
    for line in (DATA / f"{name}.jsonl").read_bytes().splitlines():
        for event in parse(line + b"\n"):
            tally.feed(event)
            assert (tally.usage | last) == tally.usage
            last = tally.usage
    if not expected["cut_off"]:
        assert (last | Usage(*expected["billed"])) == Usage(*expected["billed"])


@pytest.mark.parametrize("name", ["00-simple-partial", "04-subagent", "02-two-messages"])
def test_repeated_lines_add_nothing(name: str) -> None:
    lines = (DATA / f"{name}.jsonl").read_bytes().splitlines(keepends=True)
    twice = b"".join(line * 2 for line in lines)
    assert tally_of(twice).usage == Usage(*BILLED[name]["billed"])


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_order_and_loss_of_lines_is_survived(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(BILLED)))
    lines = (DATA / f"{name}.jsonl").read_bytes().splitlines()
    shuffled = data.draw(st.lists(st.sampled_from(lines), max_size=40))
    tally, last = UsageTally(), Usage()
    for event in parse(b"".join(line + b"\n" for line in shuffled)):
        tally.feed(event)
        assert (tally.usage | last) == tally.usage
        last = tally.usage
    tally.close()


def line(data: dict[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


def start(message_id: str, tokens: int) -> bytes:
    message = {"id": message_id, "model": "m", "usage": {"input_tokens": tokens, "output_tokens": 1}}
    return line({"type": "stream_event", "event": {"type": "message_start", "message": message}})


def final(output: int) -> bytes:
    event = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": output}}
    return line({"type": "stream_event", "event": event})


def model_usage(tokens: int, output: int) -> dict[str, Any]:
    return {"m": {"inputTokens": tokens, "outputTokens": output, "costUSD": tokens / 1000}}


def answer(tokens: int, output: int) -> bytes:
    session = {"total_cost_usd": 0, "model_usage": model_usage(tokens, output) if tokens else {}}
    response = {"subtype": "success", "request_id": "usage", "response": {"session": session}}
    return line({"type": "control_response", "response": response})


def result(tokens: int, output: int) -> bytes:
    base = {"type": "result", "subtype": "success", "is_error": False, "num_turns": 1, "session_id": "s"}
    return line({**base, "modelUsage": model_usage(tokens, output)})


INIT = line({"type": "system", "subtype": "init", "session_id": "s", "model": "m"})


def count(*lines: bytes, resumed: bool = False) -> UsageTally:
    return tally_of(b"\n".join(lines), resumed=resumed)


def test_a_resumed_session_that_carries_its_totals_is_charged_once() -> None:
    carried = (answer(5000, 500), INIT, start("a", 100), final(10), result(5100, 510))
    tally = count(*carried, resumed=True)
    assert tally.usage == Usage(100, 10) and tally.exact and tally.cost_usd == pytest.approx(0.1)
    # never asked: what the stream does not explain was there before
    assert count(*carried[1:], resumed=True).usage == Usage(100, 10)


def test_clear_may_restart_the_count() -> None:
    reset = line({"type": "conversation_reset"})
    lines = (answer(0, 0), INIT, start("a", 100), final(10), result(100, 10), reset)
    restarted = count(
        *lines, INIT, line({**json.loads(result(0, 0)), "modelUsage": {}}), start("b", 7), final(3), result(7, 3)
    )
    assert restarted.usage == Usage(107, 13) and restarted.exact and restarted.cost_usd == pytest.approx(0.107)
    goes_on = count(*lines, INIT, result(100, 10), start("b", 7), final(3), result(107, 13))
    assert goes_on.usage == Usage(107, 13) and goes_on.exact


def test_what_streams_after_clear_is_in_the_count_that_begins() -> None:
    reset = line({"type": "conversation_reset"})
    lines = (answer(0, 0), INIT, start("a", 100), final(10), result(100, 10))
    after = (INIT, start("b", 7), final(3))
    assert count(*lines, reset, *after, result(7, 3)).usage == Usage(107, 13)
    assert count(*lines, reset, *after, result(107, 13)).usage == Usage(107, 13)
    unread = (start("c", 20), final(2), reset)  # it had finished before, and no count had it
    restarted = count(*lines, *unread, *after, answer(7, 3), start("d", 5), final(1), result(12, 4))
    assert restarted.usage == Usage(132, 16)


def test_a_stale_reading_changes_nothing() -> None:
    assert count(INIT, start("a", 100), final(10), result(100, 10), answer(50, 5)).usage == Usage(100, 10)


def test_a_reading_that_has_the_response_in_progress_does_not_count_it_twice() -> None:
    tally = count(answer(0, 0), INIT, start("a", 100), answer(100, 10), final(10), result(100, 10))
    assert tally.usage == Usage(100, 10) and tally.exact


def test_malformed_counts_are_inexact_until_the_next_reading() -> None:
    bad = line({"type": "assistant", "message": {"id": "x", "usage": {"input_tokens": "many", "output_tokens": -1}}})
    assert not count(INIT, start("a", 5), final(1), bad).exact
    assert count(INIT, start("a", 5), final(1), bad, result(5, 1)).exact
    huge = line({**json.loads(result(0, 0)), "modelUsage": {"m": {"inputTokens": 2**63}}})
    tally = count(INIT, start("a", 5), final(1), huge)
    assert tally.usage == Usage(5, 1) and not tally.exact


def test_streamed_text_counts_only_when_cut_off() -> None:
    delta = {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "five words in each piece"},
    }
    piece = line({"type": "stream_event", "event": delta, "parent_tool_use_id": None})
    assert parse((piece + b"\n") * 3) == [Streamed((piece + b"\n") * 3)]
    whole = count(INIT, start("a", 5), piece, piece, final(2), result(5, 2))
    assert whole.usage == Usage(5, 2) and whole.exact
    cut = count(INIT, start("a", 5), piece, piece)
    assert cut.usage == Usage(5, 10) and not cut.exact


def final_with(output: int, *iterations: dict[str, Any]) -> bytes:
    usage = {"input_tokens": 100, "output_tokens": output, "iterations": iterations}
    event = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
    return line({"type": "stream_event", "event": event})


def test_compaction_is_counted_beside_the_clis_own_count() -> None:
    """The CLI counts the message and the advisor, but no compaction; and what it counts later is not hidden by that."""
    message = {"type": "message", "input_tokens": 100, "output_tokens": 10}
    compaction = {"type": "compaction", "input_tokens": 18_000, "output_tokens": 350}
    advisor = {"type": "advisor_message", "model": "b", "input_tokens": 700, "output_tokens": 90}
    lines = (INIT, start("a", 100), final_with(10, compaction, advisor, message))
    assert count(*lines).usage == Usage(18_800, 450)
    tally = count(*lines, result(800, 100))
    assert tally.usage == Usage(18_800, 450) and tally.exact
    (lost,) = tally.cut_off  # the CLI has no cost for it
    assert (lost.id, lost.model, lost.usage) == ("a/compaction", "m", Usage(18_000, 350))
    later = count(*lines, result(800, 100), INIT, start("b", 100), final(10), result(1_400, 140))
    assert later.usage == Usage(19_400, 490) and later.exact


def delta(output: int, reason: str | None, **usage: int) -> bytes:
    event = {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": output, **usage}}
    return line({"type": "stream_event", "event": event})


STOP = line({"type": "stream_event", "event": {"type": "message_stop"}})


def test_a_response_may_state_its_counts_in_several_deltas() -> None:
    """Server tools send several: only the last has a stop reason, or counts follow it."""
    tally = count(INIT, start("a", 100), delta(2, None), delta(7, "end_turn"), STOP, result(100, 7))
    assert tally.usage == Usage(100, 7) and tally.exact
    late = count(INIT, start("a", 100), delta(2, "end_turn"), delta(7, None, cache_read_input_tokens=3), STOP)
    assert late.usage == Usage(100, 7, 0, 3)
    made_up = count(INIT, start("a", 100), delta(2, None), STOP, result(100, 2))
    assert made_up.usage == Usage(100, 2) and not made_up.exact
    never_ended = count(INIT, start("a", 100), delta(2, None), start("b", 5), final(1), STOP)
    assert never_ended.usage == Usage(105, 3) and not never_ended.exact
