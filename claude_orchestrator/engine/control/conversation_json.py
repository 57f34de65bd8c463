"""What an instance and Claude said to each other, as the items of a page, from the raw lines of a log. Pure.

Each line is independent, so a reader can begin at any line. An item is a JSON object: `kind` says what it is, and
`parent` names the tool call of the subagent that it belongs to.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from claude_orchestrator.claude.conversation import EntryKind, Said, everything

MAX_TEXT_CHARS = 20_000
KINDS = {
    EntryKind.TURN: "system",
    EntryKind.NOTE: "system",
    EntryKind.THOUGHT: "thinking",
    EntryKind.PART: "piece",
}  # others have the names of their pieces
Item = dict[str, Any]


def items_of(lines: Iterable[bytes], max_chars: int = MAX_TEXT_CHARS) -> list[Item]:
    """The items in whole lines. Pieces of a text that is being written are joined."""
    found: list[Item] = []
    for said in everything(lines):
        item = {"kind": KINDS.get(said.piece, str(said.piece)), "parent": said.parent, **_fields(said, max_chars)}
        last = found[-1] if found else {}
        if item["kind"] == "piece" and last.get("kind") == "piece" and _place(last) == _place(item):
            last["text"] = (last["text"] + item["text"])[:max_chars]
        elif item["kind"] not in ("text", "thinking", "prompt") or item["text"]:
            found.append(item)
    return found


def _place(item: Item) -> tuple[Any, ...]:
    return item["parent"], item["block"], item["of"]


def _fields(said: Said, limit: int) -> Item:
    facts = said.facts
    match said.piece:
        case EntryKind.TOOL:
            given = json.dumps(said.given, ensure_ascii=False, indent=1, default=str)
            return {"id": said.id, "tool": facts["tool"], **_clipped(given, limit)}
        case EntryKind.OUTPUT:
            return {"of": said.id, "error": said.failed, **_clipped(said.text, limit)}
        case EntryKind.PART:
            return {"of": facts["of"], "block": facts["block"], "text": said.text[:limit]}
        case EntryKind.USAGE:
            return {"message": said.id, "usage": facts["counts"]}
        case EntryKind.AGENT:
            return {"id": said.id, "tokens": facts["tokens"]}
        case EntryKind.RESULT:
            return {"error": said.failed, **facts, **_clipped(said.text, limit)}
        case _:
            return _clipped(said.text, limit)


def _clipped(text: str, limit: int) -> Item:
    return {"text": text[:limit], "cut": len(text) > limit}
