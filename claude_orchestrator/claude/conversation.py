"""A session as a person reads it: text, thoughts, tools, results, from the lines of a log. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from claude_orchestrator.claude.tool_text import call_text
from token_budget.named_tuples import NamedTuple
from token_budget.string_enums import StrEnum

MAX_TEXT = 100_000  # characters of one piece
NOTHING: Mapping[str, Any] = MappingProxyType({})


class EntryKind(StrEnum):
    """What a part of a conversation is."""

    TURN = "turn"
    TEXT = "text"
    THOUGHT = "thought"
    TOOL = "tool"
    OUTPUT = "output"
    PROMPT = "prompt"  # of the user
    NOTE = "note"
    RESULT = "result"
    # what only pages need
    PART = "part"  # of a text or a thought that is being written
    USAGE = "usage"  # of a message
    AGENT = "agent"  # what a subagent has used, by the CLI's own count
    RAW = "raw"  # a line that cannot be read


NOT_READ = frozenset({EntryKind.PART, EntryKind.USAGE, EntryKind.AGENT, EntryKind.RAW})


class Said(NamedTuple):
    """A part of a conversation. `failed`: a tool or a turn that ended with an error. `parent`: of a subagent.

    A tool has its input in `given`, and its id; the output of the tool has the same id. `facts` has what else there is:
    the `tool`; the `block` and `of` of a part; the `counts` of usage; the `tokens` of a subagent; the `subtype` of a
    result, and what was `denied`.
    """

    piece: EntryKind
    text: str
    failed: bool = False
    parent: str | None = None
    id: str = ""
    given: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = NOTHING


def conversation(lines: Iterable[bytes]) -> Iterator[Said]:
    """The parts of a conversation in the order of the log. Lines that cannot be read are left out."""
    return (said for said in everything(lines) if said.piece not in NOT_READ)


def everything(lines: Iterable[bytes]) -> Iterator[Said]:
    """The same with texts as they are written, usage, and the lines that cannot be read."""
    for line in lines:
        try:
            data = json.loads(line.decode("utf-8", "replace"), strict=False)
        except (ValueError, RecursionError):
            data = None
        if isinstance(data, dict):
            yield from _parts(data)
        elif line.strip():
            yield Said(EntryKind.RAW, line[:MAX_TEXT].decode("utf-8", "replace"))


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
            subtype = _text(data.get("subtype"))
            denied = [_text(_object(one).get("tool_name")) for one in _list(data.get("permission_denials"))]
            yield Said(EntryKind.RESULT, text or subtype, failed, facts={"subtype": subtype, "denied": denied})
        case "stream_event":
            yield from _written(_object(data.get("event")), parent)
        case "control_request":
            request = _object(data.get("request"))
            if request.get("subtype") == "can_use_tool":
                what = call_text(_text(request.get("tool_name")), request.get("input"))
                yield Said(EntryKind.NOTE, f"asks for approval: {what}")


def _blocks(data: Mapping[str, Any], parent: str | None) -> Iterator[Said]:
    message = _object(data.get("message"))
    content = message.get("content")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else _list(content)
    for block in map(_object, blocks):
        match block.get("type"):
            case "text":
                yield Said(EntryKind.TEXT, _text(block.get("text")), parent=parent)
            case "thinking":
                if text := _text(block.get("thinking")).strip():
                    yield Said(EntryKind.THOUGHT, text, parent=parent)
            case "tool_use":
                given = _object(block.get("input"))
                tool = _text(block.get("name"))
                text, facts = call_text(tool, given), {"tool": tool}
                yield Said(EntryKind.TOOL, text, parent=parent, id=_text(block.get("id")), given=given, facts=facts)
    usage = _object(message.get("usage"))
    if usage:
        counts = {key: value for key, value in usage.items() if isinstance(value, int) and key.endswith("_tokens")}
        yield Said(EntryKind.USAGE, "", parent=parent, id=_text(message.get("id")), facts={"counts": counts})


def _written(event: Mapping[str, Any], parent: str | None) -> Iterator[Said]:
    delta = _object(event.get("delta"))
    if event.get("type") == "content_block_delta":
        for of in ("text", "thinking"):
            if text := _text(delta.get(of)):
                yield Said(EntryKind.PART, text, parent=parent, facts={"of": of, "block": event.get("index")})


def _outputs(data: Mapping[str, Any], parent: str | None) -> Iterator[Said]:
    content = _object(data.get("message")).get("content")
    if isinstance(content, str):
        yield Said(EntryKind.PROMPT, _text(content), parent=parent)
        return
    for block in map(_object, _list(content)):
        if block.get("type") == "tool_result":
            failed, tool_id = block.get("is_error") is True, _text(block.get("tool_use_id"))
            yield Said(EntryKind.OUTPUT, _content(block.get("content")), failed, parent, tool_id)
        elif text := _text(block.get("text")):
            yield Said(EntryKind.PROMPT, text, parent=parent)


def _notes(data: Mapping[str, Any]) -> Iterator[Said]:
    match data.get("subtype"):
        case "init":
            model = _text(data.get("model"))
            session = f"session {_text(data.get('session_id'))}"
            yield Said(EntryKind.TURN, f"{session}, model {model}" if model else session)
        case "task_progress" | "task_notification" if data.get("tool_use_id"):
            tokens = _object(data.get("usage")).get("total_tokens")
            if isinstance(tokens, int):
                yield Said(EntryKind.AGENT, "", id=_text(data["tool_use_id"]), facts={"tokens": tokens})
        case "permission_denied":
            yield Said(EntryKind.NOTE, f"permission denied for {_text(data.get('tool_name'))}", failed=True)
        case "api_retry":
            yield Said(EntryKind.NOTE, f"the API refused a request: {_text(data.get('error'))}", failed=True)
        case "compact_boundary":
            yield Said(EntryKind.NOTE, "the conversation was compacted")


def _content(value: object) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return _text(json.dumps(value, ensure_ascii=False))
    return "\n".join(_text(_object(block).get("text")) or f"[{_object(block).get('type')}]" for block in _list(value))


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    return value[:MAX_TEXT].encode("utf-8", "replace").decode() if isinstance(value, str) else ""
