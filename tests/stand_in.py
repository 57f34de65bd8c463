"""A scripted stand-in for Anthropic's Messages API on loopback, with a ledger of what it billed.

    script = {"greet": [Tools(Call("Bash", command="echo hi")), Text("All done.")]}
    with StandIn(script) as api:
        run claude with claude_env(home, api.url)
        assert api.billed() == ...

Call number i is billed 100+i input, 1000+i cache write, 2000+i cache read, and its reply's `output`. A request is
answered by the list whose marker stands in its last user message that has one; the reply is that with the number
of assistant messages since. A subagent's conversation starts with its own prompt, so it has its own list.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

from claude_orchestrator.gateway.bedrock.event_stream import CONTENT_TYPE
from tests.bedrock_frames import framed
from token_budget import Usage


@dataclass(frozen=True)
class Text:
    """A text reply, streamed word by word with `delay_s` between; `drop` cuts the connection on its first attempt:
    after "start", in mid-"text", or after the whole "block". `gate` is waited for in the middle of the text, with
    `pings` meanwhile or in silence."""

    text: str = "All done."
    output: int = 50
    delay_s: float = 0.0
    drop: str | None = None
    fail_first: tuple[int, ...] = ()
    retry_after_s: int | None = None
    stop_reason: str = "end_turn"
    gate: threading.Event | None = None
    pings: bool = True


@dataclass(frozen=True)
class Call:
    """A tool call."""

    name: str
    input: dict[str, Any]

    @classmethod
    def bash(cls, command: str) -> Call:
        return cls("Bash", {"command": command, "description": "Running x"})

    @classmethod
    def agent(cls, prompt: str, **extra: Any) -> Call:
        return cls("Agent", {"description": "do sub", "prompt": prompt, "subagent_type": "general-purpose", **extra})


@dataclass(frozen=True)
class Tools:
    """One or more tool calls, after some text; `drop` cuts the connection after the first whole "block"."""

    calls: tuple[Call, ...]
    text: str = ""
    output: int = 50
    delay_s: float = 0.0
    drop: str | None = None
    fail_first: tuple[int, ...] = ()
    retry_after_s: int | None = None
    gate: threading.Event | None = None


@dataclass(frozen=True)
class Fail:
    """An error, each time."""

    status: int


Reply = Text | Tools | Fail
Script = Mapping[str, Sequence[Reply]]


@dataclass(frozen=True)
class Beside:
    """An iteration that is billed beside the top-level counts, by its own model if it names one."""

    kind: str
    usage: Usage
    model: str = ""


@dataclass(frozen=True)
class Billing:
    """How the API bills every response of this stand-in, and what its usage objects say of that.

    With `for_1h` half of the cache writes live an hour. With `served_by` the model that was asked has declined, which
    costs nothing, and this one has answered.
    """

    speed: str = "standard"
    inference_geo: str = "global"
    service_tier: str = "standard"
    for_1h: bool = False
    web_searches: int = 0
    beside: tuple[Beside, ...] = ()
    served_by: str = ""

    def usage(self, entry: Entry) -> dict[str, Any]:
        """The usage object of a response that has ended."""
        written = entry.billed.cache_creation_input_tokens
        found: dict[str, Any] = {
            **_api_usage(entry.billed),
            "cache_creation": {
                "ephemeral_1h_input_tokens": entry.written_for_1h,
                "ephemeral_5m_input_tokens": written - entry.written_for_1h,
            },
            "speed": self.speed if "opus" in entry.model else "standard",  # only these have a fast mode
            "inference_geo": self.inference_geo,
            "service_tier": self.service_tier,
            "server_tool_use": {"web_search_requests": self.web_searches, "web_fetch_requests": 1},
        }
        declined = {"type": "message", "model": entry.model, **_api_usage(Usage(70, 0, 700, 7000))}
        served = {"type": "fallback_message", "model": self.served_by, **_api_usage(entry.billed)}
        own = [declined, served] if self.served_by else [{"type": "message", **_api_usage(entry.billed)}]
        beside = [
            {"type": one.kind, **({"model": one.model} if one.model else {}), **_api_usage(one.usage)}
            for one in self.beside
        ]
        return {**found, "iterations": [*beside, *own]} if self.beside or self.served_by else found


@dataclass
class Entry:
    """One call as the API sees it. `billed` is updated while its answer is streamed."""

    index: int
    model: str
    marker: str
    status: int
    message_id: str
    agent: bool
    billed: Usage = field(default_factory=Usage)
    finished: bool = False
    billing: Billing | None = None
    caller: str = ""  # the address of the machine that it comes from

    @property
    def written_for_1h(self) -> int:
        """The cache writes that live an hour."""
        is_long = self.billing is not None and self.billing.for_1h
        return self.billed.cache_creation_input_tokens // 2 if is_long else 0

    @property
    def parts(self) -> list[tuple[str, Usage, int]]:
        """All that is billed: model, tokens, and the cache writes among them that live an hour."""
        billing = self.billing
        own = billing.served_by if billing is not None and billing.served_by else self.model
        beside = billing.beside if billing is not None and self.finished else ()
        return [(own, self.billed, self.written_for_1h), *((one.model or self.model, one.usage, 0) for one in beside)]

    @property
    def total(self) -> Usage:
        """The tokens of all parts."""
        return sum((usage for _, usage, _ in self.parts), Usage())

    details: dict[str, Any] = field(default_factory=dict)  # more of the usage
    at: float = field(default_factory=time.monotonic)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves is no error."""


class StandIn:
    """The server; a context manager."""

    def __init__(self, script: Script | None = None, billing: Billing | None = None, host: str = "127.0.0.1") -> None:
        self.billing = billing
        self.script: dict[str, Sequence[Reply]] = dict(script or {})
        self.entries: list[Entry] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.limited_until = 0  # Unix time: a subscription's limit refuses all requests until then
        self.refused_at: list[float] = []
        self.visits: list[tuple[str, float]] = []  # who has fetched a page, and when
        self.before_text: Callable[[Entry], None] = lambda entry: None
        self.on_headers: Callable[[str, dict[str, str], bytes], None] = lambda path, headers, body: None
        self.on_request: Callable[[dict[str, Any]], None] = lambda body: None
        self._attempts: dict[tuple[str, int, str], int] = {}
        self._server = _Server((host, 0), _Handler)
        self._server.stand_in = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def billed(self) -> Usage:
        """The sum of what was billed so far."""
        with self.lock:
            total = Usage()
            for entry in self.entries:
                total += entry.total
            return total

    def bill(self, entry: Entry, body: dict[str, Any]) -> Usage:
        """What a call is billed when its response begins."""
        number = entry.index
        return Usage(100 + number, 1, 1000 + number, 2000 + number)

    def choose(self, messages: list[dict[str, Any]]) -> tuple[str, int, Reply]:
        """The marker, index and reply for a conversation."""
        assistants = 0
        for message in reversed(messages):
            if message["role"] == "assistant":
                assistants += 1
                continue
            text = "\n".join(_texts(message["content"]))
            found = [marker for marker in self.script if marker in text]
            if found:
                marker = max(found, key=text.rfind)
                replies = self.script[marker]
                return marker, assistants, replies[assistants] if assistants < len(replies) else Text()
        return "", assistants, Text()

    def attempt(self, marker: str, index: int, conversation: str) -> int:
        """How often this reply of this conversation was asked for before."""
        with self.lock:
            key = (marker, index, conversation)
            self._attempts[key] = self._attempts.get(key, 0) + 1
            return self._attempts[key] - 1


def _texts(content: str | list[dict[str, Any]]) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    else:
        yield from (block["text"] for block in content if block.get("type") == "text")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        pass

    @property
    def api(self) -> StandIn:
        return self.server.stand_in  # type: ignore[attr-defined,no-any-return]

    def do_HEAD(self) -> None:
        self._send(200, b"")

    def do_GET(self) -> None:
        self.api.visits.append((self.client_address[0], time.monotonic()))
        self._send(200, b"<html><body>A small page.</body></html>", kind="text/html")

    def do_POST(self) -> None:
        self.raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        body, self.in_frames = json.loads(self.raw or b"{}"), False
        path = self.path.split("?")[0]
        if path.endswith(("/count_tokens", "/count-tokens:rawPredict")):
            # what a call costs here, and what its number may add until it is made
            self._json(200, {"input_tokens": 3100 + 3 * (len(self.api.entries) + 64)})
        elif path.endswith("/v1/messages"):
            self._message(body)
        elif path.endswith("/count-tokens"):  # Bedrock
            self._json(200, {"inputTokens": 3100 + 3 * (len(self.api.entries) + 64)})
        elif "/model/" in path and path.rpartition("/")[2].startswith("invoke"):  # Bedrock
            self.in_frames = path.endswith("/invoke-with-response-stream")
            self.api.on_headers(self.path, dict(self.headers.items()), self.raw)
            model = unquote(path.rpartition("/model/")[2].rpartition("/")[0])
            self._message({**body, "model": model, "stream": self.in_frames})
        elif path.endswith("RawPredict"):  # Vertex
            self._message({**body, "model": path.rpartition("/")[2].partition(":")[0]})
        else:
            self._json(404, {"type": "error", "error": {"type": "not_found_error", "message": "no such path"}})

    def _message(self, body: dict[str, Any]) -> None:
        api = self.api
        api.on_request(body)
        if time.time() < api.limited_until:
            self._limit(api.limited_until)
            return
        marker, index, reply = api.choose(body["messages"])
        conversation = (self.headers.get("x-claude-code-session-id") or "") + (
            self.headers.get("x-claude-code-agent-id") or ""
        )
        attempt = api.attempt(marker, index, conversation)
        status = 200
        if isinstance(reply, Fail):
            status = reply.status
        elif attempt < len(reply.fail_first):
            status = reply.fail_first[attempt]
        limit = body.get("max_tokens", 0)
        if isinstance(reply, Text) and reply.output > limit:  # as the API does
            reply = replace(reply, output=limit, stop_reason="max_tokens")
        elif isinstance(reply, Tools) and reply.output > limit:
            reply = replace(reply, output=limit)
        with api.lock:
            number = len(api.entries)
            agent = self.headers.get("x-claude-code-agent-id") is not None
            entry = Entry(number, body.get("model", ""), marker, status, f"msg_{number:04}", agent, billing=api.billing)
            entry.caller = self.client_address[0]
            api.entries.append(entry)
        if status != 200 or isinstance(reply, Fail):
            self._error(status, reply)
            return
        entry.billed = api.bill(entry, body)
        drop = reply.drop if attempt == len(reply.fail_first) else None
        if body.get("stream"):
            with contextlib.suppress(OSError):  # the client left: billed is what was sent
                self._stream(entry, reply, drop)
        else:
            entry.billed |= Usage(output_tokens=reply.output)
            entry.finished = True
            self._json(200, {**_envelope(entry, body), "content": _blocks(reply, number), **_ending(entry, reply)})

    def _error(self, status: int, reply: Reply) -> None:
        kind = {429: "rate_limit_error", 529: "overloaded_error", 401: "authentication_error"}.get(status, "api_error")
        wait = getattr(reply, "retry_after_s", None)
        headers = {"retry-after": str(wait)} if wait is not None else {}
        self._json(status, {"type": "error", "error": {"type": kind, "message": "stand-in says no"}}, headers)

    def _limit(self, until: int) -> None:
        """Refuse as a subscription's limit does."""
        self.api.refused_at.append(time.time())
        unified = {"status": "rejected", "reset": until, "representative-claim": "five_hour", "5h-status": "rejected"}
        headers = {f"anthropic-ratelimit-unified-{name}": str(value) for name, value in unified.items()}
        error = {"type": "rate_limit_error", "message": "This request would exceed your account's rate limit."}
        wait = {"retry-after": str(max(1, until - int(time.time())))}
        self._json(429, {"type": "error", "error": error}, {**headers, **wait})

    def _stream(self, entry: Entry, reply: Text | Tools, drop: str | None) -> None:
        self.send_response(200)
        self.send_header("content-type", CONTENT_TYPE if self.in_frames else "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self._event({"type": "message_start", "message": {**_envelope(entry, {}), "content": []}})
        if drop == "start":
            return self._drop()
        self.api.before_text(entry)
        sent = 0
        for number, block in enumerate(_blocks(reply, entry.index)):
            start = {**block, "text": ""} if block["type"] == "text" else {**block, "input": {}}
            self._event({"type": "content_block_start", "index": number, "content_block": start})
            whole = block["text"] if block["type"] == "text" else json.dumps(block["input"])
            pieces = whole.replace(" ", " \0").split("\0") if reply.delay_s or reply.gate else [whole]
            for place, piece in enumerate(pieces):
                if reply.gate is not None and place == len(pieces) // 2:
                    self._wait(reply.gate, pings=getattr(reply, "pings", True))
                kind = "text" if block["type"] == "text" else "partial_json"
                delta = {"type": "text_delta" if kind == "text" else "input_json_delta", kind: piece}
                self._event({"type": "content_block_delta", "index": number, "delta": delta})
                sent += 1
                entry.billed |= Usage(output_tokens=min(sent, reply.output))
                if drop == "text":
                    return self._drop()
                if reply.delay_s:
                    self.api.closing.wait(reply.delay_s)
            self._event({"type": "content_block_stop", "index": number})
            if drop == "block":
                return self._drop()
        entry.billed |= Usage(output_tokens=reply.output)
        entry.finished = True
        ending = _ending(entry, reply)
        delta = {"stop_reason": ending["stop_reason"], "stop_sequence": None}
        self._event({"type": "message_delta", "delta": delta, "usage": ending["usage"]})
        self._event({"type": "message_stop"})
        self.wfile.write(b"0\r\n\r\n")
        return None

    def _wait(self, gate: threading.Event, *, pings: bool) -> None:
        """Wait for the gate; with pings it is noticed when the client leaves."""
        while not gate.wait(0.02) and not self.api.closing.is_set():
            if pings:
                self._event({"type": "ping"})

    def _drop(self) -> None:
        """Cut the connection, once the client has had the time to read what came before."""
        self.api.closing.wait(0.2)
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _event(self, data: dict[str, Any]) -> None:
        text = f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()
        if self.in_frames:
            text = framed(data)
        self.wfile.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")
        self.wfile.flush()

    def _json(self, status: int, data: dict[str, Any], headers: Mapping[str, str] | None = None) -> None:
        self._send(status, json.dumps(data).encode(), headers=headers)

    def _send(
        self, status: int, body: bytes, *, kind: str = "application/json", headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _api_usage(usage: Usage) -> dict[str, int]:
    return {
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": usage.cache_creation_input_tokens,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "output_tokens": usage.output_tokens,
    }


def _envelope(entry: Entry, body: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": entry.message_id,
        "type": "message",
        "role": "assistant",
        "model": entry.model,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**_usage_of(entry), **entry.details},
    }


def _usage_of(entry: Entry) -> dict[str, Any]:
    """The usage object of a response, so far; iterations come at its end."""
    if entry.billing is None:
        return _api_usage(entry.billed)
    found = entry.billing.usage(entry)
    return found if entry.finished else {key: value for key, value in found.items() if key != "iterations"}


def _ending(entry: Entry, reply: Text | Tools) -> dict[str, Any]:
    stop_reason = reply.stop_reason if isinstance(reply, Text) else "tool_use"
    return {"stop_reason": stop_reason, "usage": {**_usage_of(entry), **entry.details}}


def _blocks(reply: Text | Tools, number: int) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = [{"type": "text", "text": reply.text}] if reply.text else []
    if isinstance(reply, Tools):
        blocks += [
            {"type": "tool_use", "id": f"toolu_{number}_{place}", "name": call.name, "input": call.input}
            for place, call in enumerate(reply.calls)
        ]
    return blocks


def claude_env(home: Path, base_url: str) -> dict[str, str]:
    """The whole environment for a claude that can reach nothing but the stand-in."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "IS_SANDBOX": "1",
        "ANTHROPIC_BASE_URL": base_url,
        "ANTHROPIC_API_KEY": "dummy",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
