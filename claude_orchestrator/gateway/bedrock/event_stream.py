"""Reads Bedrock's event stream, and gives its events the form that the Messages API gives them. Pure.

A message is its length, that of its headers, a checksum of both, headers, payload, and a checksum of all:
https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html. The payload has an event of the Messages API in
base64.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Iterator

CONTENT_TYPE = "application/vnd.amazon.eventstream"
MAX_MESSAGE_BYTES = 16 * 1024 * 1024  # as AWS limits them
_PRELUDE_BYTES, _LEAST_BYTES = 12, 16


class BrokenStream(ValueError):
    """The bytes are no event stream."""


class Messages:
    """Cuts bytes into whole messages."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The payloads of the messages that are whole now. Raises BrokenStream."""
        self._rest += data
        while len(self._rest) >= _PRELUDE_BYTES:
            total, headers = (int.from_bytes(self._rest[at : at + 4], "big") for at in (0, 4))
            if zlib.crc32(self._rest[:8]) != int.from_bytes(self._rest[8:12], "big"):
                raise BrokenStream("the checksum of a message's beginning is wrong")
            if not _LEAST_BYTES + headers <= total <= MAX_MESSAGE_BYTES:
                raise BrokenStream("the length of a message is wrong")
            if len(self._rest) < total:
                return
            message, self._rest = self._rest[:total], self._rest[total:]
            if zlib.crc32(message[:-4]) != int.from_bytes(message[-4:], "big"):
                raise BrokenStream("the checksum of a message is wrong")
            yield message[_PRELUDE_BYTES + headers : -4]


def as_events(payload: bytes) -> bytes:
    """An event of the Messages API from a payload, framed as the Messages API does; an error if it is one."""
    try:
        data = json.loads(payload)
        inner = data.get("bytes") if isinstance(data, dict) else None
        if isinstance(inner, str):
            event = json.loads(base64.b64decode(inner, validate=True))
            return b"data: " + json.dumps(event).encode() + b"\n\n"
    except (ValueError, RecursionError, binascii.Error):
        pass
    error = {"type": "error", "error": {"type": "api_error", "message": "the stream carries an error"}}
    return b"event: error\ndata: " + json.dumps(error).encode() + b"\n\n"
