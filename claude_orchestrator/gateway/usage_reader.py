"""Reads the usage of an answer of the Messages API from its bytes as they pass. Pure.

Shapes: https://docs.claude.com/en/api/messages and https://docs.claude.com/en/api/messages-streaming; the framing of
events: https://html.spec.whatwg.org/multipage/server-sent-events.html.
"""

from __future__ import annotations

import json
import zlib
from typing import Any, Protocol

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.gateway.bedrock.event_stream import BrokenStream, Messages, as_events
from token_budget.api_usage import ApiUsageObject, least_tokens, output_text, read_usage
from token_budget.models import Usage

MAX_EVENT_BYTES = 4 * 1024 * 1024  # those that carry usage have some hundred bytes
MAX_BODY_BYTES = 64 * 1024 * 1024
DECODABLE = ("gzip", "deflate", "identity")
_BOM = b"\xef\xbb\xbf"


class AnswerMeter(Protocol):
    """Reads one answer's usage as its bytes pass."""

    def feed(self, data: bytes) -> ApiUsage | None:
        """The usage so far, when `data` states more of it."""

    def close(self) -> ApiUsage | None:
        """The usage at the end; where the answer was cut off, its output is estimated by what passed."""


def answer_meter(encoding: str, *, in_frames: bool = False) -> AnswerMeter:
    """A meter for an answer with this `Content-Encoding`; `in_frames`: its events come as Bedrock frames them."""
    meter = _Framed() if in_frames else _ByContent()
    return _Decoded(meter, encoding) if encoding in ("gzip", "x-gzip", "deflate") else meter


class _ByContent:
    """A meter of events or of a document, whichever the answer is: claude reads events of any `Content-Type`."""

    def __init__(self) -> None:
        self._meter: AnswerMeter | None = None
        self._head = b""

    def feed(self, data: bytes) -> ApiUsage | None:
        if self._meter is not None:
            return self._meter.feed(data)
        self._head += data
        if len(self._head) <= len(_BOM) or not self._head.strip():
            return None
        return self._decide().feed(self._head)

    def _decide(self) -> AnswerMeter:
        is_document = self._head.removeprefix(_BOM).lstrip().startswith(b"{")
        self._meter = meter = _Body() if is_document else _EventStream()
        return meter

    def close(self) -> ApiUsage | None:
        return None if self._meter is None else self._meter.close()


class _Framed:
    """A meter of Bedrock's event stream."""

    def __init__(self) -> None:
        self._messages = Messages()
        self._meter = _EventStream()
        self._broken = False

    def feed(self, data: bytes) -> ApiUsage | None:
        last = None
        try:
            for payload in self._messages.feed(data) if not self._broken else ():
                last = self._meter.feed(as_events(payload)) or last
        except BrokenStream:
            self._broken = True
        return last

    def close(self) -> ApiUsage | None:
        usage = self._meter.close()
        return usage._replace(exact=False, told=False) if usage is not None and self._broken else usage


class _Decoded:
    """A meter of compressed bytes."""

    def __init__(self, meter: AnswerMeter, encoding: str) -> None:
        self._meter = meter
        self._wbits = zlib.MAX_WBITS if encoding == "deflate" else zlib.MAX_WBITS | 16
        self._decoder = zlib.decompressobj(self._wbits)
        self._broken = self._begun = False
        self._first_byte = b""

    def feed(self, data: bytes) -> ApiUsage | None:
        if self._broken:
            return None
        data, self._first_byte = self._first_byte + data, b""
        if not self._begun and len(data) < 2:  # a header has two bytes
            self._first_byte = data
            return None
        last = None
        try:
            while data:
                if self._decoder.eof:
                    self._decoder = zlib.decompressobj(self._wbits)  # gzip may come in several members
                plain = self._decompress(data)
                data = self._decoder.unconsumed_tail or self._decoder.unused_data
                last = self._meter.feed(plain) or last
        except zlib.error:
            self._broken = True
        return last

    def _decompress(self, data: bytes) -> bytes:
        try:
            plain = self._decoder.decompress(data, 1024 * 1024)  # a bomb must not fill the memory
        except zlib.error:
            if self._begun or self._wbits != zlib.MAX_WBITS:
                raise
            self._wbits = -zlib.MAX_WBITS  # some servers send deflate without its header
            self._decoder = zlib.decompressobj(self._wbits)
            plain = self._decoder.decompress(data, 1024 * 1024)
        self._begun = True
        return plain

    def close(self) -> ApiUsage | None:
        usage = self._meter.close()
        broken = self._broken or (self._begun and not self._decoder.eof)
        return usage._replace(exact=False, told=False) if usage is not None and broken else usage


class EventFramer:
    """Cuts chunks of bytes into the data of whole server-sent events.

    An event whose data is longer than `max_event_bytes` is left out and counted in `dropped`: memory stays bounded.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.max_event_bytes = max_event_bytes
        self.dropped = 0
        self._line = bytearray()  # the beginning of the next line
        self._data: list[bytes] = []
        self._size_bytes = 0
        self._is_first = True
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of each event that `chunk` completes."""
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        if chunk:
            self._after_cr = chunk.endswith(b"\r")
        lines = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        tail = lines.pop()
        events = []
        for line in lines:
            self._extend(line)
            events += self._end_line()
        self._extend(tail)
        return events

    def flush(self) -> list[bytes]:
        """The data of the last event when the stream ends within it."""
        return self._end_line() + self._end_event()

    def _extend(self, part: bytes) -> None:
        if len(self._line) <= self.max_event_bytes:
            self._line += part

    def _end_line(self) -> list[bytes]:
        line = bytes(self._line)
        self._line.clear()
        if self._is_first:
            self._is_first, line = False, line.removeprefix(_BOM)
        if not line:
            return self._end_event()
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
            self._size_bytes += len(line)
            if self._size_bytes > self.max_event_bytes:
                self._data = []
        return []

    def _end_event(self) -> list[bytes]:
        data, size_bytes = self._data, self._size_bytes
        self._data, self._size_bytes = [], 0
        if size_bytes > self.max_event_bytes:
            self.dropped += 1
            return []
        return [b"\n".join(data)] if data else []


class _EventStream:
    """Server-sent events."""

    def __init__(self) -> None:
        self._events = EventFramer(MAX_EVENT_BYTES)
        self._id = self._model = ""
        self._usage = ApiUsageObject()
        self._streamed_tokens = 0  # at least
        self._stop_reason: str | None = None
        self._begun = self._started = self._ended = self._has_output = self._failed = self._malformed = False

    def feed(self, data: bytes) -> ApiUsage | None:
        changed = False
        for event in self._events.feed(data):
            changed = self._event(event) or changed
        return self._so_far() if changed else None

    def _event(self, data: bytes) -> bool:
        """Take one event's data into account; whether it says anything of usage."""
        event = _json(data)
        match event.get("type"):
            case "content_block_delta":
                self._streamed_tokens += least_tokens(output_text(event.get("delta")))
                return False
            case "message_start":
                message = event.get("message")
                message = message if isinstance(message, dict) else {}
                self._id, self._model = str(message.get("id") or ""), str(message.get("model") or "")
                self._usage |= read_usage(message.get("usage"))
                self._started = True
            case "error":
                self._failed = True
            case "message_delta":
                delta = event.get("delta")
                reason = delta.get("stop_reason") if isinstance(delta, dict) else None
                self._stop_reason = reason if isinstance(reason, str) else self._stop_reason
                usage = read_usage(event.get("usage"))
                self._usage |= usage
                self._has_output = self._has_output or usage.has_output
            case "message_stop":
                self._ended = self._begun
            case None if event or b"usage" in data or data.lstrip().startswith(b"{"):
                self._malformed = True
            case _:
                return False
        self._begun = True
        return True

    @property
    def _whole(self) -> bool:
        return self._ended or self._stop_reason is not None

    @property
    def _refused(self) -> bool:
        """Whether it is an error from the start: as with another status, that is not billed."""
        return self._failed and not (self._started or self._usage.has_input or self._usage.has_output)

    def _so_far(self, *, is_over: bool = False) -> ApiUsage | None:
        if not self._begun:
            return None
        usage, lost = self._usage, self._malformed or self._events.dropped > 0
        counted = usage.has_input and (self._has_output or not self._whole)
        told = self._refused or (not self._malformed and usage.readable and counted)
        cut = is_over and not self._whole and not self._refused
        billed = usage.usage
        if is_over and not (self._whole and self._has_output):
            billed |= Usage(output_tokens=self._streamed_tokens)
        return ApiUsage(
            self._id,
            billed,
            self._whole,
            cut=cut,
            exact=usage.exact and not lost and (told or not is_over),
            stop_reason=self._stop_reason,
            model=self._model,
            told=told,
            failed=self._failed,
            parts=usage.parts(),
            terms=usage.terms,
        )

    def close(self) -> ApiUsage | None:
        for event in self._events.flush():
            self._event(event)
        return self._so_far(is_over=True)


class _Body:
    """A JSON document."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size_bytes = 0

    def feed(self, data: bytes) -> ApiUsage | None:
        self._size_bytes += len(data)
        if self._size_bytes <= MAX_BODY_BYTES:
            self._parts.append(data)
        return None

    def close(self) -> ApiUsage | None:
        data = _json(b"".join(self._parts)) if self._size_bytes <= MAX_BODY_BYTES else {}
        self._parts = []
        if data.get("type") == "error":
            return ApiUsage("", Usage(), True)  # as with another status: it is not billed
        if not isinstance(data.get("usage"), dict):
            return None
        usage = read_usage(data["usage"])
        told = usage.readable and usage.has_input and usage.has_output
        reason = data.get("stop_reason")
        return ApiUsage(
            str(data.get("id") or ""),
            usage.usage,
            True,
            exact=told and usage.exact,
            stop_reason=reason if isinstance(reason, str) else None,
            model=str(data.get("model") or ""),
            told=told,
            parts=usage.parts(),
            terms=usage.terms,
        )


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
