"""A session as a person reads it: text, thoughts, tools, results, from the lines of a log. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any

from claude_orchestrator.claude.tool_text import call_text
from token_budget.named_tuples import NamedTuple

MAX_TEXT = 100_000  # characters of one piece


class Piece(StrEnum):
    """What a part of a conversation is."""

    TURN = "turn"
    TEXT = "text"
    THOUGHT = "thought"
    TOOL = "tool"
    OUTPUT = "output"
    NOTE = "note"
    RESULT = "result"


class Said(NamedTuple):
    """A part of a conversation. `failed`: a tool or a turn that ended with an error. `parent`: of a subagent.

    A tool has its input in `given`, and its id; the output of the tool has the same id.
    """

    piece: Piece
    text: str
    failed: bool = False
    parent: str | None = None
    id: str = ""
    given: Mapping[str, Any] | None = None


def conversation(lines: Iterable[bytes]) -> Iterator[Said]:
    """The parts of a conversation in the order of the log. Lines that cannot be read are left out."""
    for line in lines:
        try:
            data = json.loads(line.decode("utf-8", "replace"), strict=False)
        except (ValueError, RecursionError):
            continue
        if isinstance(data, dict):
            yield from _parts(data)


def _parts(data: Mapping[str, Any]) -> Iterator[Said]:
    parent = data.get("parent_tool_use_id")
    parent = parent if isinstance(parent, str) else None
    match data.get("type"):
        case "assistant":
            yield from _blocks(data, parent)
        case "user":
            yield from _outputs(data, parent)
        case "system":
            yield from _notes(data)
        case "result":
            failed = data.get("is_error") is True or data.get("subtype") != "success"
            text = _text(data.get("result")) or ", ".join(map(_text, _list(data.get("errors"))))
            yield Said(Piece.RESULT, text or _text(data.get("subtype")), failed)
        case "control_request":
            request = _object(data.get("request"))
            if request.get("subtype") == "can_use_tool":
                what = call_text(_text(request.get("tool_name")), request.get("input"))
                yield Said(Piece.NOTE, f"asks for approval: {what}")


def _blocks(data: Mapping[str, Any], parent: str | None) -> Iterator[Said]:
    for block in map(_object, _list(_object(data.get("message")).get("content"))):
        match block.get("type"):
            case "text":
                yield Said(Piece.TEXT, _text(block.get("text")), parent=parent)
            case "thinking":
                if text := _text(block.get("thinking")).strip():
                    yield Said(Piece.THOUGHT, text, parent=parent)
            case "tool_use":
                given = _object(block.get("input"))
                text = call_text(_text(block.get("name")), given)
                yield Said(Piece.TOOL, text, parent=parent, id=_text(block.get("id")), given=given)


def _outputs(data: Mapping[str, Any], parent: str | None) -> Iterator[Said]:
    content = _object(data.get("message")).get("content")
    if isinstance(content, str):
        yield Said(Piece.NOTE, _text(content), parent=parent)
        return
    for block in map(_object, _list(content)):
        if block.get("type") == "tool_result":
            failed, tool_id = block.get("is_error") is True, _text(block.get("tool_use_id"))
            yield Said(Piece.OUTPUT, _content(block.get("content")), failed, parent, tool_id)
        elif text := _text(block.get("text")):
            yield Said(Piece.NOTE, text, parent=parent)


def _notes(data: Mapping[str, Any]) -> Iterator[Said]:
    match data.get("subtype"):
        case "init":
            yield Said(Piece.TURN, f"session {_text(data.get('session_id'))}, model {_text(data.get('model'))}")
        case "permission_denied":
            yield Said(Piece.NOTE, f"permission denied for {_text(data.get('tool_name'))}", failed=True)
        case "api_retry":
            yield Said(Piece.NOTE, f"the API refused a request: {_text(data.get('error'))}", failed=True)
        case "compact_boundary":
            yield Said(Piece.NOTE, "the conversation was compacted")


def _content(value: object) -> str:
    if isinstance(value, str):
        return _text(value)
    return "\n".join(_text(_object(block).get("text")) or f"[{_object(block).get('type')}]" for block in _list(value))


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    return value[:MAX_TEXT].encode("utf-8", "replace").decode() if isinstance(value, str) else ""
