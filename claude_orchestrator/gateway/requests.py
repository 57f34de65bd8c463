"""Reads a request to the API: what it asks for, and the form in which it is sent on. Pure."""

from __future__ import annotations

import json
import posixpath
import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeGuard
from urllib.parse import unquote

from claude_orchestrator.gateway.admission import LEAST_THINKING_TOKENS
from claude_orchestrator.gateway.bedrock import paths as bedrock
from claude_orchestrator.gateway.clouds import count_path, is_count, model_in

MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
READING = ("GET", "HEAD", "OPTIONS")
# what costs nothing: counting, signing in, files, and what Claude Code reports of itself
FREE = (COUNT_TOKENS, "/v1/oauth/token", "/v1/files")
FREE_BELOW = ("/v1/files/", "/api/oauth/", "/api/event_logging/", "/api/claude_code", "/api/claude_cli")
COUNTED_KEYS = ("messages", "model", "system", "thinking", "tool_choice", "tools")  # what count_tokens takes
# what adds no input; anything else that count_tokens does not take is bounded by its size
NO_INPUT_KEYS = (
    *("max_tokens", "stream", "metadata", "temperature", "top_p", "top_k", "stop_sequences", "service_tier"),
    *("speed", "inference_geo", "cache_control", "context_management", "anthropic_version"),
)
# what makes the API do more than the request shows, without a bound
UNBOUNDED_KEYS = {
    "mcp_servers": "the API would call MCP servers",
    "container": "it runs in a container",
    "fallbacks": "other models may answer",
    "thread": "it continues a thread that the API keeps",
    "resumption": "it continues a response that the API keeps",
    "compaction": "the API would compact the conversation",
}
SHRINKING_EDITS = ("clear_thinking_", "clear_tool_uses_")
TEXT_KEYS = ("messages", "system", "tools", "max_tokens", "stream", "metadata")
NEAR_BYTES = 4_096
# they begin with fixed text, which is found fast in a body of megabytes
_MAX_TOKENS = re.compile(rb'"max_tokens"\s*:\s*(\d*)')
_MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]{1,100})"')
_THINKING = re.compile(rb'"budget_tokens"\s*:\s*(\d*)')


class Unbounded(ValueError):
    """A request whose cost nobody can bound; the text is the reason."""


class RequestKind(Enum):
    """What a request costs."""

    MESSAGE = auto()  # its response states what is billed
    FREE = auto()
    UNKNOWN = auto()


def kind_of(method: str, path: str, body: bytes) -> RequestKind:
    """What a request costs, by its method and path. Only the exact form of a known path counts as known."""
    where = path.partition("?")[0]
    if method == "POST" and (where == MESSAGES or model_in(where)):
        return RequestKind.MESSAGE
    if method in READING:
        return RequestKind.UNKNOWN if body else RequestKind.FREE
    is_free = where in FREE or where.startswith(FREE_BELOW)
    if is_count(where):
        return RequestKind.FREE
    return RequestKind.FREE if is_free and plain_path(where) == where else RequestKind.UNKNOWN


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """What a request asks for: its `max_tokens` and thinking budget. `data` is the whole of it.

    `path_model` is the model that the path names.
    """

    data: dict[str, object]
    max_tokens: int
    thinking_tokens: int | None = None
    path_model: str = ""

    @property
    def model(self) -> str:
        """The model; empty if it is not a text."""
        model = self.data.get("model")
        return self.path_model or (model if isinstance(model, str) else "")


def read_request(body: bytes, path: str = "") -> RequestedOutput:
    """What a request asks for. Raises Unbounded where its cost has no bound, or two readers could differ on it."""
    try:
        data = json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except Unbounded:
        raise
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict) or not _is_count(data.get("max_tokens")):
        raise Unbounded("block mode needs plain JSON with an integer max_tokens")
    why = _why_unbounded(data)
    if why is not None:
        raise Unbounded(f"block mode cannot bound what this request costs: {why}")
    thinking = data.get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    return RequestedOutput(data, data["max_tokens"], budget if _is_count(budget) else None, model_in(path))


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Unbounded("block mode refuses a request with a duplicate key")
    return found


def _no_number(name: str) -> object:
    raise Unbounded(f"{name} is no JSON")


def _why_unbounded(data: dict[str, object]) -> str | None:
    names = {key.lower() for key in data if key != key.lower()}  # some servers ignore case
    if not names.isdisjoint((*COUNTED_KEYS, *NO_INPUT_KEYS, *UNBOUNDED_KEYS)):
        return "its keys are not in lower case"
    why = next((why for key, why in UNBOUNDED_KEYS.items() if data.get(key)), None)
    if why is not None:
        return why
    context = data.get("context_management") or {}
    edits = context.get("edits") or [] if isinstance(context, dict) else [context]
    for edit in edits if isinstance(edits, list) else [edits]:
        kind = edit.get("type") if isinstance(edit, dict) else None
        if not isinstance(kind, str) or not kind.startswith(SHRINKING_EDITS):
            return "the API would compact the conversation"
    tools = data.get("tools")
    for tool in tools if isinstance(tools, list) else []:
        kind = str(tool.get("type")) if isinstance(tool, dict) else ""
        if kind.startswith(("advisor_", "mcp_")):
            return f"a tool of type {kind} runs other models or servers"
    return None


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def count_request(path: str, asked: RequestedOutput) -> tuple[str, bytes]:
    """The path and body of the request that counts the tokens of another one, which costs nothing."""
    body = {key: asked.data[key] for key in COUNTED_KEYS if key in asked.data}
    if not asked.path_model:
        return path.replace(MESSAGES, COUNT_TOKENS, 1), json.dumps(body).encode()
    if path.startswith("/model/"):
        kept = (*COUNTED_KEYS, "anthropic_version", "anthropic_beta")
        return bedrock.count_request(path, {key: asked.data[key] for key in kept if key in asked.data})
    more = {key: asked.data[key] for key in ("anthropic_version",) if key in asked.data}
    return count_path(path), json.dumps({**body, **more, "model": asked.path_model}).encode()


def lowered(body: bytes, asked: RequestedOutput, output_tokens: int) -> bytes:
    """The body with `max_tokens` of at most so many, and a thinking budget below it; otherwise unchanged."""
    wanted = dict(asked.data)
    spliced = body
    is_lowered = asked.max_tokens > output_tokens
    if is_lowered:
        wanted["max_tokens"] = output_tokens
        spliced = _spliced(_MAX_TOKENS, spliced, output_tokens)
    if is_lowered and asked.thinking_tokens is not None and asked.thinking_tokens >= output_tokens:
        least = max(LEAST_THINKING_TOKENS, output_tokens // 2)
        thinking = wanted["thinking"]
        assert isinstance(thinking, dict)
        wanted["thinking"] = {**thinking, "budget_tokens": least}
        spliced = _spliced(_THINKING, spliced, least)
    if len(_MAX_TOKENS.findall(body)) == 1 and (spliced is body or json.loads(spliced) == wanted):
        return spliced
    return json.dumps(wanted, separators=(",", ":")).encode()  # spelled in another way, or part of a string too


def _spliced(pattern: re.Pattern[bytes], body: bytes, tokens: int) -> bytes:
    """The number after the first such name replaced; whether that was the right one is for the caller to see."""
    match = pattern.search(body)
    return body if match is None else body[: match.start(1)] + b"%d" % tokens + body[match.end(1) :]


def plain_path(path: str) -> str:
    """A path as servers may take it: `//v1/./messages/` is `/v1/messages`."""
    path = unquote(re.split("[?#]", path, maxsplit=1)[0])
    return posixpath.normpath("/" + path.lstrip("/")).lower()


def model_named(path: str, body: bytes) -> str:
    """The model that a path names, or a body near its start, where claude does; else `unknown`. For figures only."""
    found = _MODEL.search(body, 0, NEAR_BYTES)
    return model_in(path) or (found[1].decode("ascii", "replace") if found else "unknown")
