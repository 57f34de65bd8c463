"""What a request to the API asks for, and how its limit is lowered."""

from __future__ import annotations

import json

import pytest

from claude_orchestrator.gateway.bounds import LARGEST_BYTES, InputBound, adds_up, dearest_terms
from claude_orchestrator.gateway.requests import (
    MESSAGES,
    RequestKind,
    Unbounded,
    kind_of,
    lowered,
    model_named,
    plain_path,
    read_request,
)


@pytest.mark.parametrize(
    ("method", "path", "body", "kind"),
    [
        ("POST", "/v1/messages", b"{}", RequestKind.MESSAGE),
        ("POST", "/v1/messages?beta=true", b"{}", RequestKind.MESSAGE),
        ("POST", "/v1/messages/count_tokens", b"{}", RequestKind.FREE),
        ("POST", "/v1/files/upload", b"x", RequestKind.FREE),
        ("POST", "/v1/files/../messages", b"x", RequestKind.UNKNOWN),
        ("POST", "/v1/messages/", b"{}", RequestKind.UNKNOWN),
        ("POST", "//v1/messages", b"{}", RequestKind.UNKNOWN),
        ("POST", "/v1/something", b"{}", RequestKind.UNKNOWN),
        ("GET", "/v1/models", b"", RequestKind.FREE),
        ("GET", "/v1/models", b"{}", RequestKind.UNKNOWN),
    ],
)
def test_what_a_request_costs(method: str, path: str, body: bytes, kind: RequestKind) -> None:
    assert kind_of(method, path, body) is kind


def test_a_path_as_servers_may_take_it() -> None:
    assert plain_path("//v1/./Messages/?x=1") == plain_path("/v1/%6dessages#top") == "/v1/messages"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"max_tokens": "5"}',
        b'{"max_tokens": true}',
        b'{"max_tokens": -1}',
        b'{"max_tokens": 1, "max_tokens": 2}',
        b"[" * 100_000,
    ],
)
def test_a_request_that_the_api_would_not_take(body: bytes) -> None:
    with pytest.raises(Unbounded):
        read_request(body)


@pytest.mark.parametrize(
    ("thinking", "tokens"),
    [({"type": "enabled", "budget_tokens": 2_000}, 2_000), ({"type": "adaptive"}, None), (5, None)],
)
def test_the_thinking_budget(thinking: object, tokens: int | None) -> None:
    asked = read_request(json.dumps({"max_tokens": 9, "thinking": thinking}).encode())
    assert (asked.max_tokens, asked.thinking_tokens) == (9, tokens)


@pytest.mark.parametrize(("model", "read"), [('"m"', "m"), ("7", ""), ("null", "")])
def test_the_model_is_a_text_or_unknown(model: str, read: str) -> None:
    assert read_request(b'{"max_tokens": 5, "model": %s}' % model.encode()).model == read


def lower(body: bytes, output_tokens: int) -> bytes:
    asked = read_request(body)
    return lowered(body, asked, output_tokens)


def test_a_request_within_its_limit_stays_as_it_is() -> None:
    assert lower(b'{"max_tokens":  10, "x": 1}', 10) == b'{"max_tokens":  10, "x": 1}'


def test_only_the_numbers_change() -> None:
    assert lower(b'{"x": [1, 2],  "max_tokens" : 9000}', 700) == b'{"x": [1, 2],  "max_tokens" : 700}'
    thinking = b'{"max_tokens": 9000, "thinking": {"budget_tokens": %d, "type": "enabled"}}'
    assert lower(thinking % 8_000, 4_000) == (thinking % 2_000).replace(b"9000", b"4000")
    assert lower(thinking % 1_500, 4_000) == (thinking % 1_500).replace(b"9000", b"4000")


@pytest.mark.parametrize(
    "body",
    [
        b'{"tools": [{"max_tokens": 5}], "max_tokens": 9000}',
        b'{"max_tok\\u0065ns": 9000}',
    ],
)
def test_a_name_that_stands_twice_is_said_in_one_way_only(body: bytes) -> None:
    """Another parser could take the other number."""
    sent = lower(body, 700)
    assert json.loads(sent) == {**json.loads(body), "max_tokens": 700}
    assert sent.count(b'"max_tokens":700') == 1


def test_a_number_that_is_no_json_is_refused() -> None:
    with pytest.raises(Unbounded, match="NaN is no JSON"):
        read_request(b'{"max_tokens": 5, "temperature": NaN}')


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"Messages": []}, "its keys are not in lower case"),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, "the API would compact the conversation"),
        ({"context_management": {"edits": "odd"}}, "the API would compact the conversation"),
        ({"context_management": "odd"}, "the API would compact the conversation"),
        ({"tools": [{"type": "advisor_20260301"}]}, "a tool of type advisor_20260301 runs other models or servers"),
        ({"mcp_servers": [{"url": "x"}]}, "the API would call MCP servers"),
        ({"thread": "t"}, "it continues a thread that the API keeps"),
        ({"tools": [{}, {"type": "mcp_toolset"}]}, "a tool of type mcp_toolset runs other models or servers"),
    ],
)
def test_what_no_bound_holds_is_refused_with_its_reason(more: dict[str, object], why: str) -> None:
    with pytest.raises(Unbounded, match=why):
        read_request(json.dumps({"max_tokens": 5, **more}).encode())


@pytest.mark.parametrize(
    "more",
    [
        {"mcp_servers": [], "container": None},
        {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
        {"tools": [{"name": "own"}, {"type": "web_search_20250305"}, "odd"]},
        {"tools": "odd"},
    ],
)
def test_what_asks_for_nothing_without_a_bound_is_sent(more: dict[str, object]) -> None:
    assert read_request(json.dumps({"max_tokens": 5, **more}).encode()).max_tokens == 5


@pytest.mark.parametrize(
    "body", [b'{"max_tokens": 5, "max_tokens": 6}', b'{"max_tokens": 5, "x": NaN}', b"\xff", b"[]"]
)
def test_what_two_readers_could_read_differently_is_refused(body: bytes) -> None:
    with pytest.raises(Unbounded):
        read_request(body)


def test_the_dearest_terms_that_a_request_allows() -> None:
    tools = [
        {"type": "web_search_20250305", "max_uses": 3},
        {"type": "web_search_20250305", "max_uses": True},
        {"name": "Bash"},
        "odd",
    ]
    dear = dearest_terms({"speed": "fast", "tools": tools})
    assert (dear.speed, dear.inference_geo) == ("fast", "us")
    assert dict(dear.server_tools) == {"web_search_requests": 3 + 8}
    plain = dearest_terms({"speed": "standard", "inference_geo": "global"})
    assert (plain.speed, plain.inference_geo, plain.server_tools) == ("", "", ())


def test_a_known_body_bounds_a_longer_one_and_giant_ones_are_forgotten() -> None:
    known = InputBound()
    known.learn(b"x" * (LARGEST_BYTES + 1), 5)
    assert not known.known
    first = b'{"messages":["' + b"a" * 5_000 + b'"]}'
    known.learn(first, 900)
    known.learn(b"y" * 9_000, 2_000)
    longer = first[:-2] + b',"' + b"b" * 2_000 + b'"]}'
    assert 900 + 2_000 <= known.of(longer) <= 900 + 2_000 + 200
    assert adds_up(first) and not adds_up(b'{"type":"thinking"}')


@pytest.mark.parametrize(
    ("path", "body", "model"),
    [
        (MESSAGES, b'{"model": "claude-opus-4", "messages": []}', "claude-opus-4"),
        (MESSAGES, b'{"max_tokens":1,"model":"m\xff"}', "m\ufffd"),
        (MESSAGES, b'{"model": 7}', "unknown"),
        (MESSAGES, b'{"model": "' + b"x" * 101 + b'"}', "unknown"),
        (MESSAGES, b" " * 4_096 + b'{"model": "late"}', "unknown"),
        (MESSAGES, b'{"system": "\\"model\\": \\"x\\""}', "unknown"),
        ("/projects/p/locations/l/publishers/anthropic/models/haiku:rawPredict?x=1", b"{}", "haiku"),
    ],
)
def test_the_model_for_figures(path: str, body: bytes, model: str) -> None:
    assert model_named(path, body) == model
