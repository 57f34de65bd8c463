"""The smallest request that reads what other conversations share."""

from __future__ import annotations

import json
from typing import Any

import pytest

from claude_orchestrator.gateway.sharing.kept import KeptRequest, kept_request
from claude_orchestrator.gateway.sharing.prefixes import prefixes_of
from tests.prompt_cache import PromptCache

BREAK = {"cache_control": {"type": "ephemeral"}}
SYSTEM = [{"type": "text", "text": "x" * 8_000, **BREAK}, {"type": "text", "text": "y" * 8_000, **BREAK}]
TALK = [{"role": "user", "content": [{"type": "text", "text": "z" * 8_000, **BREAK}]}]


def body(**more: Any) -> dict[str, Any]:
    talk = {"system": SYSTEM, "messages": TALK}
    return {"model": "m", "max_tokens": 64_000, "stream": True, "tools": [{"name": "t"}], **talk, **more}


def kept(data: dict[str, Any]) -> KeptRequest | None:
    sent = json.dumps(data).encode()
    return kept_request("/v1/messages?beta=true", {"x-api-key": "k"}, sent, prefixes_of(sent, "k"))


def test_it_reads_the_longest_prefix_before_the_messages_and_writes_nothing() -> None:
    found = kept(body())
    assert found is not None and found.prefix == prefixes_of(json.dumps(body()).encode(), "k")[1]
    assert (found.path, found.headers) == ("/v1/messages?beta=true", (("x-api-key", "k"),))
    cache = PromptCache()
    first = cache.ask(body(), 0.0)
    cache.begin(first, 0.0)
    again = cache.ask(json.loads(found.body), 299.0)
    assert not again.written and first.written[1].tokens == again.read_tokens
    cache.begin(again, 299.0)
    assert cache.ask(body(), 598.0).read_tokens == again.read_tokens


def test_all_that_the_prefix_depends_on_stays_as_it_was() -> None:
    more = {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}, "context_management": {"edits": []}}
    found = kept(body(**more))
    assert found is not None
    data = json.loads(found.body)
    own = {"messages": [{"role": "user", "content": "."}], "max_tokens": 1}
    assert data == {**body(**more), **own}
    assert "cache_control" not in json.loads((kept(body(**BREAK)) or found).body)


@pytest.mark.parametrize(
    "more",
    [
        {"thinking": {"type": "enabled", "budget_tokens": 4_000}},
        {"system": "short"},
        {"system": SYSTEM[:1], "tools": 7},
    ],
)
def test_what_cannot_be_repeated_in_short(more: dict[str, Any]) -> None:
    assert (kept(body(**more)) is None) is ("tools" not in more)


def test_a_prefix_for_an_hour_is_known_as_one() -> None:
    hour = [{"type": "text", "text": "x" * 8_000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    found = kept(body(system=hour))
    assert found is not None and found.prefix.for_an_hour and found.prefix.lifetime_s == 3600.0
