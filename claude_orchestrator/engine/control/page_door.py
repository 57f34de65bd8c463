"""What the HTTP server of a run's page takes from the gateway: the door, and bounded bodies. It needs aiohttp."""

from __future__ import annotations

from typing import Any

from claude_orchestrator.gateway.bodies import read_body
from claude_orchestrator.gateway.door import Door

__all__ = ["page_door", "read_body"]


def page_door(handler: Any, **options: Any) -> Door:
    """A server that keeps a bounded number of connections that have shown no cookie, each for a bounded time.

    Any user of this machine may connect, because the browser of a user is not always his own process.
    """
    return Door(handler, owner_of=lambda peer, own: None, **options)
