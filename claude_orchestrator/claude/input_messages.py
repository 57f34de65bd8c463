"""The messages of claude's streaming input: a turn, a control request, and the answer to one of claude's own. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def turn(text: str) -> dict[str, Any]:
    """A prompt, which begins a turn."""
    return {"type": "user", "message": {"role": "user", "content": text}}


def control_request(request_id: str, subtype: str, **more: object) -> dict[str, Any]:
    """A control request: `initialize`, `get_usage`, `interrupt`."""
    return {"type": "control_request", "request_id": request_id, "request": {"subtype": subtype, **more}}


def permission(request_id: str, given: Mapping[str, Any] | None, reason: str = "") -> dict[str, Any]:
    """The answer to `can_use_tool`: allow the call as it was `given`, or deny it with a reason if that is None."""
    answer: dict[str, Any] = {"behavior": "deny", "message": reason}
    if given is not None:
        answer = {"behavior": "allow", "updatedInput": dict(given)}
    return _response(subtype="success", request_id=request_id, response=answer)


def not_supported(request_id: str) -> dict[str, Any]:
    """The answer to a request of another kind: without one, claude would wait for ever."""
    return _response(subtype="error", request_id=request_id, error="not supported")


def _response(**response: object) -> dict[str, Any]:
    return {"type": "control_response", "response": response}
