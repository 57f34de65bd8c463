"""Keeps what instances share in the prompt cache while some of them wait to start, as far as that pays."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from claude_orchestrator.claude.prompt_cache import CachePrefix
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.engine.metering import KeepingCall, Metering
from claude_orchestrator.engine.run_context import RunContext
from claude_orchestrator.engine.run_events import Level, Message
from claude_orchestrator.engine.sharing.keeping_worth import SHARED_TOKENS, Worth
from claude_orchestrator.engine.sharing.start_order import prefix_of
from claude_orchestrator.engine.state import InstanceStatus, State
from token_budget.models import Unit
from token_budget.text import counted, format_usd

if TYPE_CHECKING:
    from claude_orchestrator.engine.ports import CacheKeeper
    from claude_orchestrator.gateway.sharing.kept import KeptRequest

CHECK_S = 1.0
SHORTEST_CHECK_S = 0.01
REMEMBERED = 8  # attempts of a group, of which the first ones may never have had a response
TRIES = 4  # within the margin, where the API fails for a moment
END_S = 1.0
START_S = 5.0  # from a launch to the first request
MAY_PASS = (0, 408, 409, 425, 429)  # statuses below 500 after which asking again may help; 0: there was no answer


@dataclass(slots=True, eq=False)
class _Group:
    """Instances with the same beginning. `spent` is what calls have cost since the last other use of it."""

    ran: deque[Metering] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    tokens: int = SHARED_TOKENS  # until a call has shown how many there are
    spent: int = 0
    calls: int = 0
    kept_until: float = 0.0
    not_before: float = 0.0
    call: KeepingCall | None = None
    task: asyncio.Task[None] | None = None
    said: set[str] = field(default_factory=set)
    given_up: bool = False


_Waiting = dict[CachePrefix, list[InstanceStatus]]


class CacheKeeping:
    """Repeats the beginning of a request of each group before the API drops it, while an instance of it waits.

    It is a context. A call is charged to the attempt whose request it repeats, and the budgets admit it like any other
    request. `starts_in_s` is how long an instance has to wait at least. Times are seconds of the run's clock.
    """

    def __init__(
        self,
        context: RunContext,
        keeper: CacheKeeper,
        instances: Iterable[InstanceStatus],
        starts_in_s: Callable[[InstanceStatus], float],
    ) -> None:
        self._context = context
        self._keeper = keeper
        self._instances = instances
        self._starts_in_s = starts_in_s
        self._groups: dict[CachePrefix, _Group] = {}
        self._prefixes: dict[str, tuple[LaunchSpec, CachePrefix]] = {}
        self._stopped = False

    def began(self, metering: Metering, status: InstanceStatus) -> None:
        """An attempt is about to send requests."""
        self._groups.setdefault(self._prefix_of(status.spec), _Group()).ran.append(metering)

    async def __aenter__(self) -> CacheKeeping:
        self._loop = asyncio.ensure_future(self._run())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.stop()
        self._loop.cancel()
        tasks = [self._loop, *(group.task for group in self._groups.values() if group.task is not None)]
        _, late = await asyncio.wait(tasks, timeout=END_S)  # what was sent may end
        for task in late:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def _run(self) -> None:
        """Look after all groups until cancelled."""
        while True:
            pause_s = self.check()
            await asyncio.sleep(pause_s)

    def check(self) -> float:
        """Begin the calls that are due; returns the seconds until the next check."""
        waiting = cache(self._waiting)  # one look at all instances, if any call is due
        pauses = [self._look_after(prefix, group, waiting) for prefix, group in self._groups.items()]
        return max(SHORTEST_CHECK_S, min([CHECK_S, *pauses]))

    def stop(self) -> None:
        """Make no further calls, and drop those that wait."""
        self._stopped = True
        for group in self._groups.values():
            self._drop_waiting(group)

    def _look_after(self, prefix: CachePrefix, group: _Group, waiting_by_prefix: Callable[[], _Waiting]) -> float:
        """Make a call if it is time for one; returns the seconds until the next check."""
        found = None if self._stopped or group.given_up else self._kept(group)
        left_s = 0.0 if found is None else self._keeper.readable_s(found[1])
        if found is None or left_s <= 0:  # once it is gone, an instance has to write it again
            self._drop_waiting(group)
            return CHECK_S
        metering, kept = found
        now, worth = self._context.clock.monotonic(), self._worth(group, metering, kept)
        pause_s = max(left_s - worth.margin_s, group.not_before - now)
        if group.task is None and pause_s > 0:
            return pause_s
        waiting = waiting_by_prefix().get(prefix, [])
        if group.task is not None or not waiting:
            if not waiting:
                self._drop_waiting(group)
            return left_s
        if now + left_s > group.kept_until + SHORTEST_CHECK_S:  # a request of an instance has read it since
            group.spent = group.calls = 0
        wait_s = min(map(self._starts_in_s, waiting))
        if 0 < wait_s < left_s - START_S:  # it will read it itself
            return wait_s
        if self._pays(group, worth, wait_s, left_s):
            self._say(group, "begins", self._begins(worth, len(waiting)))
            group.call = KeepingCall(metering)
            group.task = asyncio.ensure_future(self._keep(group, group.call, kept, worth))
        return left_s

    def _kept(self, group: _Group) -> tuple[Metering, KeptRequest] | None:
        """The latest attempt that has sent a request to repeat, and whose use can be counted."""
        for metering in reversed(group.ran):
            kept = self._keeper.kept_of(metering.place)
            if kept is not None and metering.counts:
                return metering, kept
        return None

    def _waiting(self) -> _Waiting:
        """The instances that have not read their prefix yet, by prefix."""
        found: _Waiting = {}
        for status in self._instances:
            waits = status.state in (State.PENDING, State.WAITING) or _is_starting(status)
            if waits and status.planned.grows is None:
                found.setdefault(self._prefix_of(status.spec), []).append(status)
        return found

    def _prefix_of(self, spec: LaunchSpec) -> CachePrefix:
        """The prefix of an instance, computed once for each spec of its."""
        known = self._prefixes.get(spec.name)
        if known is None or known[0] is not spec:
            known = self._prefixes[spec.name] = spec, prefix_of(spec)
        return known[1]

    def _worth(self, group: _Group, metering: Metering, kept: KeptRequest) -> Worth:
        prefix, price = kept.prefix, self._context.services.price
        return Worth(group.tokens, metering.model, price, prefix.lifetime_s, prefix.for_an_hour)

    def _pays(self, group: _Group, worth: Worth, wait_s: float, left_s: float) -> bool:
        """Whether another call can pay off."""
        if group.spent + worth.reading > worth.saved:
            why = "another call would cost more than writing it again"
        elif group.calls + worth.calls_for(wait_s, left_s) > worth.most_calls:
            why = f"the next instance starts in {wait_s / 60:.0f} minutes, when writing it again costs less"
        elif worth.nano_usd_of_reading is None and any(one.unit is Unit.USD for one in self._context.manager.budgets):
            why = "its calls have no known price, and a budget is in money"
        else:
            return True
        self._say(group, "ends", f"the shared prompt cache is not kept warm: {why}")
        return False

    def _begins(self, worth: Worth, waiting: int) -> str:
        nano_usd = worth.nano_usd_of_reading
        cost = "" if nano_usd is None else f", for {format_usd(nano_usd)}"
        who = "1 instance that waits" if waiting == 1 else f"{waiting:,} instances that wait"
        each = f"each call reads about {counted(worth.tokens, 'token')}{cost}"
        return f"the shared prompt cache is kept warm for {who}: {each}"

    async def _keep(self, group: _Group, call: KeepingCall, kept: KeptRequest, worth: Worth) -> None:
        """Make a call, and note what has become of it."""
        status = 0
        try:
            status = await self._keeper.keep(call.place, kept)
        finally:
            await call.close()
            group.call = group.task = None
            used, now = call.usage, self._context.clock.monotonic()
            group.spent += worth.cost(used)
            group.calls += 1
            group.tokens = used.cache_read_input_tokens + used.cache_creation_input_tokens or group.tokens
            group.kept_until = now + self._keeper.readable_s(kept)
            group.not_before = now + worth.margin_s / TRIES
        if call.refusal is not None:
            self._give_up(group, call.refusal.reason)
        elif not (status == 200 or status >= 500 or status in MAY_PASS):
            self._give_up(group, f"the API answers with status {status}")

    def _give_up(self, group: _Group, why: str) -> None:
        group.given_up = True
        self._context.bus.warn(f"the shared prompt cache is not kept warm any longer: {why}")

    def _say(self, group: _Group, what: str, text: str) -> None:
        """Say something once."""
        if what not in group.said:
            group.said.add(what)
            self._context.bus.publish(Message(Level.INFO, text))

    def _drop_waiting(self, group: _Group) -> None:
        """Drop a call that was not sent yet."""
        if group.task is not None and group.call is not None and group.call.waits:
            group.task.cancel()


def _is_starting(status: InstanceStatus) -> bool:
    """Whether it has started and no response of its has begun."""
    return status.state is State.RUNNING and not status.ending and not status.attempt.tally.usage.total_tokens
