"""Which guard a run has: the fence where the kernel offers one, otherwise a guard that searches for marks."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import IO, Protocol

from claude_orchestrator.launch.fence.guard import FenceGuard
from claude_orchestrator.launch.fence_kind import fence_kind


class Guard(Protocol):
    """A context with a second process, which ends a run's processes if this process dies."""

    def end_of_guard(self) -> IO[bytes] | socket.socket | None:
        """What becomes readable when the guard itself has ended; None where there is none."""

    def revive(self) -> None:
        """Start another guard if this one has ended. Raises OSError where that is not possible."""

    def __enter__(self) -> Guard:
        """Start it. Raises OSError where that is not possible."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Dismiss it."""


def fence_of(mark: str) -> FenceGuard | None:
    """The fence for a run, if this system has one and nobody switched it off."""
    kind = fence_kind()
    return None if kind == "mark" else FenceGuard(mark, kind)
