"""An event of the Messages API as Bedrock's event stream frames it, for what stands in for Bedrock."""

from __future__ import annotations

import base64
import json
import zlib

# `:event-type` chunk, `:content-type` application/json, `:message-type` event, each as a name and a text
HEADERS = b"".join(
    bytes([len(name)]) + name + b"\7" + len(value).to_bytes(2, "big") + value
    for name, value in (
        (b":event-type", b"chunk"),
        (b":content-type", b"application/json"),
        (b":message-type", b"event"),
    )
)
BESIDE_BYTES = 16  # two lengths and two checksums


def framed(event: object) -> bytes:
    """A message that carries this event."""
    inner = base64.b64encode(json.dumps(event).encode()).decode()
    payload = json.dumps({"bytes": inner, "p": "padding"}).encode()
    lengths = (BESIDE_BYTES + len(HEADERS) + len(payload)).to_bytes(4, "big") + len(HEADERS).to_bytes(4, "big")
    whole = lengths + zlib.crc32(lengths).to_bytes(4, "big") + HEADERS + payload
    return whole + zlib.crc32(whole).to_bytes(4, "big")
