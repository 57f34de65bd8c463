"""Tools that wait until a person approves them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.run_events import ApprovalAsked, ApprovalEnded, By, RuleMade
from token_budget.named_tuples import NamedTuple

if TYPE_CHECKING:
    from claude_orchestrator.claude.permission_rules import Call, Rule

MAX_PENDING = MAX_RULES = 1_000
UNATTENDED = "Permission denied: this instance runs unattended."


class Reply(NamedTuple):
    """How a question is answered. `message` is for Claude, if it is a denial."""

    allowed: bool
    message: str = ""


class ToolQuestion(NamedTuple):
    """A tool call that waits for a person. `text` says what it does. Times are Unix times."""

    id: str
    instance: str
    tool: str
    text: str
    given: Mapping[str, Any] = MappingProxyType({})
    description: str = ""
    asked_at: float = 0.0
    until: float = 0.0


class _Pending(NamedTuple):
    ask: ToolQuestion
    call: Call
    reply: Callable[[Reply], None]
    timer: asyncio.TimerHandle


class Approvals:
    """The questions that are open. Each gets exactly one reply: a person's, or a denial after `timeout_s`.

    `rules` are those that people made in earlier starts of the run.
    """

    def __init__(
        self, bus: Bus, timeout_s: float, wall: Callable[[], float] = time.time, rules: Iterable[Rule] = ()
    ) -> None:
        self.timeout_s = timeout_s
        self._bus = bus
        self._wall = wall
        self._pending: dict[str, _Pending] = {}
        self._rules = list(rules)
        self._count = 0

    @property
    def pending(self) -> tuple[ToolQuestion, ...]:
        """What waits, the oldest first."""
        return tuple(one.ask for one in self._pending.values())

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules that people have made in this run."""
        return tuple(self._rules)

    def ask(self, instance: str, call: Call, description: str, reply: Callable[[Reply], None]) -> str:
        """Ask a person; returns the id. `reply` is called once, perhaps at once, unless the question is withdrawn."""
        from claude_orchestrator.claude.tool_text import call_text

        self._count += 1
        now, text = self._wall(), call_text(call.tool, call.given)
        until = now + self.timeout_s
        ask = ToolQuestion(str(self._count), instance, call.tool, text, call.given, description, now, until)
        if len(self._pending) >= MAX_PENDING:
            reply(Reply(False, f"{MAX_PENDING:,} other tools wait for approval"))
            return ask.id
        timer = asyncio.get_running_loop().call_later(self.timeout_s, self._late, ask.id)
        self._pending[ask.id] = _Pending(ask, call, reply, timer)
        self._bus.publish(ApprovalAsked(ask.id, instance, call.tool, text))
        return ask.id

    def answer(self, ask_id: str, reply: Reply, by: By, *, always: bool = False) -> bool:
        """Answer a question; False if it is not open. `always`: such calls are allowed in the rest of the run."""
        pending = self._take(ask_id)
        if pending is None:
            return False
        pending.reply(reply)
        self._ended(pending.ask, "allowed" if reply.allowed else "denied", by)
        if reply.allowed and always:
            from claude_orchestrator.claude.permission_rules import exactly

            self._allow(exactly(pending.call), by)
        return True

    def _allow(self, rule: Rule, by: By) -> None:
        """Add a rule for the rest of the run. It also answers the questions that are open."""
        from claude_orchestrator.claude.permission_rules import allowing

        if len(self._rules) < MAX_RULES and rule not in self._rules:
            self._rules.append(rule)
            self._bus.publish(RuleMade(rule, by))
        for one in tuple(self._pending.values()):
            if allowing([rule], one.call) is not None:
                self.answer(one.ask.id, Reply(True), by._replace(via="rules", why=f"{rule} is always allowed"))

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

    def _ended(self, ask: ToolQuestion, outcome: str, by: By) -> None:
        self._bus.publish(ApprovalEnded(ask.id, ask.instance, ask.text, outcome, by))
