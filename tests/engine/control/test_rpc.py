"""JSON-RPC: what is a request, and what each malformed one gets."""

from __future__ import annotations

import json

import pytest

from claude_orchestrator.engine.control.rpc import (
    Code,
    RpcError,
    RpcRequest,
    error_line,
    notification_line,
    read_request,
    request_line,
    result_line,
)


def test_a_request_is_read_as_it_was_written() -> None:
    assert read_request(request_line(7, "stop", {"names": ["a"]})) == RpcRequest(7, "stop", {"names": ["a"]})
    assert read_request(b'{"jsonrpc":"2.0","method":"pause"}') == RpcRequest(None, "pause", {}, answered=False)


@pytest.mark.parametrize(
    ("line", "code", "id"),
    [
        (b"", Code.PARSE, None),
        (b"{", Code.PARSE, None),
        (b"\xff\xfe", Code.PARSE, None),
        (b"[" * 100_000, Code.PARSE, None),
        (b"[]", Code.INVALID, None),
        (b"7", Code.INVALID, None),
        (b'{"jsonrpc":"2.0","method":"x","id":true}', Code.INVALID, None),
        (b'{"jsonrpc":"2.0","method":"x","id":{}}', Code.INVALID, None),
        (b'{"jsonrpc":"1.0","method":"x","id":3}', Code.INVALID, 3),
        (b'{"jsonrpc":"2.0","method":4,"id":"a"}', Code.INVALID, "a"),
        (b'{"jsonrpc":"2.0","method":"x","id":"a","params":[1]}', Code.PARAMS, "a"),
    ],
)
def test_what_is_no_request_gets_an_error(line: bytes, code: Code, id: object) -> None:
    with pytest.raises(RpcError) as error:
        read_request(line)
    assert (error.value.code, error.value.id) == (code, id)
    assert json.loads(error_line(error.value))["error"]["code"] == int(code)


def test_every_answer_is_one_line() -> None:
    lines = [result_line(1, {"text": "a\nb"}), notification_line("event", '{"a":1}'), request_line(1, "a\nb", {})]
    assert all(line.count(b"\n") == 1 and line.endswith(b"\n") for line in lines)
    assert json.loads(lines[1]) == {"jsonrpc": "2.0", "method": "event", "params": {"a": 1}}
