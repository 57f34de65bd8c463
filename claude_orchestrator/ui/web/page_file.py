"""A finished run as one file: the page, its scripts and its data, which a browser opens without a server."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from claude_orchestrator.engine.control.conversation_json import Item, items_of
from claude_orchestrator.ui.web.assets import CHART, MODULES, STYLES, assets

MAX_DATA_BYTES = 800_000  # of what instances said, wrote and changed

_IMPORT = re.compile(r"^import [^;]*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=function|class|const|async)", re.MULTILINE)


def page_file(snapshot: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The file. `parts` has the conversation, answer and patch of instances by their names."""
    chart = assets()[f"/{CHART}"].data.decode()
    script = bundle()
    style = "\n".join(assets()[f"/{name}"].data.decode() for name in STYLES)
    policy = (
        f"default-src 'none'; script-src {_hash(chart)} {_hash(script)}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    data = _harmless(json.dumps({"snapshot": snapshot, "parts": parts}, separators=(",", ":"), default=str))
    html = assets()["/"].data.decode()
    body = html[html.index("<body>") : html.index("</body>")]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<title>claude-orchestrator</title>\n'
        f"<style>{style}</style>\n</head>\n{body}\n"
        f'<script type="application/json" id="run-data">{data}</script>\n'
        f"<script>{chart}</script>\n<script>{script}</script>\n</body>\n</html>\n"
    ).encode("utf-8", "replace")


def bundle() -> str:
    """All modules of the page as one script. Their names are different, so that they fit into one scope."""
    modules = (assets()[f"/{name}"].data.decode() for name in MODULES)
    joined = "\n".join(_EXPORT.sub("", _IMPORT.sub("", text)) for text in modules)
    return f'(() => {{\n"use strict";\n{joined}}})();\n'


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _harmless(data: str) -> str:
    """JSON that cannot end the element that it stands in."""
    return data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def fitting(texts: Sequence[str], room_bytes: int) -> list[str]:
    """The texts, of which the longest ones are cut so that all fit together."""
    sizes = [len(text.encode("utf-8", "replace")) for text in texts]
    most = _share(sizes, room_bytes)
    return [text if size <= most else _cut(text, most) for text, size in zip(texts, sizes, strict=True)]


def _share(sizes: Sequence[int], room_bytes: int) -> int:
    """The size up to which each may be, if what small ones leave goes to the others."""
    left, room = len(sizes), room_bytes
    for size in sorted(sizes):
        if size > room // left:
            return room // left
        room, left = room - size, left - 1
    return max(sizes, default=0)


def _cut(text: str, most_bytes: int) -> str:
    return text.encode("utf-8", "replace")[:most_bytes].decode("utf-8", "ignore")


def short_conversation(lines: Iterator[bytes], most_bytes: int) -> list[Item]:
    """The items of a log within so many bytes: texts are cut, then the middle is left out."""
    items = [item for item in items_of(lines, 2_000) if item["kind"] not in ("piece", "usage", "system")]
    for limit in (2_000, 400, 120):
        short = [{**item, "text": item["text"][:limit]} if "text" in item else item for item in items]
        sizes = [len(json.dumps(item, ensure_ascii=False).encode("utf-8", "replace")) + 1 for item in short]
        if sum(sizes) <= most_bytes:
            return short
    kept_head: list[Item] = []
    kept_tail: list[Item] = []
    room = most_bytes
    head, tail = 0, len(short) - 1
    while head <= tail:
        place = head if len(kept_head) <= len(kept_tail) else tail
        if sizes[place] > room:
            break
        room -= sizes[place]
        if place == head:
            kept_head.append(short[head])
            head += 1
        else:
            kept_tail.append(short[tail])
            tail -= 1
    gap = {"kind": "system", "parent": None, "text": f"… {tail - head + 1} parts are in the log", "cut": False}
    return [*kept_head, *([gap] if head <= tail else []), *reversed(kept_tail)]
