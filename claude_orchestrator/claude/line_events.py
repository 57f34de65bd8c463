"""One line of the CLI's streaming JSON as a typed event. Pure.

The shapes are those of `claude -p --output-format stream-json --verbose --include-partial-messages`, as recorded
from versions 2.1.197 and 2.1.330.
"""

from __future__ import annotations

from collections.abc import Iterator

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
from claude_orchestrator.claude.line_values import (
    MAX_ID_CHARS,
    Json,
    count_in,
    decode,
    id_in,
    model_usage,
    name_in,
    object_in,
    parent_of,
    response_usage,
    text_in,
)
from claude_orchestrator.claude.tool_text import call_text
from token_budget.api_usage import output_text, read_usage

MAX_TEXT = 2_000
MAX_RESULTS = 1_000_000  # of one process


def parse_line(line: bytes) -> Event | None:
    """The event in one line; None for a kind that is not needed here, BadLine for a line that cannot be read."""
    if not line or line.isspace():
        return None
    try:
        data = decode(line)
    except (ValueError, RecursionError) as error:
        return BadLine(f"not JSON: {type(error).__name__}", lossy=line.lstrip().startswith(b"{"))
    if not isinstance(data, dict):
        return BadLine("not a JSON object", lossy=False)
    return event_of(data)


def event_of(data: Json) -> Event | None:
    """The event in a line that was decoded already; None for a kind that is not needed here."""
    reader = _READERS.get(text_in(data.get("type")))
    return reader(data) if reader else None


def _stream_event(data: Json) -> Event | None:
    event = object_in(data.get("event"))
    parent = parent_of(data)
    match event.get("type"):
        case "message_start":
            message = object_in(event.get("message"))
            usage, malformed, stated = response_usage(message.get("usage"))
            return MessageStart(
                text_in(message.get("id")), text_in(message.get("model")), usage, parent, malformed, stated
            )
        case "message_delta":
            stop = object_in(event.get("delta")).get("stop_reason")
            usage, malformed, stated = response_usage(event.get("usage"))
            return MessageDelta(usage, stop if isinstance(stop, str) else None, parent, malformed, stated)
        case "message_stop":
            return MessageStop(parent)
        case "content_block_start":
            block = object_in(event.get("content_block"))
            return BlockStart(
                text_in(block.get("type"))[:MAX_ID_CHARS], text_in(block.get("name"))[:MAX_ID_CHARS], parent
            )
        case "content_block_delta":
            delta = object_in(event.get("delta"))
            if delta.get("type") == "signature_delta":
                return None
            return Streamed(b"") if output_text(delta) else None
    return None


def _assistant(data: Json) -> Event | None:
    message = object_in(data.get("message"))
    tools, tool_ids, calls = [], [], []
    content = message.get("content")
    for block in content if isinstance(content, list) else ():
        if isinstance(block, dict) and block.get("type") == "tool_use":
            tools.append(text_in(block.get("name"))[:200])
            tool_ids.append(text_in(block.get("id")))
            calls.append(text_in(call_text(tools[-1], block.get("input"))))
    stop = message.get("stop_reason")
    usage, malformed, stated = response_usage(message.get("usage"))
    return Assistant(
        id=text_in(message.get("id")),
        model=text_in(message.get("model")),
        usage=usage,
        stop_reason=stop if isinstance(stop, str) else None,
        parent=parent_of(data),
        tools=tuple(tools),
        tool_ids=tuple(tool_ids),
        synthetic=message.get("model") == "<synthetic>",
        malformed=malformed,
        error=text_in(data.get("error"))[:100],
        stated=stated,
        calls=tuple(calls),
    )


def _user(data: Json) -> Event | None:
    content = object_in(data.get("message")).get("content")
    texts = [text_in(object_in(block).get("text")) for block in content] if isinstance(content, list) else [content]
    interrupted = any(isinstance(text, str) and text.startswith("[Request interrupted by user") for text in texts)
    ended = [object_in(block).get("tool_use_id") for block in content] if isinstance(content, list) else ()
    results = tuple(text_in(tool_id) for tool_id in ended if tool_id)
    return User(parent_of(data), interrupted, results, _report(data.get("tool_use_result")))


def _report(value: object) -> AgentReport | None:
    """What a tool result says about the subagent that it ends, if it ends one."""
    data = object_in(value)
    agent = id_in(data.get("agentId"))
    if not agent or not isinstance(data.get("usage"), dict):
        return None
    usage = read_usage(data["usage"])
    return AgentReport(agent, name_in(data.get("agentType")), name_in(data.get("resolvedModel")), usage.top.usage)


def _system(data: Json) -> Event | None:
    match data.get("subtype"):
        case "init":
            commands = data.get("slash_commands")
            names = [text_in(name).removeprefix("/") for name in commands] if isinstance(commands, list) else ()
            return Init(
                text_in(data.get("session_id")),
                text_in(data.get("model")),
                text_in(data.get("claude_code_version")),
                frozenset(names),
                text_in(data.get("cwd")),
            )
        case "background_tasks_changed":
            return NoBackgroundTasks() if data.get("tasks") == [] else None
        case "task_started" | "task_progress" | "task_updated" | "task_notification":
            status = data.get("status") or object_in(data.get("patch")).get("status")
            ended = status if status in ("completed", "failed", "killed", "stopped", "cancelled") else None
            return Task(
                text_in(data.get("task_id")),
                text_in(data.get("task_type")),
                ended,
                name_in(data.get("subagent_type")),
                text_in(data.get("tool_use_id")),
                text_in(data.get("parent_task_id")),
            )
        case "compact_boundary":
            return SideCall()
        case "status":
            kinds: dict[object, Event] = {"compacting": SideCall(), "requesting": Requesting()}
            return kinds.get(text_in(data.get("status")))
        case "api_retry":
            status = data.get("error_status")
            return Retry(count_in(data.get("attempt"))[0], f"{status or ''} {text_in(data.get('error'))}".strip()[:200])
    return None


def _result(data: Json) -> Event | None:
    by_model = data.get("modelUsage")
    turn = read_usage(data.get("usage"))
    errors = data.get("errors")
    denials = data.get("permission_denials")
    status = data.get("api_error_status")
    answer = text_in(data.get("result"))
    number = data.get("result_index")
    return Result(
        subtype=text_in(data.get("subtype")),
        is_error=data.get("is_error") is True,
        terminal_reason=text_in(data.get("terminal_reason")) or None,
        session_id=id_in(data.get("session_id")),
        usage=turn.top.usage,
        model_usage=model_usage(by_model, data.get("total_cost_usd")) if isinstance(by_model, dict) else None,
        num_turns=count_in(data.get("num_turns"))[0],
        text=answer[:MAX_TEXT],
        errors=tuple(text_in(error)[:MAX_TEXT] for error in errors[:20]) if isinstance(errors, list) else (),
        permission_denials=tuple(text_in(object_in(denial).get("tool_name"))[:200] for denial in denials[:1000])
        if isinstance(denials, list)
        else (),
        api_error_status=status if isinstance(status, int) and not isinstance(status, bool) else None,
        follows_task=object_in(data.get("origin")).get("kind") == "task-notification",
        malformed=not turn.readable,
        answer=answer,
        structured_output=data.get("structured_output"),
        number=number if type(number) is int and 0 <= number < MAX_RESULTS else None,
        startup_failure=name_in(data.get("startup_failure_reason")),
        signed_in_until=_signed_in_until(data.get("credential_expires_at")),
    )


def _signed_in_until(value: object) -> float | None:
    if value is None:
        return None
    from token_budget.timestamps import unix_s  # only subscriptions have it

    return unix_s(value, needs_offset=True)


def _control_response(data: Json) -> Event | None:
    response = object_in(data.get("response"))
    request_id = text_in(response.get("request_id"))
    if request_id == COMMANDS_REQUEST:
        return CommandsAnswer(frozenset(_command_names(object_in(response.get("response")).get("commands"))))
    session = object_in(object_in(response.get("response")).get("session"))
    if isinstance(session.get("model_usage"), dict):
        limits = object_in(response.get("response")).get("rate_limits")
        return UsageAnswer(
            request_id,
            model_usage(session["model_usage"], session.get("total_cost_usd")),
            limits if isinstance(limits, dict) else None,
        )
    return None


def _command_names(commands: object) -> Iterator[str]:
    for command in commands if isinstance(commands, list) else ():
        aliases = object_in(command).get("aliases")
        for name in (object_in(command).get("name"), *(aliases if isinstance(aliases, list) else ())):
            if isinstance(name, str):
                yield name.removeprefix("/")  # some wrappers of claude write it


def _control_request(data: Json) -> Event | None:
    request = object_in(data.get("request"))
    return ControlRequest(
        text_in(data.get("request_id")),
        text_in(request.get("subtype")),
        text_in(request.get("tool_name"))[:MAX_ID_CHARS],
        object_in(request.get("input")),
        text_in(request.get("description"))[:MAX_TEXT],
    )


def _control_cancelled(data: Json) -> Event | None:
    return ControlCancelled(text_in(data.get("request_id")))


def _rate_limit(data: Json) -> Event | None:
    info = object_in(data.get("rate_limit_info"))
    resets_at, malformed = count_in(info.get("resetsAt"))
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
