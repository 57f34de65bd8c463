"""Lets the requests of all instances go as fast as the API's rate limits allow."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field

from claude_orchestrator.claude.events import ApiUsage
from claude_orchestrator.gateway.accounts import account_of
from claude_orchestrator.gateway.board import Board
from claude_orchestrator.gateway.client import Client
from claude_orchestrator.gateway.pacing.elsewhere import ASK_EVERY_S, Elsewhere
from claude_orchestrator.gateway.pacing.estimate import Draw, Estimate, Size
from claude_orchestrator.gateway.pacing.limits import Resource, read_limits, retry_after_s
from claude_orchestrator.gateway.pacing.pacer import Pacer, Sent
from claude_orchestrator.gateway.pacing.waiting import WaitingRequests
from claude_orchestrator.gateway.sender import AGENT
from claude_orchestrator.launch.background import Tasks

MAX_LANES = 256
MAX_CONVERSATIONS = 4_096
RECHECK_S = 1.0  # answers may have shown more room, or less
PATIENCE_S = 120.0  # claude itself waits ten minutes for an answer
NOTICEABLE_S = 2.0  # a wait that people and launches notice
ENOUGH_READY = 2  # instances that wait to begin, so that the limits are used while others start
TOO_MANY_REQUESTS = 429
_MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]{1,200})"')


@dataclass(slots=True, eq=False)
class Waiter:
    """A request that waits; `first`: its conversation has not begun."""

    since: float
    conversation: tuple[bytes, str]
    size: Size
    first: bool
    called: asyncio.Event = field(default_factory=asyncio.Event)

    async def sleep(self, seconds: float) -> None:
        """Sleep until called, but no longer than that."""
        self.called.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.called.wait(), seconds)


@dataclass(slots=True, eq=False)
class Lane:
    """The requests of one key for one model, and `elsewhere` those of other runs."""

    elsewhere: Elsewhere
    pacer: Pacer = field(default_factory=Pacer)
    estimate: Estimate = field(default_factory=Estimate)
    conversations: OrderedDict[tuple[bytes, str], int] = field(default_factory=OrderedDict)  # bytes answered last
    begun: dict[Waiter, None] = field(default_factory=dict)  # those that wait, the first one first
    new: dict[Waiter, None] = field(default_factory=dict)  # the same for conversations that have not begun
    deciding: asyncio.Lock = field(default_factory=asyncio.Lock)
    catches_up: bool = False

    def waiter(self, conversation: tuple[bytes, str], size_bytes: int, now: float) -> Waiter:
        """What a request of a conversation is here."""
        before = self.conversations.get(conversation)
        new = None if before is None or size_bytes <= before else size_bytes - before
        return Waiter(now, conversation, Size(size_bytes, new), before is None)

    def answered(self, waiter: Waiter) -> None:
        """A request has its whole answer: its conversation has begun."""
        self.conversations[waiter.conversation] = waiter.size.all
        self.conversations.move_to_end(waiter.conversation)
        if len(self.conversations) > MAX_CONVERSATIONS:
            self.conversations.popitem(last=False)

    def next(self, now: float) -> Waiter | None:
        """Whose turn it is. A conversation that has begun goes before new ones: it needs less, and its cache is warm.

        Nobody waits for longer than PATIENCE_S for that.
        """
        new, begun = next(iter(self.new), None), next(iter(self.begun), None)
        if new is None or (begun is not None and now - new.since <= PATIENCE_S):
            return begun
        return new

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self.new) + len(self.begun)

    def queue_of(self, waiter: Waiter) -> dict[Waiter, None]:
        """Where it waits."""
        return self.new if waiter.first else self.begun

    def is_slow(self, now: float) -> bool:
        """Whether a request waits noticeably."""
        heads = (next(iter(queue), None) for queue in (self.new, self.begun))
        return any(waiter is not None and now - waiter.since > NOTICEABLE_S for waiter in heads)

    def reason(self, now: float) -> str:
        """What the next request waits for; empty if that is the answer which shows the limits."""
        if self.pacer.blocked_until > now:
            return "it has refused requests"
        tightest = Resource.REQUESTS if self.pacer.is_even else self.pacer.tightest(now)
        bucket = None if tightest is None else self.pacer.buckets.get(tightest)
        if tightest is None or bucket is None:
            return ""
        return f"{bucket.limit:,} {_WORDS[tightest]} a minute" + (", one by one" if self.pacer.is_even else "")

    def draw(self, waiter: Waiter) -> Draw:
        """What its request will likely draw."""
        return self.estimate.of(waiter.size)

    def call(self, now: float) -> None:
        """Whose turn it is looks at the limits again."""
        waiter = self.next(now)
        if waiter is not None:
            waiter.called.set()


class Turn:
    """A request that may be sent now. Tells its lane what becomes of it."""

    def __init__(self, gate: Gate, lane: Lane, sent: Sent, waiter: Waiter) -> None:
        self._gate = gate
        self._lane = lane
        self._sent = sent
        self._waiter = waiter

    def left(self) -> None:
        """Its connection is there, and it is on its way."""
        self._lane.pacer.left(self._gate.clock())

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """The headers of the answer have come."""
        now, readings = self._gate.clock(), read_limits(headers, self._gate.wall())
        if status == TOO_MANY_REQUESTS:
            wait_s = retry_after_s(headers)
            self._lane.pacer.refused(self._sent, readings, wait_s, now)
            if wait_s is not None:
                self._gate.tell(self._lane.elsewhere.refused(self._lane.pacer, wait_s))
        else:
            self._lane.pacer.answered(self._sent, readings, now)
        self._lane.call(now)

    def ended(self, usage: ApiUsage | None) -> None:
        """The answer has ended; `usage` is what it states."""
        if usage is not None and usage.whole and usage.told:
            self._lane.answered(self._waiter)
            draw = self._lane.estimate.learn(self._waiter.size, usage.usage)
            self._lane.elsewhere.correct(self._sent.at, self._sent.draw, draw)
            self._lane.pacer.correct(self._sent, draw, self._gate.clock())
            self._lane.call(self._gate.clock())

    def close(self) -> None:
        """Nothing more comes, whether it was answered or not."""
        self._lane.pacer.lost(self._sent)
        self._lane.call(self._gate.clock())


class Gate:
    """Holds requests back until the API has room for them, for each key and model.

    By `board` it shares what it sends with other runs.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        board: Board | None = None,
    ) -> None:
        self.clock = clock
        self.wall = wall
        self._board = board
        self._telling = Tasks()
        self._lanes: OrderedDict[bytes, Lane] = OrderedDict()

    async def turn(self, client: Client, headers: Mapping[str, str], path: str, body: bytes) -> Turn:
        """Wait until a request may be sent."""
        lane, agent = self._lane(client, headers, path, body), headers.get(AGENT, "")
        waiter = lane.waiter((client.digest, agent), len(body), self.clock())
        lane.queue_of(waiter)[waiter] = None
        client.waiting += 1
        try:
            sent = await self._send(lane, waiter)
        finally:
            client.waiting -= 1
            del lane.queue_of(waiter)[waiter]
            lane.call(self.clock())
        return Turn(self, lane, sent, waiter)

    async def _send(self, lane: Lane, waiter: Waiter) -> Sent:
        """Wait until the limits have room for the request, here and for all runs together; then it counts as sent."""
        while True:
            while (wait_s := self._wait_s(lane, waiter)) > 0:
                await waiter.sleep(min(wait_s, RECHECK_S))
            if lane.pacer.known and not lane.pacer.buckets:  # an API without limits
                return lane.pacer.send(lane.draw(waiter), self.clock())
            async with lane.deciding:
                if self._wait_s(lane, waiter) > 0:
                    continue
                draw = lane.draw(waiter)
                if await lane.elsewhere.claim(lane.pacer, draw):
                    if lane.elsewhere.is_behind and not lane.catches_up:
                        lane.catches_up = True
                        self.tell(self._catch_up(lane))
                    return lane.pacer.send(draw, self.clock())

    async def _catch_up(self, lane: Lane) -> None:
        """Tell other runs in a moment what was drawn without telling them."""
        await asyncio.sleep(ASK_EVERY_S)
        lane.catches_up = False
        async with lane.deciding:
            await lane.elsewhere.catch_up(lane.pacer)

    def tell(self, telling: Coroutine[object, object, None]) -> None:
        """Tell other runs something, without waiting for that."""
        self._telling.start(telling)

    def _wait_s(self, lane: Lane, waiter: Waiter) -> float:
        now = self.clock()
        return lane.pacer.wait_s(lane.draw(waiter), now) if lane.next(now) is waiter else RECHECK_S

    @property
    def is_slow(self) -> bool:
        """Whether more instances would only wait: some have started and wait for their first answer."""
        now = self.clock()
        return any(len(lane.new) >= ENOUGH_READY and lane.is_slow(now) for lane in self._lanes.values())

    @property
    def refusals(self) -> int:
        """How many requests the API has refused by a rate limit."""
        return sum(lane.pacer.refusals for lane in self._lanes.values())

    def waiting(self) -> WaitingRequests | None:
        """The requests that wait, if any waits noticeably; else None."""
        now = self.clock()
        slow = [lane for lane in self._lanes.values() if lane.is_slow(now)]
        if not slow:
            return None
        reason = max(slow, key=lambda lane: lane.waiting).reason(now)
        return WaitingRequests(sum(lane.waiting for lane in self._lanes.values()), reason)

    def _lane(self, client: Client, headers: Mapping[str, str], path: str, body: bytes) -> Lane:
        """The lane of a request. Of the key itself only a digest is kept."""
        key = account_of(headers)
        found = _MODEL.search(body)
        name = "\n".join((client.address.url, path.partition("?")[0], key)).encode("utf-8", "replace")
        name += found[1] if found else b""
        digest = hashlib.sha256(name).digest()
        lane = self._lanes.get(digest)
        if lane is None:
            lane = self._lanes[digest] = Lane(Elsewhere(self._board, digest.hex(), self.clock))
            if len(self._lanes) > MAX_LANES:
                idle = next((key for key, one in self._lanes.items() if not one.waiting and not one.pacer.on_way), None)
                if idle is not None and idle != digest:
                    del self._lanes[idle]
        return lane


_WORDS = {
    Resource.REQUESTS: "requests",
    Resource.INPUT: "input tokens",
    Resource.OUTPUT: "output tokens",
    Resource.TOKENS: "tokens",
}
