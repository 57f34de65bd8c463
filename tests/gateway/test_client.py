"""What a place at the gateway remembers of its requests stays within a few megabytes."""

from __future__ import annotations

import json

from claude_orchestrator.gateway.address import ApiAddress
from claude_orchestrator.gateway.bounds import LARGEST_BYTES, InputBound
from claude_orchestrator.gateway.client import REMEMBERED_BYTES, Client
from claude_orchestrator.gateway.requests import read_request
from tests.metered import Metered


def body_of(model: str, *texts: str) -> bytes:
    messages = [{"role": "user", "content": text} for text in texts]
    return json.dumps({"model": model, "max_tokens": 9, "messages": messages, "system": "s"}).encode()


def remembered(client: Client) -> int:
    return sum(bound.size_bytes for bound in client.bounds.values())


def learn(client: Client, body: bytes) -> InputBound:
    known = client.bound(read_request(body), [])
    client.learn(known, body, len(body) // 4)
    return known


def test_a_conversation_that_grows_is_remembered_once() -> None:
    client, texts = Client("", ApiAddress.of({}), Metered()), ["t" * 30_000]
    for number in range(50):
        texts.append(f"{number}" * 9_000)
        known = learn(client, body_of("m", *texts))
    assert len(known.known) == 1 and remembered(client) == len(body_of("m", *texts))
    assert known.of(body_of("m", *texts, "more")) < len(body_of("m", *texts)) // 4 + 200


def test_conversations_of_all_models_share_a_few_megabytes() -> None:
    client = Client("", ApiAddress.of({}), Metered())
    for number in range(40):
        body = body_of(f"m{number % 3}", f"{number}" * 400_000)
        known = learn(client, body)
        assert remembered(client) <= REMEMBERED_BYTES and known.known[0][0] == body


def test_the_latest_is_remembered_even_where_it_is_large() -> None:
    client = Client("", ApiAddress.of({}), Metered())
    learn(client, body_of("small", "x"))
    large = body_of("m", "y" * (REMEMBERED_BYTES + 1))
    assert [body for body, _ in learn(client, large).known] == [large] and remembered(client) == len(large)
    assert not learn(client, body_of("huge", "z" * LARGEST_BYTES)).known
