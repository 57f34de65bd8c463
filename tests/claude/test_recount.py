"""What a killed run's streams and transcripts show of its attempts, by values."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from claude_orchestrator.claude.recount import MAX_SESSIONS, Recount
from tests.claude.test_tally import INIT, delta, final, line, result, start
from token_budget import Usage
from token_budget.models import NO_USAGE

ASKS = line({"type": "system", "subtype": "status", "status": "requesting"})


def piece(text: str) -> bytes:
    event = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}
    return line({"type": "stream_event", "event": event})


def written(message_id: str, tokens: int, output: int, at_s: float = 15.0, **more: Any) -> dict[str, Any]:
    """A line of a transcript."""
    usage = {"input_tokens": tokens, "output_tokens": output}
    message = {"id": message_id, "model": "m", "usage": usage, "stop_reason": "end_turn", "content": []}
    moment = datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")
    return {"type": "assistant", "message": message, "timestamp": moment, **more}


def recount(
    stream: list[bytes],
    transcript: Sequence[dict[str, Any]] = (),
    agents: Sequence[dict[str, Any]] = (),
    *,
    first_input: Usage = NO_USAGE,
) -> Recount:
    found = Recount(resumed=False, first_input=first_input)
    found.read_stream(b"".join(one + b"\n" for one in stream))
    for one in transcript:
        found.read_transcript(one, 10.0, 20.0)
    for one in agents:
        found.read_transcript(one, 10.0, 20.0, "agent-1")
    found.close()
    return found


def test_a_response_that_was_cut_off_has_its_input_and_what_was_streamed() -> None:
    found = recount([INIT, start("a", 100), piece("one two three ")])
    assert found.usage == Usage(100, 3) and not found.exact  # a token a word, at least
    assert list(found.sessions) == ["s"]


def test_the_transcript_completes_it() -> None:
    found = recount([INIT, start("a", 100), piece("one two ")], [written("a", 100, 50)])
    assert found.usage == Usage(100, 50)
    assert found.uncosted.usage == Usage(100, 50) and found.uncosted.model == "m"


def test_a_response_that_only_the_transcript_has_counts_once() -> None:
    seen = [INIT, start("a", 100), final(10)]
    found = recount(seen, [written("a", 100, 10), written("b", 200, 20), written("b", 200, 20)])
    assert found.usage == Usage(300, 30)


def test_lines_of_other_times_and_kinds_do_not_count() -> None:
    others: list[dict[str, Any]] = [
        written("before", 1, 1, 9.0),
        written("after", 1, 1, 21.0),
        {**written("user", 1, 1), "type": "user"},
        {**written("undated", 1, 1), "timestamp": None},
        {**written("undated", 1, 1), "timestamp": "yesterday"},
        written("", 1, 1),
        {**written("own", 1, 1), "message": {"id": "own", "model": "<synthetic>", "usage": {"input_tokens": 9}}},
        {"type": "assistant", "timestamp": "1970-01-01T00:00:15"},
    ]
    assert recount([INIT], others).usage == Usage()


def test_subagents_count_by_their_transcripts_or_by_the_clis_own_count_but_never_twice() -> None:
    seen = [INIT, start("a", 100), final(10), result(400, 40)]  # claude has counted 300 more
    assert recount(seen, [written("a", 100, 10)], [written("x", 300, 30)]).usage == Usage(400, 40)
    later = [*seen, start("b", 100), final(10)]
    both = [written("a", 100, 10), written("b", 100, 10)]
    found = recount(later, both, [written("x", 300, 30), written("y", 300, 30)])
    assert found.usage == Usage(800, 80) and not found.exact
    assert found.by_model == {"m": Usage(800, 80)}
    inside = recount([INIT], [written("x", 300, 30, isSidechain=True)])
    assert inside.usage == Usage(300, 30) and inside.tally.usage == Usage()


def test_it_is_exact_if_nothing_was_at_work() -> None:
    seen = [INIT, start("a", 100), final(10), result(100, 10)]
    found = recount(seen, [written("a", 100, 10)])
    assert found.exact and found.usage == Usage(100, 10) and found.uncosted.usage == Usage()


def test_a_request_without_an_answer_has_as_much_input_as_the_one_before() -> None:
    one = [INIT, ASKS, start("a", 100), delta(10, "tool_use")]
    assert recount([*one, ASKS]).unanswered == Usage(100)
    assert recount(one).unanswered == Usage()
    assert recount([*one, ASKS], [written("a", 100, 10), written("b", 130, 9)]).unanswered == Usage()  # it had one


def test_a_first_request_has_as_much_as_that_of_its_session_or_of_others() -> None:
    assert recount([INIT, ASKS]).unanswered == Usage()
    assert recount([INIT, ASKS], first_input=Usage(70, 5)).unanswered == Usage(70)
    assert recount([INIT, ASKS], [written("old", 90, 9, 5.0)], first_input=Usage(70)).unanswered == Usage(90)


def test_a_subagents_response_in_progress_has_as_much_input_as_the_one_before() -> None:
    asks = {"type": "user", "timestamp": "1970-01-01T00:00:16Z"}
    answered = recount([INIT], agents=[written("x", 300, 30), asks, written("y", 310, 3)])
    assert answered.usage == Usage(610, 33) and answered.unanswered == Usage()
    assert recount([INIT], agents=[written("x", 300, 30), asks]).unanswered == Usage(300)
    assert recount([INIT], agents=[asks]).unanswered == Usage()  # its first request: nothing is known


def test_sessions_have_a_bound() -> None:
    many = [line({"type": "system", "subtype": "init", "session_id": f"s{n}"}) for n in range(MAX_SESSIONS + 9)]
    found = recount(many)
    assert len(found.sessions) == MAX_SESSIONS and found.uncosted.model == ""
