"""Where runs tell each other something while they work, such as what they draw on a key's rate limits."""

from __future__ import annotations

from typing import Protocol

Posts = list[tuple[float, str]]  # each with its age in seconds


class Board(Protocol):
    """Posts on topics, which expire. Topics are digests: they name no key and no text."""

    async def post(self, topic: str, text: str, lifetime_s: float, seen: int | None) -> tuple[int, Posts] | None:
        """Post a text, unless other runs have posted on the topic since number `seen`; None: always.

        Returns the number of the latest post, and what others have posted since; None if nothing is shared.
        """
