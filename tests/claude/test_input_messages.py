"""The messages that go to claude on its standard input."""

from __future__ import annotations

from claude_orchestrator.claude import input_messages


def test_a_turn_and_a_control_request() -> None:
    assert input_messages.turn("hi") == {"type": "user", "message": {"role": "user", "content": "hi"}}
    assert input_messages.control_request("7", "get_usage", skip_behaviors=True) == {
        "type": "control_request",
        "request_id": "7",
        "request": {"subtype": "get_usage", "skip_behaviors": True},
    }


def test_a_tool_call_is_allowed_as_it_was_given_or_denied_with_a_reason() -> None:
    allowed = input_messages.permission("7", {"command": "ls"})["response"]
    assert allowed["response"] == {"behavior": "allow", "updatedInput": {"command": "ls"}}
    denied = input_messages.permission("7", None, "not here")["response"]
    assert denied["response"] == {"behavior": "deny", "message": "not here"}
    assert (denied["subtype"], denied["request_id"]) == ("success", "7")


def test_every_request_gets_an_answer() -> None:
    assert input_messages.not_supported("7") == {
        "type": "control_response",
        "response": {"subtype": "error", "request_id": "7", "error": "not supported"},
    }
