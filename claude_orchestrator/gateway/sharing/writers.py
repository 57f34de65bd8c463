"""Which run writes a prefix of the prompt cache, where several runs share a key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from claude_orchestrator.gateway.board import Board, Posts
from claude_orchestrator.gateway.sharing.prefixes import Prefix
from claude_orchestrator.launch.background import Tasks

SHARED_PREFIXES = 2  # tools and system prompt: what follows is a run's own
ASK_AGAIN_S = 0.1
WRITING, READABLE, GIVEN_UP = "writing", "readable", "given up"


class Writers:
    """Asks other runs before this one writes a prefix, and tells them what becomes of it."""

    def __init__(self, board: Board, wait_s: float) -> None:
        self._board = board
        self._wait_s = wait_s
        self._telling = Tasks()

    async def may_write(self, prefix: Prefix, left_s: Callable[[], float]) -> float | None:
        """Wait, while `left_s` is positive, until no other run is about to write the prefix.

        Returns for how long it can be read then, or None if it cannot, so that this run has to write it.
        """
        topic = prefix.digest.hex()
        while left_s() > 0:
            answer = await self._board.post(topic, WRITING, self._wait_s, 0)
            if answer is None or not answer[1]:
                return None
            seen, others = answer
            readable_s, writes = self._state(prefix, others)
            if readable_s > 0:
                return readable_s
            if not writes:
                again = await self._board.post(topic, WRITING, self._wait_s, seen)
                if again is None or not again[1]:
                    return None
            await asyncio.sleep(max(0.0, min(ASK_AGAIN_S, left_s())))
        return None

    def _state(self, prefix: Prefix, others: Posts) -> tuple[float, bool]:
        """For how long the prefix can still be read, and whether somebody writes it."""
        readable_s, writes = 0.0, 0
        for age_s, text in others:
            if text == WRITING:
                writes += age_s < self._wait_s
            else:
                writes -= 1
                if text == READABLE:
                    readable_s = max(readable_s, prefix.lifetime_s - age_s)
        return readable_s, writes > 0

    def tell(self, prefixes: tuple[Prefix, ...], text: str) -> None:
        """Tell other runs what has become of prefixes that this run was about to write."""
        for prefix in prefixes:
            lifetime_s = prefix.lifetime_s if text == READABLE else self._wait_s
            self._telling.start(self._board.post(prefix.digest.hex(), text, lifetime_s, None))
