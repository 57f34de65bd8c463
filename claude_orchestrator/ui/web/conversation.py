"""What an instance and Claude said to each other, from the raw lines of a log. Pure.

Each line stands for itself, so that a reader can begin at any one. An item is a JSON object: `kind` says what it is,
and `parent` names the tool call of the subagent that it belongs to.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

MAX_TEXT_CHARS = 20_000
Item = dict[str, Any]


def items_of(lines: Iterable[bytes], max_chars: int = MAX_TEXT_CHARS) -> list[Item]:
    """The items in whole lines. A piece of a text that is being written joins the piece before it."""
    found: list[Item] = []
    for line in lines:
        for item in _items(line, max_chars):
            last = found[-1] if found else {}
            if item["kind"] == "piece" and last.get("kind") == "piece" and _place(last) == _place(item):
                last["text"] = (last["text"] + item["text"])[:max_chars]
            else:
                found.append(item)
    return found


def _place(item: Item) -> tuple[Any, ...]:
    return item["parent"], item["block"], item["of"]


def _items(line: bytes, limit: int) -> Iterator[Item]:
    try:
        data = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        if line.strip():
            yield {"kind": "raw", "parent": None, **_clipped(line[: 4 * limit].decode("utf-8", "replace"), limit)}
        return
    parent = _text(data.get("parent_tool_use_id")) or None
    match data.get("type"):
        case "assistant" | "user" as role:
            yield from _message(role, _object(data.get("message")), parent, limit)
        case "stream_event":
            yield from _piece(_object(data.get("event")), parent, limit)
        case "result":
            yield _result(data, limit)
        case "system":
            yield from _system(data, limit)
        case _:
            pass


def _message(role: str, message: Mapping[str, Any], parent: str | None, limit: int) -> Iterator[Item]:
    content = message.get("content")
    blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
    for block in blocks:
        item = _block(role, _object(block), limit)
        if item is not None:
            yield {"parent": parent, **item}
    usage = _object(message.get("usage"))
    if role == "assistant" and usage:
        counts = {key: value for key, value in usage.items() if isinstance(value, int) and key.endswith("_tokens")}
        yield {"kind": "usage", "parent": parent, "message": _text(message.get("id")), "usage": counts}


def _block(role: str, block: Mapping[str, Any], limit: int) -> Item | None:
    match block.get("type"):
        case "text" if block.get("text"):
            return {"kind": "text" if role == "assistant" else "prompt", **_clipped(_text(block["text"]), limit)}
        case "thinking":
            return {"kind": "thinking", **_clipped(_text(block.get("thinking")), limit)}
        case "tool_use":
            given = json.dumps(block.get("input"), ensure_ascii=False, indent=1, default=str)
            return {
                "kind": "tool",
                "id": _text(block.get("id")),
                "tool": _text(block.get("name")),
                **_clipped(given, limit),
            }
        case "tool_result":
            shown = _clipped(_shown(block.get("content")), limit)
            return {
                "kind": "output",
                "of": _text(block.get("tool_use_id")),
                "error": bool(block.get("is_error")),
                **shown,
            }
        case _:
            return None


def _shown(content: object) -> str:
    """The text of a tool's output; other parts by their kind."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return "" if content is None else json.dumps(content, ensure_ascii=False, default=str)
    parts = []
    for part in map(_object, content):
        parts.append(_text(part.get("text")) if part.get("type") == "text" else f"[{_text(part.get('type'))}]")
    return "\n".join(parts)


def _piece(event: Mapping[str, Any], parent: str | None, limit: int) -> Iterator[Item]:
    delta = _object(event.get("delta"))
    if event.get("type") != "content_block_delta":
        return
    for key, of in (("text", "text"), ("thinking", "thinking")):
        if isinstance(delta.get(key), str) and delta[key]:
            yield {"kind": "piece", "of": of, "parent": parent, "block": event.get("index"), "text": delta[key][:limit]}


def _result(data: Mapping[str, Any], limit: int) -> Item:
    denied = [_text(_object(one).get("tool_name")) for one in data.get("permission_denials") or () if _object(one)]
    return {
        "kind": "result",
        "parent": None,
        "subtype": _text(data.get("subtype")),
        "error": bool(data.get("is_error")),
        "denied": denied,
        **_clipped(_text(data.get("result")), limit),
    }


def _system(data: Mapping[str, Any], limit: int) -> Iterator[Item]:
    subtype = data.get("subtype")
    if subtype == "init":
        yield {"kind": "system", "parent": None, "text": f"session {_text(data.get('session_id'))}", "cut": False}
    elif subtype in ("task_progress", "task_notification") and data.get("tool_use_id"):
        tokens = _object(data.get("usage")).get("total_tokens")
        if isinstance(tokens, int):
            yield {"kind": "agent", "parent": None, "id": _text(data["tool_use_id"]), "tokens": tokens}
    elif subtype in ("api_retry", "compact_boundary"):
        shown = {key: value for key, value in data.items() if key not in ("type", "uuid", "session_id")}
        yield {"kind": "system", "parent": None, **_clipped(json.dumps(shown, ensure_ascii=False), limit)}


def _clipped(text: str, limit: int) -> Item:
    return {"text": text[:limit], "cut": len(text) > limit}


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
