"""The CLI's streaming JSON: bytes to whole lines to typed events. Pure.

The shapes are those of `claude -p --output-format stream-json --verbose --include-partial-messages`, as recorded
from versions 2.1.197 and 2.1.330. How events become a token count is in `tally.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from claude_orchestrator.claude.events import (
    COMMANDS_REQUEST,
    AgentReport,
    Assistant,
    BadLine,
    BlockStart,
    CommandsAnswer,
    ControlCancelled,
    ControlRequest,
    Event,
    Init,
    MessageDelta,
    MessageStart,
    MessageStop,
    ModelFacts,
    ModelUsage,
    NoBackgroundTasks,
    RateLimit,
    Requesting,
    Result,
    Retry,
    SessionReset,
    SideCall,
    Streamed,
    Task,
    UsageAnswer,
    User,
)
from claude_orchestrator.claude.pieces import end_of_pieces
from claude_orchestrator.claude.tool_text import call_text
from token_budget.api_usage import ApiUsageObject, least_tokens, output_text, read_count, read_usage
from token_budget.models import Usage
from token_budget.named_tuples import NamedTuple

MAX_LINE_BYTES = 64 * 1024 * 1024
MAX_TEXT = 2_000
MAX_ID_CHARS = 200
MAX_RESULTS = 1_000_000  # of one process
MAX_COST_USD = 1e6  # of one process

Json = dict[str, Any]


class Batch(NamedTuple):
    """What arrived at once: the bytes as they came, and the whole lines that they completed, each with its end."""

    raw: bytes
    lines: bytes


class LineFramer:
    """Cuts chunks of bytes into whole lines; only LF ends a line.

    A line of more than `max_line_bytes` is left out and counted in `dropped`: memory stays bounded.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self.max_line_bytes = max_line_bytes
        self.dropped = 0
        self._parts: list[bytes] = []
        self._size_bytes = 0

    def feed(self, chunk: bytes) -> bytes:
        """The lines that `chunk` completes, each with its end."""
        end = chunk.rfind(b"\n") + 1
        if end and self._size_bytes:
            first_bytes = chunk.index(b"\n")
            if self._size_bytes + first_bytes > self.max_line_bytes:
                lines = chunk[first_bytes + 1 : end]
                self.dropped += 1
            else:
                lines = b"".join((*self._parts, memoryview(chunk)[:end]))  # a view, so that the lines are copied once
            self._parts, self._size_bytes = [], 0
        else:
            lines = chunk[:end]
        if end < len(chunk):
            self._size_bytes += len(chunk) - end
            if self._size_bytes <= self.max_line_bytes:
                self._parts.append(chunk[end:])
            else:
                self._parts = []
        return lines

    def flush(self) -> bytes:
        """The last line, with an end, when the stream ends without one."""
        if not self._size_bytes:
            return b""
        if self._size_bytes > self.max_line_bytes:
            self.dropped += 1
            line = b""
        else:
            line = b"".join((*self._parts, b"\n"))
        self._parts, self._size_bytes = [], 0
        return line


def parse(lines: bytes) -> list[Event]:
    """The events in whole lines, each with its end; lines of streamed text that follow each other are one event."""
    events: list[Event] = []
    position = first = 0  # `first` is where the present run of streamed text begins
    while position < len(lines):
        end = end_of_pieces(lines, position)
        if end == position:
            end = lines.index(b"\n", position) + 1
            event = parse_line(lines[position : end - 1])
            if not isinstance(event, Streamed):
                if position > first:
                    events.append(Streamed(lines[first:position]))
                first = end
                if isinstance(event, BadLine):
                    events += _parse_joined(lines[position : end - 1], event)
                elif event is not None:
                    events.append(event)
        position = end
    if position > first:
        events.append(Streamed(lines[first:position]))
    return events


def _parse_joined(line: bytes, bad: BadLine) -> list[Event]:
    """The events in a line that is not one JSON object: two writers may share a line, or a terminal's codes."""
    from claude_orchestrator.claude.joined_lines import objects_in

    found, is_whole = objects_in(line)
    events = [event for data in map(_object, found) if (event := event_of(data)) is not None]
    rest = [] if is_whole else [bad._replace(lossy=bad.lossy or bool(found))]
    return [*rest, *(event for event in events if not isinstance(event, Streamed))]


def streamed_tokens(lines: bytes) -> int:
    """The least number of output tokens in lines of streamed text."""
    deltas = (_object(_decode_object(line).get("event")).get("delta") for line in lines.split(b"\n") if line)
    return sum(least_tokens(output_text(delta)) for delta in deltas)


_decode = json.JSONDecoder(strict=False).decode  # control characters in text are no reason to lose a line


def _decode_object(line: bytes) -> Json:
    return _object(_decode(line.decode("utf-8", "replace")))


def parse_line(line: bytes) -> Event | None:
    """The event in one line; None for a kind that means nothing here, BadLine for what cannot be read."""
    if not line or line.isspace():
        return None
    try:
        data = _decode(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        return BadLine(f"not JSON: {type(error).__name__}", lossy=line.lstrip().startswith(b"{"))
    if not isinstance(data, dict):
        return BadLine("not a JSON object", lossy=False)
    return event_of(data)


def event_of(data: Json) -> Event | None:
    """The event in a line that was decoded already; None for a kind that means nothing here."""
    reader = _READERS.get(_text(data.get("type")))
    return reader(data) if reader else None


def _stream_event(data: Json) -> Event | None:
    event = _object(data.get("event"))
    parent = _parent(data)
    match event.get("type"):
        case "message_start":
            message = _object(event.get("message"))
            usage, malformed, stated = _response_usage(message.get("usage"))
            return MessageStart(_text(message.get("id")), _text(message.get("model")), usage, parent, malformed, stated)
        case "message_delta":
            stop = _object(event.get("delta")).get("stop_reason")
            usage, malformed, stated = _response_usage(event.get("usage"))
            return MessageDelta(usage, stop if isinstance(stop, str) else None, parent, malformed, stated)
        case "message_stop":
            return MessageStop(parent)
        case "content_block_start":
            block = _object(event.get("content_block"))
            return BlockStart(_text(block.get("type"))[:MAX_ID_CHARS], _text(block.get("name"))[:MAX_ID_CHARS], parent)
        case "content_block_delta":
            delta = _object(event.get("delta"))
            if delta.get("type") == "signature_delta":
                return None
            return Streamed(b"") if output_text(delta) else None
    return None


def _assistant(data: Json) -> Event | None:
    message = _object(data.get("message"))
    tools, tool_ids, calls = [], [], []
    content = message.get("content")
    for block in content if isinstance(content, list) else ():
        if isinstance(block, dict) and block.get("type") == "tool_use":
            tools.append(_text(block.get("name"))[:200])
            tool_ids.append(_text(block.get("id")))
            calls.append(_text(call_text(tools[-1], block.get("input"))))
    stop = message.get("stop_reason")
    usage, malformed, stated = _response_usage(message.get("usage"))
    return Assistant(
        id=_text(message.get("id")),
        model=_text(message.get("model")),
        usage=usage,
        stop_reason=stop if isinstance(stop, str) else None,
        parent=_parent(data),
        tools=tuple(tools),
        tool_ids=tuple(tool_ids),
        synthetic=message.get("model") == "<synthetic>",
        malformed=malformed,
        error=_text(data.get("error"))[:100],
        stated=stated,
        calls=tuple(calls),
    )


def _user(data: Json) -> Event | None:
    content = _object(data.get("message")).get("content")
    texts = [_text(_object(block).get("text")) for block in content] if isinstance(content, list) else [content]
    interrupted = any(isinstance(text, str) and text.startswith("[Request interrupted by user") for text in texts)
    ended = [_object(block).get("tool_use_id") for block in content] if isinstance(content, list) else ()
    results = tuple(_text(tool_id) for tool_id in ended if tool_id)
    return User(_parent(data), interrupted, results, _report(data.get("tool_use_result")))


def _report(value: object) -> AgentReport | None:
    """What a tool result says of the subagent that it ends, if it ends one."""
    data = _object(value)
    agent = _id(data.get("agentId"))
    if not agent or not isinstance(data.get("usage"), dict):
        return None
    usage = read_usage(data["usage"])
    return AgentReport(agent, _name(data.get("agentType")), _name(data.get("resolvedModel")), usage.top.usage)


def _system(data: Json) -> Event | None:
    match data.get("subtype"):
        case "init":
            commands = data.get("slash_commands")
            names = [_text(name).removeprefix("/") for name in commands] if isinstance(commands, list) else ()
            return Init(
                _text(data.get("session_id")),
                _text(data.get("model")),
                _text(data.get("claude_code_version")),
                frozenset(names),
                _text(data.get("cwd")),
            )
        case "background_tasks_changed":
            return NoBackgroundTasks() if data.get("tasks") == [] else None
        case "task_started" | "task_progress" | "task_updated" | "task_notification":
            status = data.get("status") or _object(data.get("patch")).get("status")
            ended = status if status in ("completed", "failed", "killed", "stopped", "cancelled") else None
            return Task(
                _text(data.get("task_id")),
                _text(data.get("task_type")),
                ended,
                _name(data.get("subagent_type")),
                _text(data.get("tool_use_id")),
                _text(data.get("parent_task_id")),
            )
        case "compact_boundary":
            return SideCall()
        case "status":
            kinds: dict[object, Event] = {"compacting": SideCall(), "requesting": Requesting()}
            return kinds.get(_text(data.get("status")))
        case "api_retry":
            status = data.get("error_status")
            return Retry(_count(data.get("attempt"))[0], f"{status or ''} {_text(data.get('error'))}".strip()[:200])
    return None


def _result(data: Json) -> Event | None:
    by_model = data.get("modelUsage")
    turn = read_usage(data.get("usage"))
    errors = data.get("errors")
    denials = data.get("permission_denials")
    status = data.get("api_error_status")
    answer = _text(data.get("result"))
    number = data.get("result_index")
    return Result(
        subtype=_text(data.get("subtype")),
        is_error=data.get("is_error") is True,
        terminal_reason=_text(data.get("terminal_reason")) or None,
        session_id=_id(data.get("session_id")),
        usage=turn.top.usage,
        model_usage=_model_usage(by_model, data.get("total_cost_usd")) if isinstance(by_model, dict) else None,
        num_turns=_count(data.get("num_turns"))[0],
        text=answer[:MAX_TEXT],
        errors=tuple(_text(error)[:MAX_TEXT] for error in errors[:20]) if isinstance(errors, list) else (),
        permission_denials=tuple(_text(_object(denial).get("tool_name"))[:200] for denial in denials[:1000])
        if isinstance(denials, list)
        else (),
        api_error_status=status if isinstance(status, int) and not isinstance(status, bool) else None,
        follows_task=_object(data.get("origin")).get("kind") == "task-notification",
        malformed=not turn.readable,
        answer=answer,
        structured_output=data.get("structured_output"),
        number=number if type(number) is int and 0 <= number < MAX_RESULTS else None,
        startup_failure=_name(data.get("startup_failure_reason")),
        signed_in_until=_instant(data.get("credential_expires_at")),
    )


def _instant(value: object) -> float | None:
    """An ISO 8601 instant with its offset, in Unix time."""
    if not isinstance(value, str) or len(value) > MAX_ID_CHARS:
        return None
    from datetime import datetime  # only subscriptions have it

    try:
        found = datetime.fromisoformat(value)
        return found.timestamp() if found.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _control_response(data: Json) -> Event | None:
    response = _object(data.get("response"))
    request_id = _text(response.get("request_id"))
    if request_id == COMMANDS_REQUEST:
        return CommandsAnswer(frozenset(_command_names(_object(response.get("response")).get("commands"))))
    session = _object(_object(response.get("response")).get("session"))
    if isinstance(session.get("model_usage"), dict):
        limits = _object(response.get("response")).get("rate_limits")
        return UsageAnswer(
            request_id,
            _model_usage(session["model_usage"], session.get("total_cost_usd")),
            limits if isinstance(limits, dict) else None,
        )
    return None


def _command_names(commands: object) -> Iterator[str]:
    for command in commands if isinstance(commands, list) else ():
        aliases = _object(command).get("aliases")
        for name in (_object(command).get("name"), *(aliases if isinstance(aliases, list) else ())):
            if isinstance(name, str):
                yield name.removeprefix("/")  # some wrappers of claude write it


def _control_request(data: Json) -> Event | None:
    request = _object(data.get("request"))
    return ControlRequest(
        _text(data.get("request_id")),
        _text(request.get("subtype")),
        _text(request.get("tool_name"))[:MAX_ID_CHARS],
        _object(request.get("input")),
        _text(request.get("description"))[:MAX_TEXT],
    )


def _control_cancelled(data: Json) -> Event | None:
    return ControlCancelled(_text(data.get("request_id")))


def _rate_limit(data: Json) -> Event | None:
    info = _object(data.get("rate_limit_info"))
    resets_at, malformed = _count(info.get("resetsAt"))
    return RateLimit(info.get("status") == "rejected", None if malformed or not resets_at else resets_at)


def _conversation_reset(data: Json) -> Event | None:
    return SessionReset()


_READERS = {
    "conversation_reset": _conversation_reset,
    "stream_event": _stream_event,
    "assistant": _assistant,
    "user": _user,
    "system": _system,
    "result": _result,
    "rate_limit_event": _rate_limit,
    "control_response": _control_response,
    "control_request": _control_request,
    "control_cancel_request": _control_cancelled,
}


def _object(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    """Text that can be written down: halves of surrogate pairs are replaced."""
    if not isinstance(value, str) or value.isascii():
        return value if isinstance(value, str) else ""
    return value.encode("utf-8", "replace").decode()


def _id(value: object) -> str:
    """An id that can be given back to claude as an argument; else empty."""
    text = _text(value)
    return text if len(text) <= MAX_ID_CHARS and text.isprintable() else ""


def _name(value: object) -> str:
    return _text(value)[:200]


def _parent(data: Json) -> str | None:
    return _text(data.get("parent_tool_use_id")) or None


def _count(value: object) -> tuple[int, bool]:
    """A count, and whether it was malformed (then zero); a missing or null one is zero."""
    count, readable = read_count(value)
    return count, not readable


def _response_usage(value: object) -> tuple[Usage, bool, ApiUsageObject]:
    """What one response bills and the CLI counts, whether it is a lower bound, and its whole usage object."""
    found = read_usage(value)
    beside = found.beside
    return found.usage - beside if beside.total_tokens else found.usage, not found.exact, found


_MODEL_USAGE_KEYS = ("inputTokens", "outputTokens", "cacheCreationInputTokens", "cacheReadInputTokens")


def _model_counts(value: object) -> tuple[Usage, bool]:
    """The four counts of one model, and whether any was malformed (then zero)."""
    data = _object(value)
    counts = [_count(data.get(key)) for key in _MODEL_USAGE_KEYS]
    return Usage(*(count for count, _ in counts)), any(malformed for _, malformed in counts)


def _model_usage(by_model: Json, total_cost_usd: object) -> ModelUsage:
    total, cost, costs_known, malformed = Usage(), 0.0, bool(by_model), False
    parts = []
    for name, value in by_model.items():
        usage, bad = _model_counts(value)
        total, malformed = total + usage, malformed or bad
        model_cost = _cost(_object(value).get("costUSD"))
        costs_known = costs_known and model_cost is not None
        cost += model_cost or 0.0
        parts.append((_text(name), usage, model_cost))
    # the sum by model is never stale; `total_cost_usd` of a first of two results can be
    known = cost if costs_known else _cost(total_cost_usd)
    facts = tuple(_model_facts(name, value) for name, value in by_model.items())
    return ModelUsage(total, known, tuple(map(_text, by_model)), malformed, tuple(parts), facts)


def _model_facts(name: str, value: object) -> ModelFacts:
    data = _object(value)
    return ModelFacts(_text(name), *(_name(data.get(key)) for key in ("canonicalModel", "provider", "costBasis")))


def _cost(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MAX_COST_USD:
        return None
    return float(value)
