"""The driver's connection with the agent of one node: commands in order, events in order, and the lease."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.launch.background import Tasks
from claude_orchestrator.launch.base import Exit
from claude_orchestrator.launch.cluster.leases import DriverLease
from claude_orchestrator.launch.cluster.machines import Agent, AgentLost
from claude_orchestrator.launch.cluster.remote import KILLED, RemoteRunning
from claude_orchestrator.launch.cluster.wire import (
    Begin,
    Brought,
    BundlePart,
    ChangesPiece,
    Command,
    Event,
    ForMeter,
    InstanceEnded,
    Launch,
    Memory,
    NotStarted,
    Output,
    OutputEnded,
    ShippedWork,
    Started,
    for_wire,
)
from token_budget.named_tuples import NamedTuple

_T = TypeVar("_T")
MOST_UNREAD_BYTES = 16 * 1024 * 1024
MOST_RENEWALS_OPEN = 3
END_S = 8.0


class NodeGone(OSError):
    """The node was lost while an instance was launched there."""

    def __init__(self, name: str) -> None:
        super().__init__(11, f"the node {name} was lost")  # EAGAIN: another try can succeed


class Trip(NamedTuple):
    """The work of an instance on a node: what it begins with, and what puts it into the worktree when it comes back.

    `take_in` gets the bundle, and returns why that cannot be used; empty if it can.
    """

    name: str
    parcel: ShippedWork
    take_in: Callable[[Brought, bytes], Awaitable[str]]


class NodeLink:
    """One agent on one node. `on_lost` is called once, when the agent has ended or does not answer in time.

    `on_message` takes what the gateway of the node says, and what its memory is. `port` is that gateway's.
    """

    def __init__(
        self,
        name: str,
        agent: Agent,
        begin: Begin,
        on_lost: Callable[[], None],
        on_message: Callable[[object, object], None] = lambda node, message: None,
    ) -> None:
        self.name = name
        self.port = 0
        self._on_message = on_message
        self._agent = agent
        self._begin = begin
        self._on_lost = on_lost
        self.lease = DriverLease(begin.lease_s, 0.0, time.monotonic())
        self._last_id = 0
        self._running: dict[int, RemoteRunning] = {}
        self._launching: dict[int, asyncio.Future[None]] = {}
        self._trips: dict[int, Trip] = {}
        self._pieces: dict[int, bytearray] = {}
        self._arriving = Tasks()
        self._gone = asyncio.Event()
        self._commands: list[Command] = []
        self._told = asyncio.Event()
        self._unread_bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._tasks = Tasks()
        self._open_renewals = 0
        self.is_lost = False

    async def begin(self) -> str:
        """Begin; returns what went wrong, which is empty if nothing did. Raises AgentLost."""
        token_s, fault, self.port = await self._agent.begin(self._begin)
        if not fault:
            self.lease = DriverLease(self._begin.lease_s, token_s, time.monotonic())
            for work in (self._keep_lease, self._keep_taking, self._keep_telling):
                self._start(work)
        return fault

    # -- instances --

    async def launch(
        self, spec: LaunchSpec, check: str | None = None, folder: str = "", trip: Trip | None = None
    ) -> RemoteRunning:
        """Start an instance, or the command that checks one. Raises OSError where that is not possible."""
        if self.is_lost:
            raise NodeGone(self.name)
        self._last_id += 1
        id = self._last_id
        started = self._launching[id] = asyncio.get_running_loop().create_future()
        running = self._running[id] = RemoteRunning(id, self._tell, self._has_read)
        if trip is not None:
            self._trips[id] = trip
        self._tell(Launch(id, for_wire(spec), check, folder, trip and trip.parcel))
        await asyncio.shield(started)
        return running

    async def stock(self, store: str) -> list[str]:
        """The commits that the node has of a repository from earlier runs. Raises NodeGone."""
        return await self._answer(self._agent.stock(store))

    async def receive(self, part: BundlePart) -> str:
        """Send a part of a bundle; returns what went wrong there. Raises NodeGone."""
        return await self._answer(self._agent.receive(part))

    async def _answer(self, asked: Awaitable[_T]) -> _T:
        call, gone = asyncio.ensure_future(asked), asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait({call, gone}, return_when=asyncio.FIRST_COMPLETED)
            if self.is_lost:
                raise NodeGone(self.name)
            return await call
        except AgentLost:
            raise NodeGone(self.name) from None
        finally:
            call.cancel()
            gone.cancel()

    def carries(self, name: str | None = None) -> bool:
        """Whether the node has work of an instance that has not come back; without a name, of any."""
        return any(name in (None, trip.name) for trip in self._trips.values())

    def _tell(self, command: Command) -> None:
        if not self.is_lost:
            self._commands.append(command)
            self._told.set()

    def _has_read(self, size: int) -> None:
        self._unread_bytes -= size
        if self._unread_bytes < MOST_UNREAD_BYTES:
            self._room.set()

    def tell_meter(self, message: object) -> None:
        """Send a message to the gateway of the node."""
        self._tell(ForMeter(message))

    # -- the three loops --

    def _start(self, work: Callable[[], Awaitable[None]]) -> None:
        self._tasks.start(self._guarded(work))

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()  # made here: a task that is cancelled before its first step makes nothing
        except AgentLost:
            self._end_of_agent()
        except Exception:  # whatever it is, nobody would notice the end of this node any more
            self._end_of_agent()
            raise

    def _end_of_agent(self) -> None:
        if not self.is_lost:
            self._on_lost()

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(self.lease.every_s)
            if self._open_renewals < MOST_RENEWALS_OPEN:
                self._open_renewals += 1
                self._start(self._renew)

    async def _renew(self) -> None:
        try:
            token_s = await self._agent.renew(self.lease.renewal())
        finally:
            self._open_renewals -= 1
        self.lease.answered(token_s, time.monotonic())

    async def _keep_telling(self) -> None:
        while True:
            await self._told.wait()
            self._told.clear()
            commands, self._commands = self._commands, []
            await self._agent.tell(commands)

    async def _keep_taking(self) -> None:
        while True:
            for event in await self._agent.take():
                self._react(event)
            await self._room.wait()

    def _react(self, event: Event) -> None:
        match event:
            case Started(id):
                self._launching.pop(id).set_result(None)
            case NotStarted(id):
                del self._running[id]
                self._trips.pop(id, None)
                self._launching.pop(id).set_exception(event.error)
            case Output(id):
                self._unread_bytes += len(event.raw)
                if self._unread_bytes >= MOST_UNREAD_BYTES:
                    self._room.clear()
                self._running[id].feed(event.batch)
            case OutputEnded(id):
                self._running[id].end_output()
            case ForMeter(message):
                self._on_message(self, message)
            case Memory():
                self._on_message(self, event)
            case ChangesPiece(id, data):
                self._pieces.setdefault(id, bytearray()).extend(data)
            case InstanceEnded(id, exit, brought):
                running, trip = self._running.pop(id), self._trips.pop(id, None)
                if trip is None or brought is None:
                    running.ended(exit)
                    return
                self._arriving.start(self._arrive(running, exit, trip.take_in(brought, self._bundle(id))))

    def _bundle(self, id: int) -> bytes:
        return bytes(self._pieces.pop(id, b""))

    async def _arrive(self, running: RemoteRunning, exit: Exit, taking_in: Awaitable[str]) -> None:
        """Let an instance end once its work is here, even if its node is lost meanwhile."""
        fault = "its work cannot be taken in"
        try:
            fault = await taking_in
        finally:
            running.ended(exit._replace(fault=fault))

    # -- the end --

    def lose(self) -> None:
        """The node is lost: send no more commands, and end the output of its instances."""
        self.is_lost = True
        self._gone.set()
        self._trips.clear()
        self._pieces.clear()
        self._cancel()
        self._agent.kill()
        for running in self._running.values():
            running.end_output()

    def fenced(self) -> None:
        """Nothing can run there any more: its instances have ended. Their last use is unknown.

        What was about to start may have started there, so it fails no earlier than now.
        """
        for id, started in self._launching.items():
            self._running.pop(id, None)
            started.set_exception(NodeGone(self.name))
        self._launching.clear()
        for running in self._running.values():
            running.ended(Exit(KILLED, f"the node {self.name} was lost", dropped_lines=1))
        self._running.clear()

    async def end(self) -> None:
        """The run is over."""
        self._cancel()
        if not self.is_lost:
            try:
                async with asyncio.timeout(END_S):
                    await self._agent.end()
            except (AgentLost, TimeoutError):
                pass  # the lease ends what is left
            self._agent.kill()

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
