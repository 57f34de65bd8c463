"""Where a page's data comes from: a run in this process. Others implement the same protocol."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, Protocol

from claude_orchestrator.engine.activity import Activity
from claude_orchestrator.engine.control.event_log import Entry, Gap
from claude_orchestrator.engine.control.methods import call
from claude_orchestrator.engine.control.rpc import RpcRequest
from claude_orchestrator.engine.control.run_control import RunControl
from claude_orchestrator.engine.control.snapshot import approval_row, instance_row
from claude_orchestrator.engine.run_events import UsageRecorded
from claude_orchestrator.ui.web.frames import Key, Numbered

VIA = "web"
NUMBER = attrgetter("number")


class RunSource(Protocol):
    """A run as its page sees it. `name` tells orchestrators apart: numbers of another one mean nothing here."""

    @property
    def name(self) -> str:
        """The orchestrator of the run."""

    async def snapshot(self) -> Mapping[str, Any]:
        """The whole run, with the number of the last event that it contains."""

    async def brief(self) -> Mapping[str, Any]:
        """The run without its instances."""

    async def instance(self, name: str) -> Mapping[str, Any] | None:
        """The row of one instance; None if there is none of this name."""

    async def approvals(self) -> Sequence[Mapping[str, Any]]:
        """The tools that wait for a person."""

    def follow(self, number: int) -> AsyncGenerator[Sequence[Numbered] | Gap, None]:
        """What comes after a number; a Gap where that cannot be had. Ends with the run's orchestrator."""

    async def act(self, method: str, params: Mapping[str, Any]) -> Any:
        """Change the run. Raises RpcError."""


class LiveRun:
    """A run of this process."""

    def __init__(self, control: RunControl) -> None:
        self._control = control

    @property
    def name(self) -> str:
        """The orchestrator of the run."""
        return self._control.log.source

    async def snapshot(self) -> Mapping[str, Any]:
        """The whole run."""
        self._control.log.attach()  # what comes after it has a number
        return self._control.status()

    async def brief(self) -> Mapping[str, Any]:
        """The run without its instances."""
        return self._control.brief()

    async def instance(self, name: str) -> Mapping[str, Any] | None:
        """The row of one instance."""
        view = self._control.view
        found = next((status for status in view.instances if status.name == name), None)
        return None if found is None else instance_row(found, view, time.monotonic())

    async def approvals(self) -> Sequence[Mapping[str, Any]]:
        """The tools that wait for a person."""
        return [approval_row(ask) for ask in self._control.approvals]

    async def follow(self, number: int) -> AsyncGenerator[Sequence[Numbered] | Gap, None]:
        """What comes after a number."""
        async for found in self._control.log.follow(number, self.name):
            yield found if isinstance(found, Gap) else self._latest(found)

    async def act(self, method: str, params: Mapping[str, Any]) -> Any:
        """Change the run."""
        return call(self._control, RpcRequest(None, method, params), VIA, "")

    def _latest(self, entries: Iterable[Entry]) -> list[Numbered]:
        """The entries in order; of those that replace each other, the last."""
        kept: dict[object, Entry] = {}
        for entry in entries:
            event = entry.event
            if isinstance(event, Activity):
                kept[event.instance] = entry
            elif isinstance(event, UsageRecorded):
                kept[event.status] = entry
            else:
                kept[entry.number] = entry
        describe = partial(self._control.describe, budgets=False)  # messages have those of the whole run
        latest = sorted(kept.values(), key=NUMBER)
        return [Numbered(one.number, one.at, _key(one), partial(describe, one.event)) for one in latest]


def _key(entry: Entry) -> Key:
    event = entry.event
    if isinstance(event, Activity):
        return "activity", event.instance
    if isinstance(event, UsageRecorded):
        return "usage", event.status.name
    return entry.number
