"""Asks a running claude for its own count: after events that imply hidden API calls, and at slow intervals.

Near a limit it asks after each such event, without an interval.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from claude_orchestrator.claude.events import Assistant, Event, Retry, SideCall, Task, UsageAnswer, User
from claude_orchestrator.claude.input_messages import control_request
from claude_orchestrator.engine.hidden_use import HiddenUse
from claude_orchestrator.engine.state import InstanceStatus
from token_budget.models import Amount, Budget

ASK_EVERY_S = 0.25  # at most this often for one instance, on its events
ASK_SUBSCRIPTION_EVERY_S = 2.0  # if answers carry rate limits, which claude may have to fetch
BEAT_S = 2.0  # while subagents are at work
SLOW_BEAT_S = 10.0
# tools that never call the API themselves: their results are no reason to ask for the CLI's count
LOCAL_TOOLS = frozenset(
    {"Bash", "Edit", "Glob", "Grep", "LS", "MultiEdit", "NotebookEdit", "Read", "TodoWrite", "Write"}
)


class UsagePoller:
    """Sends `get_usage` requests for one attempt. A metered attempt needs them only for calls that bypass the meter.

    `hidden` has the hidden responses of all instances, and `budgets` are those that stop this one.
    """

    def __init__(
        self,
        status: InstanceStatus,
        send: Callable[[Mapping[str, Any]], None],
        hidden: HiddenUse,
        budgets: tuple[Budget, ...],
    ) -> None:
        self._status = status
        self._send = send
        self._hidden = hidden
        self._own = hidden.of(budgets, self._ask_unless_asking)
        self._asked_at = float("-inf")
        self._asking = False
        self._every_s = ASK_EVERY_S
        self._timer: asyncio.TimerHandle | None = None

    def ask(self) -> None:
        """Ask now."""
        self._cancel_timer()
        self._own.asked()
        self._asked_at, self._asking = asyncio.get_running_loop().time(), True
        self._send(control_request("usage", "get_usage", skip_behaviors=True))

    def observe(self, event: Event, charged: Amount) -> None:
        """Ask soon if the event implies API calls that the stream may not show. `charged` is what it added."""
        match event:
            case UsageAnswer():
                self._asking = False
                self._every_s = ASK_EVERY_S if event.rate_limits is None else ASK_SUBSCRIPTION_EVERY_S
                self._own.counted(charged)
                self._hidden.ask_near_limits(self._own)
            case Task() | SideCall() | Retry():
                self._ask_soon(event)
            case Assistant() | User() if event.parent is not None:
                self._ask_soon(event)
            case Assistant(tools=tools) if not LOCAL_TOOLS.issuperset(tools):
                self._ask_soon(event)
            case _:
                pass

    async def beat(self) -> None:
        """Ask at slow intervals until cancelled, because some calls have no event."""
        while True:
            await asyncio.sleep(BEAT_S if self._status.tally.unseen_calls else SLOW_BEAT_S)
            self.ask()

    def close(self) -> None:
        """Ask nothing more."""
        self._cancel_timer()
        self._hidden.remove(self._own)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ask_unless_asking(self) -> None:
        if not self._asking:
            self.ask()

    def _ask_soon(self, event: Event) -> None:
        """Ask now, or as soon as the interval allows."""
        if self._status.tally.metered:
            return
        if self._own.budgets and self._own.observe(event):
            self._hidden.add(self._own)
            self._hidden.ask_near_limits(self._own)
        loop = asyncio.get_running_loop()
        wait_s = self._asked_at + self._every_s - loop.time()
        if wait_s <= 0 and not self._asking:
            self.ask()
        elif self._timer is None:
            self._timer = loop.call_later(max(wait_s, 0.0), self.ask)
