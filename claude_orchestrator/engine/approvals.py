"""Tools that wait until a person approves them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.run_events import ApprovalAsked, ApprovalEnded, By

MAX_PENDING = 1_000
UNATTENDED = "Permission denied: this instance runs unattended."


class Reply(NamedTuple):
    """How a question is answered. `message` is for Claude, if it is a denial."""

    allowed: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """A tool of an instance that waits. `text` says what it does; times are Unix times."""

    id: str
    instance: str
    tool: str
    text: str
    given: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    asked_at: float = 0.0
    until: float = 0.0


class _Pending(NamedTuple):
    ask: Ask
    reply: Callable[[Reply], None]
    timer: asyncio.TimerHandle


class Approvals:
    """The questions that are open. Each gets exactly one reply: a person's, or a denial after `timeout_s`."""

    def __init__(self, bus: Bus, timeout_s: float, wall: Callable[[], float] = time.time) -> None:
        self.timeout_s = timeout_s
        self._bus = bus
        self._wall = wall
        self._pending: dict[str, _Pending] = {}
        self._count = 0

    @property
    def pending(self) -> tuple[Ask, ...]:
        """What waits, the oldest first."""
        return tuple(one.ask for one in self._pending.values())

    def ask(self, instance: str, tool: str, text: str, reply: Callable[[Reply], None], **more: Any) -> Ask:
        """Ask a person. `reply` is called once, unless the question is withdrawn."""
        self._count += 1
        now = self._wall()
        ask = Ask(str(self._count), instance, tool, text, asked_at=now, until=now + self.timeout_s, **more)
        if len(self._pending) >= MAX_PENDING:
            reply(Reply(False, f"{MAX_PENDING:,} other tools wait for approval"))
            return ask
        timer = asyncio.get_running_loop().call_later(self.timeout_s, self._late, ask.id)
        self._pending[ask.id] = _Pending(ask, reply, timer)
        self._bus.publish(ApprovalAsked(ask.id, instance, tool, text))
        return ask

    def answer(self, ask_id: str, reply: Reply, by: By) -> bool:
        """Answer a question; False if it is not open."""
        pending = self._take(ask_id)
        if pending is None:
            return False
        pending.reply(reply)
        self._ended(pending.ask, "allowed" if reply.allowed else "denied", by)
        return True

    def withdraw(self, ask_id: str, why: str) -> None:
        """Nobody needs the answer any more."""
        pending = self._take(ask_id)
        if pending is not None:
            self._ended(pending.ask, why, By("run"))

    def _late(self, ask_id: str) -> None:
        pending = self._take(ask_id)
        if pending is not None:
            pending.reply(Reply(False, "Permission denied: nobody answered in time."))
            self._ended(pending.ask, "denied", By("timeout", why=f"nobody answered within {self.timeout_s:g} s"))

    def _take(self, ask_id: str) -> _Pending | None:
        pending = self._pending.pop(ask_id, None)
        if pending is not None:
            pending.timer.cancel()
        return pending

    def _ended(self, ask: Ask, outcome: str, by: By) -> None:
        self._bus.publish(ApprovalEnded(ask.id, ask.instance, ask.text, outcome, by))
