"""The stand-in's prompt cache behaves as the API's documentation says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.prompt_cache import LEAST_TOKENS, PromptCache

BREAK = {"cache_control": {"type": "ephemeral"}}
HOUR = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
LONG = "x" * 4 * LEAST_TOKENS


def text(value: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": value, **more}


def body(
    *messages: dict[str, Any], system: tuple[dict[str, Any], ...] = (text(LONG, **BREAK),), **more: Any
) -> dict[str, Any]:
    return {"model": "m", "system": list(system), "messages": [{"role": "user", "content": list(messages)}], **more}


def ask(cache: PromptCache, request: dict[str, Any], at: float = 0.0) -> tuple[int, int, int]:
    """Input, written and read tokens of a request whose response begins at once."""
    asked = cache.ask(request, at)
    cache.begin(asked, at)
    return asked.input_tokens, asked.written_tokens, asked.read_tokens


def test_the_second_request_reads_what_the_first_one_wrote() -> None:
    cache = PromptCache()
    rest, written, read = ask(cache, body(text("one")))
    assert written > LEAST_TOKENS and not read and rest > 0
    assert ask(cache, body(text("two"))) == (rest, 0, written)
    assert list(cache.writes.values()) == list(cache.reads.values()) == [1]


def test_an_entry_can_be_read_once_the_response_begins_that_writes_it() -> None:
    cache = PromptCache()
    first, second = cache.ask(body(text("one")), 0.0), cache.ask(body(text("two")), 0.5)
    cache.begin(first, 1.0)
    assert second.read_tokens == 0 and second.written_tokens == first.written_tokens
    assert cache.ask(body(text("three")), 1.0).read_tokens == first.written_tokens


def test_it_lives_for_five_minutes_after_its_last_use_or_for_an_hour() -> None:
    cache = PromptCache()
    ask(cache, body(text("a")), at=0)
    assert ask(cache, body(text("a")), at=299)[2] and ask(cache, body(text("a")), at=598)[2]
    assert not ask(cache, body(text("a")), at=898)[2]
    for_an_hour = body(text("a"), system=(text(LONG + "y", **HOUR),))
    assert cache.ask(for_an_hour, 0).tokens_by_lifetime["1h"]
    ask(cache, for_an_hour, at=0)
    assert ask(cache, for_an_hour, at=3599)[2]


def test_a_short_prefix_is_not_cached() -> None:
    assert ask(PromptCache(), body(text("a"), system=(text("short", **BREAK),)))[1] == 0


@pytest.mark.parametrize("more", [{"model": "n"}, {"tools": [{"name": "t"}]}])
def test_another_model_or_other_tools_read_nothing(more: dict[str, Any]) -> None:
    cache = PromptCache()
    ask(cache, body(text("a")))
    assert ask(cache, body(text("a"), **more))[2] == 0


def test_other_thinking_reads_the_system_prompt_only() -> None:
    cache = PromptCache()
    _, written, _ = ask(cache, body(text(LONG, **BREAK), thinking={"type": "disabled"}))
    _, _, read = ask(cache, body(text(LONG, **BREAK), thinking={"type": "adaptive"}))
    assert LEAST_TOKENS < read < written


def test_a_conversation_that_grows_reads_its_beginning() -> None:
    cache = PromptCache()
    ask(cache, body(text("one"), text(LONG, **BREAK)))
    before = cache.ask(body(text("one"), text(LONG, **BREAK)), 0.0).read_tokens
    rest, written, read = ask(cache, body(text("one"), text(LONG), text("two", **BREAK)))
    assert rest == 0 and read == before and 0 < written < LEAST_TOKENS


def test_the_billing_block_is_taken_out() -> None:
    cache = PromptCache()
    for number, hit in ((1, False), (2, True)):
        billing = text(f"x-anthropic-billing-header: cch={number}")
        assert bool(ask(cache, body(text("a"), system=(billing, text(LONG, **BREAK))))[2]) is hit


def test_what_is_never_read_is_wasted() -> None:
    cache = PromptCache()
    ask(cache, body(text("a")))
    assert cache.wasted_writes() == 1
    ask(cache, body(text("b")))
    assert cache.wasted_writes() == 0
