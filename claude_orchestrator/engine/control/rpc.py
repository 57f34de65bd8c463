"""JSON-RPC 2.0, one object a line: requests are read, and answers are written. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from token_budget.named_tuples import NamedTuple

MAX_LINE_BYTES = 64 * 1024  # of a request


class Code(IntEnum):
    """The codes of errors; REFUSED is this program's own: the action is not possible."""

    PARSE = -32700
    INVALID = -32600
    METHOD = -32601
    PARAMS = -32602
    REFUSED = -32000


class RpcError(Exception):
    """A request that gets an error. `id` is that of the request, if it could be read."""

    def __init__(self, code: Code, text: str, id: object = None) -> None:
        super().__init__(text)
        self.code = code
        self.id = id


class RpcRequest(NamedTuple):
    """A request. Without an `id` it is a notification, which gets no answer."""

    id: str | int | float | None
    method: str
    params: Mapping[str, Any]
    answered: bool = True


def read_request(line: bytes) -> RpcRequest:
    """The request in a line. Raises RpcError."""
    try:
        data = json.loads(line.decode())
    except (ValueError, RecursionError):
        raise RpcError(Code.PARSE, "expected one JSON object on each line") from None
    if not isinstance(data, dict):
        raise RpcError(Code.INVALID, "not a JSON object: a batch is not supported")
    id, method, params = data.get("id"), data.get("method"), data.get("params", {})
    if isinstance(id, bool) or not (id is None or isinstance(id, str | int | float)):
        raise RpcError(Code.INVALID, "id: expected a string or a number")
    if data.get("jsonrpc") != "2.0" or not isinstance(method, str):
        raise RpcError(Code.INVALID, 'expected {"jsonrpc": "2.0", "method": …}', id)
    if not isinstance(params, dict):
        raise RpcError(Code.PARAMS, "params: expected an object", id)
    return RpcRequest(id, method, params, "id" in data)


def result_line(id: object, result: object) -> bytes:
    """The answer to a request."""
    return _line({"jsonrpc": "2.0", "id": id, "result": result})


def error_line(error: RpcError) -> bytes:
    """The answer to a request that failed."""
    return _line({"jsonrpc": "2.0", "id": error.id, "error": {"code": int(error.code), "message": str(error)}})


def notification_line(method: str, params_json: str) -> bytes:
    """A notification whose params are JSON text already."""
    return b'{"jsonrpc":"2.0","method":"%s","params":%s}\n' % (method.encode(), params_json.encode())


def request_line(id: int, method: str, params: Mapping[str, Any]) -> bytes:
    """A request."""
    return _line({"jsonrpc": "2.0", "id": id, "method": method, "params": dict(params)})


def _line(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":"), default=str).encode() + b"\n"
