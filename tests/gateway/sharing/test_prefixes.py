"""The prefixes of a request that the API caches."""

from __future__ import annotations

import json
from typing import Any

import pytest

from claude_orchestrator.gateway.sharing.prefixes import LIFETIMES, MAX_BODY_BYTES, prefixes_of

LONG = "x" * 4096
BREAK = {"cache_control": {"type": "ephemeral"}}


def text(value: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": value, **more}


def body(prompt: str = "hi", *, system: Any = None, account: str = "key", **more: Any) -> tuple[bytes, str]:
    system = [text(LONG, **BREAK)] if system is None else system
    messages = [{"role": "user", "content": prompt}]
    return json.dumps({"model": "m", "system": system, "messages": messages, **more}).encode(), account


def test_requests_with_the_same_beginning_have_the_same_prefix() -> None:
    (one,), (two,) = prefixes_of(*body("one")), prefixes_of(*body("two"))
    assert one == two and one.lifetime_s == LIFETIMES.short_s


@pytest.mark.parametrize(
    "more",
    [{"model": "n"}, {"account": "other"}, {"tools": [{"name": "t"}]}, {"system": [text(LONG + "y", **BREAK)]}],
)
def test_another_model_account_tool_or_text_has_another_prefix(more: dict[str, Any]) -> None:
    assert prefixes_of(*body(**more)) != prefixes_of(*body())


@pytest.mark.parametrize("more", [{"max_tokens": 1}, {"stream": True}, {"thinking": {"type": "adaptive"}}])
def test_what_comes_after_the_prefix_changes_nothing(more: dict[str, Any]) -> None:
    assert prefixes_of(*body(**more)) == prefixes_of(*body())


def test_each_breakpoint_ends_a_prefix() -> None:
    twice = [text(LONG, **BREAK), text("more", cache_control={"type": "ephemeral", "ttl": "1h"})]
    first, second = prefixes_of(*body(system=twice))
    assert (first,) == prefixes_of(*body()) and second.lifetime_s == LIFETIMES.long_s
    talk = [{"role": "user", "content": [text("a", **BREAK)]}]
    (in_system, in_talk) = prefixes_of(*body(messages=talk))
    assert in_system == first and in_talk != second
    assert prefixes_of(*body(messages=talk, thinking={"type": "disabled"}))[1] != in_talk


def test_a_breakpoint_that_moves_leaves_the_prefix_before_it() -> None:
    assert (
        prefixes_of(*body(system=[text(LONG, **BREAK), text("a", **BREAK)]))[1]
        == (prefixes_of(*body(system=[text(LONG), text("a", **BREAK)]))[0])
    )


def test_the_billing_block_is_left_out() -> None:
    def with_hash(value: str) -> tuple[bytes, str]:
        return body(system=[text(f"x-anthropic-billing-header: cch={value}"), text(LONG, **BREAK)])

    assert prefixes_of(*with_hash("1")) == prefixes_of(*with_hash("2")) == prefixes_of(*body())


@pytest.mark.parametrize(
    "request_body",
    [
        b"",
        b"no JSON cache_control",
        b'["cache_control"]',
        b'{"cache_control"',
        b"[" * 100_000 + b'"cache_control"',
        json.dumps({"system": [text("short", **BREAK)]}).encode(),
        json.dumps({"tools": 1, "system": [1, None], "messages": [1, {"content": 2}], "x": "cache_control"}).encode(),
        json.dumps({"system": [text("x" * MAX_BODY_BYTES, **BREAK)]}).encode(),
    ],
)
def test_what_is_odd_or_short_or_long_has_none(request_body: bytes) -> None:
    assert prefixes_of(request_body, "key") == ()
