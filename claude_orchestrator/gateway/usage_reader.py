"""What an answer of the Messages API says of its tokens, read from its bytes as they pass. Pure.

Shapes: https://docs.claude.com/en/api/messages and https://docs.claude.com/en/api/messages-streaming.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from typing import Any, Protocol

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.claude.stream import LineFramer, read_usage, written_for_1h
from token_budget.models import Usage

MAX_EVENT_BYTES = 4 * 1024 * 1024  # those that carry usage have some hundred bytes
MAX_BODY_BYTES = 64 * 1024 * 1024
CHARS_PER_TOKEN = 4  # the rule of thumb of Anthropic's documentation for English text
DECODABLE = ("gzip", "deflate", "identity")
_DATA = b"data:"
_HEAD_BYTES = 200


class AnswerMeter(Protocol):
    """Reads one answer's usage as its bytes pass."""

    def feed(self, data: bytes) -> ApiUsage | None:
        """The usage so far, when `data` tells more of it."""

    def close(self) -> ApiUsage | None:
        """The usage at the end; where the answer was cut off, its output is estimated by what passed."""


def answer_meter(content_type: str, encoding: str) -> AnswerMeter:
    """A meter for an answer with these headers."""
    meter: AnswerMeter = _EventStream() if "event-stream" in content_type else _Body()
    return _Decoded(meter, encoding) if encoding in ("gzip", "x-gzip", "deflate") else meter


class _Decoded:
    """A meter of compressed bytes."""

    def __init__(self, meter: AnswerMeter, encoding: str) -> None:
        self._meter = meter
        self._wbits = zlib.MAX_WBITS if encoding == "deflate" else zlib.MAX_WBITS | 16
        self._decoder = zlib.decompressobj(self._wbits)
        self._broken = self._begun = False

    def feed(self, data: bytes) -> ApiUsage | None:
        if self._broken:
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
        return replace(usage, exact=False, told=False) if usage is not None and broken else usage


class _EventStream:
    """Server-sent events."""

    def __init__(self) -> None:
        self._framer = LineFramer(MAX_EVENT_BYTES)
        self._id = ""
        self._usage = Usage()
        self._pieces = 0
        self._chars = 0
        self._done = False
        self._malformed = False
        self._stop_reason: str | None = None
        self._model = ""
        self._told = False
        self._input_told = self._output_told = self._refused = False
        self._written_for_1h_tokens = 0

    def feed(self, data: bytes) -> ApiUsage | None:
        told = False
        for line in self._framer.feed(data):
            told = self._line(line) or told
        return self._so_far() if told else None

    def _line(self, line: bytes) -> bool:
        """Whether the line tells of usage; only those that do are parsed."""
        if not line.startswith(_DATA):
            return False
        head = line[:_HEAD_BYTES]
        if b"content_block_delta" in head or b"content_block_delta" in line[-_HEAD_BYTES:]:
            self._pieces += 1
            self._chars += max(0, len(line) - 100)
            return False
        if b"usage" not in line and b"message_" not in head and b"error" not in head:
            return False
        event = _json(line[len(_DATA) :])
        match event.get("type"):
            case "message_start":
                message = event.get("message")
                message = message if isinstance(message, dict) else {}
                self._id, self._model = str(message.get("id") or ""), str(message.get("model") or "")
                self._take(message.get("usage"))
            case "error" if not self._told:
                self._refused = True  # as it would be with another status: not billed
            case "message_delta":
                delta = event.get("delta")
                reason = delta.get("stop_reason") if isinstance(delta, dict) else None
                self._stop_reason = reason if isinstance(reason, str) else None
                self._done = self._stop_reason is not None
                self._take(event.get("usage"))
                self._output_told = self._output_told or _tells(event.get("usage"), "output_tokens")
            case None:
                self._malformed = True
            case _:
                return False
        self._told = True
        return True

    def _take(self, value: object) -> None:
        usage, malformed = read_usage(value)
        self._usage |= usage
        self._input_told = self._input_told or _tells(value, "input_tokens")
        self._written_for_1h_tokens = max(self._written_for_1h_tokens, written_for_1h(value))
        self._malformed = self._malformed or malformed

    def _so_far(self, *, ended: bool = False) -> ApiUsage | None:
        if not self._told:
            return None
        told = self._refused or (not self._malformed and self._input_told and (self._output_told or not self._done))
        exact = not self._malformed and not self._framer.dropped and (told or not ended)
        cut = ended and not self._done
        return ApiUsage(
            self._id,
            self._usage,
            self._done,
            cut=cut,
            exact=exact,
            stop_reason=self._stop_reason,
            model=self._model,
            written_for_1h_tokens=self._written_for_1h_tokens,
            told=told,
        )

    def close(self) -> ApiUsage | None:
        for line in self._framer.flush():
            self._line(line)
        if not self._done:
            self._usage |= Usage(output_tokens=max(self._pieces, self._chars // CHARS_PER_TOKEN))
        return self._so_far(ended=True)


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
        usage, malformed = read_usage(data.get("usage"))
        if data.get("type") == "error":
            return ApiUsage("", Usage(), True, exact=False)
        if not isinstance(data.get("usage"), dict):
            return None
        told = not malformed and all(_tells(data["usage"], key) for key in ("input_tokens", "output_tokens"))
        reason = data.get("stop_reason")
        stop_reason = reason if isinstance(reason, str) else None
        return ApiUsage(
            str(data.get("id") or ""),
            usage,
            True,
            exact=told,
            told=told,
            stop_reason=stop_reason,
            model=str(data.get("model") or ""),
            written_for_1h_tokens=written_for_1h(data.get("usage")),
        )


def _tells(value: object, key: str) -> bool:
    return isinstance(value, dict) and value.get(key) is not None


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
