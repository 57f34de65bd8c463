"""Reads the body of a request within a bound. It needs aiohttp."""

from __future__ import annotations

from aiohttp import web


async def read_body(request: web.BaseRequest, most_bytes: int) -> bytes | None:
    """The whole body; None if it has more than `most_bytes`."""
    parts, size_bytes = [], 0
    async for chunk in request.content.iter_any():
        size_bytes += len(chunk)
        if size_bytes > most_bytes:
            return None
        parts.append(chunk)
    return b"".join(parts)
