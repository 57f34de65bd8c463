"""The agent of a node: it runs the launcher of this machine for a driver elsewhere.

As an actor of Ray it has one thread for its event loop. It knows nothing of Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.launch.background import Tasks, run_in_thread
from claude_orchestrator.launch.base import Launcher, Running
from claude_orchestrator.launch.cluster.copies import Copies
from claude_orchestrator.launch.cluster.kept_repositories import KeptRepositories
from claude_orchestrator.launch.cluster.lease_program import boot_s
from claude_orchestrator.launch.cluster.leases import NodeLease
from claude_orchestrator.launch.cluster.memory_in_use import taken_by_instances
from claude_orchestrator.launch.cluster.probe import free_bytes
from claude_orchestrator.launch.cluster.watchdog import Watchdog
from claude_orchestrator.launch.cluster.wire import (
    Begin,
    Begun,
    BundlePart,
    ChangesPiece,
    CloseInput,
    Command,
    Event,
    ForMeter,
    InstanceEnded,
    Launch,
    Memory,
    NotStarted,
    Output,
    OutputEnded,
    Send,
    Started,
    Stop,
)
from claude_orchestrator.launch.guards import fence_of
from claude_orchestrator.launch.local import LocalLauncher, use_pidfd_watcher
from token_budget import places

if TYPE_CHECKING:
    from claude_orchestrator.launch.simulated import Ask

MOST_UNTAKEN_BYTES = 8 * 1024 * 1024  # more waits in the pipes of the instances
MOST_AT_ONCE_BYTES = 512 * 1024
END_S = 5.0
MEASURE_EVERY_S = 2.0
MEASURE_SHARE = 0.02  # of a core: to read all of /proc takes time on a busy node
# what a worker of Ray has in its environment, and instances should not
OF_RAY = ("RAY_", "SPT_", "OMP_NUM_THREADS", "PYTHONBREAKPOINT", "CUDA_VISIBLE_DEVICES")


class Outbox:
    """Events on their way to the driver. What instances print waits while too much of it is untaken."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def post(self, event: Event) -> None:
        """Add an event that is no output."""
        self._events.append(event)
        self._filled.set()

    async def put(self, event: Output | ChangesPiece) -> None:
        """Add output once there is room."""
        await self._room.wait()
        self._bytes += event.size_bytes
        if self._bytes >= MOST_UNTAKEN_BYTES:
            self._room.clear()
        self.post(event)

    async def take(self) -> list[Event]:
        """All events, as far as they fit in one answer; waits until there is one."""
        await self._filled.wait()
        taken: list[Event] = []
        size = 0
        while self._events and size < MOST_AT_ONCE_BYTES:
            event = self._events.popleft()
            if isinstance(event, Output | ChangesPiece):
                size += event.size_bytes
            taken.append(event)
        self._bytes -= size
        if self._bytes < MOST_UNTAKEN_BYTES:
            self._room.set()
        if not self._events:
            self._filled.clear()
        return taken


class NodeGateway(Protocol):
    """The gateway of a node: a context."""

    async def __aenter__(self) -> NodeGateway: ...

    async def __aexit__(self, *exc: object) -> None: ...

    @property
    def port(self) -> int:
        """Where instances of this node reach it."""

    @property
    def ask(self) -> Ask | None:
        """How simulated instances ask for responses, if they ask."""

    def obey(self, message: object) -> None:
        """Take a message of the driver."""


MakeMeter = Callable[[Begin, Mapping[str, str], Callable[[object], None]], NodeGateway | None]


class NodeHost:
    """What a run has on this node: launcher, guard, lease, and the instances that run."""

    def __init__(self, begin: Begin, make_meter: MakeMeter) -> None:
        self.outbox = Outbox()
        own = {name: value for name, value in os.environ.items() if not name.startswith(OF_RAY)}
        self._environ = {**own, **begin.environ}
        self._meter = make_meter(begin, self._environ, lambda message: self.outbox.post(ForMeter(message)))
        self._folder = tempfile.mkdtemp(prefix="claude-orchestrator-node-")  # for its owner alone
        self._closing = contextlib.ExitStack()
        self._closing.callback(shutil.rmtree, self._folder, ignore_errors=True)
        self._lease = NodeLease(begin.lease_s, boot_s())
        self._watchdog = Watchdog(begin.mark, self._folder)
        self._watchdog.start(self._lease.ends_at_s)
        self._closing.callback(self._watchdog.end)
        self._launcher = self._simulated() if begin.simulated else self._local(begin)
        self.copies = Copies(Path(self._folder), KeptRepositories(places.state_dir() / "shipped"))
        self._running: dict[int, Running] = {}
        self._early: dict[int, list[Command]] = {}  # for launches in progress
        self._measures = sys.platform == "linux" and not begin.simulated
        self._measuring: asyncio.Task[None] | None = None
        self._mark = begin.mark
        self._tasks = Tasks()

    def _simulated(self) -> Launcher:
        from claude_orchestrator.launch.simulated import SimulatedLauncher

        return SimulatedLauncher(None if self._meter is None else self._meter.ask)

    def _local(self, begin: Begin) -> Launcher:
        fence = fence_of(begin.mark)
        if fence is None:
            use_pidfd_watcher()
        else:
            self._closing.enter_context(fence)
        return LocalLauncher(begin.mark, self._environ, self._keep if begin.private else None, fence)

    def _keep(self, spec: LaunchSpec, option: str, text: str) -> str:
        path = Path(self._folder, f"{spec.position + 1:03}.{option}")
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        return str(path)

    async def open(self) -> Begun:
        """Open the gateway, if there is one, and begin to measure. Raises OSError."""
        if self._measures:
            self._measuring = asyncio.ensure_future(self._measure())
        if self._meter is None:
            return Begun(boot_s())
        await self._meter.__aenter__()
        return Begun(boot_s(), port=self._meter.port)

    def renew(self, token_s: float) -> float:
        """Extend the lease; returns the next token."""
        self._watchdog.extend(self._lease.renew(token_s))
        return boot_s()

    def obey(self, command: Command) -> None:
        """Do what the driver asks for. Commands for a launch in progress wait for its end."""
        if isinstance(command, Launch):
            command = command._replace(spec=_with_program(command.spec))
            self._early[command.id] = []
            self._tasks.start(self._run(command))
        elif isinstance(command, ForMeter):
            if self._meter is not None:
                self._meter.obey(command.message)
        elif command.id in self._early:
            self._early[command.id].append(command)
        elif command.id in self._running:
            _apply(self._running[command.id], command)

    async def _run(self, launch: Launch) -> None:
        try:
            await self._run_to_end(launch)
        finally:
            self.copies.leave(launch)

    async def _run_to_end(self, launch: Launch) -> None:
        try:
            launch = await self.copies.place(launch)
            if launch.check is None:
                running = await self._launcher.launch(launch.spec)
            else:
                running = await self._launcher.check(launch.spec, launch.check, launch.folder)
        except (OSError, ValueError) as error:
            del self._early[launch.id]
            self.outbox.post(NotStarted.of(launch.id, error))
            return
        self._running[launch.id] = running
        self.outbox.post(Started(launch.id))
        for command in self._early.pop(launch.id):
            _apply(running, command)
        async for batch in running.output():
            await self.outbox.put(Output.of(launch.id, batch))
        self.outbox.post(OutputEnded(launch.id))
        exit = await running.wait()
        del self._running[launch.id]
        brought = await self.copies.bring_back(launch, self.outbox.put)
        self.outbox.post(InstanceEnded(launch.id, exit, brought))

    async def _measure(self) -> None:
        """Report the memory of this node, and the room on its disk, again and again."""
        while True:
            begun_s = time.monotonic()
            taken = await run_in_thread(partial(taken_by_instances, self._mark)) if self._running else {}
            self.outbox.post(Memory(free_bytes(), taken, shutil.disk_usage(self._folder).free))
            await asyncio.sleep(max(MEASURE_EVERY_S, (time.monotonic() - begun_s) / MEASURE_SHARE))

    async def close(self) -> None:
        """End what still runs, then the guard and the lease."""
        if self._measuring is not None:
            self._measuring.cancel()
        for running in self._running.values():
            running.stop(0.0)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=END_S)
        if self._meter is not None:
            await self._meter.__aexit__()
        self._closing.close()


def _with_program(spec: LaunchSpec) -> LaunchSpec:
    """The spec with the claude of this machine, if it has none at the driver's path."""
    program = spec.argv[0]
    if os.sep not in program or Path(program).exists():
        return spec
    return spec._replace(argv=(shutil.which(Path(program).name) or program, *spec.argv[1:]))


def _apply(running: Running, command: Command) -> None:
    match command:
        case Send(_, message):
            running.send(message)
        case CloseInput():
            running.close_input()
        case Stop(_, grace_s):
            running.stop(grace_s)
        case _:
            pass


class NodeAgent:
    """The actor. Each call returns values only, so that no error has an argument in its text."""

    def __init__(self) -> None:
        self._host: NodeHost | None = None

    def meter(self, begin: Begin, environ: Mapping[str, str], say: Callable[[object], None]) -> NodeGateway | None:
        """The gateway of this node, if it has one; `environ` is that of its instances."""
        return None

    async def begin(self, begin: Begin) -> Begun:
        """Begin to work for a run."""
        try:
            self._host = NodeHost(begin, self.meter)
            return await self._host.open()
        except OSError as error:
            return Begun(0.0, error.strerror or str(error))

    async def renew(self, token_s: float) -> float:
        """Extend the lease by a token that this agent issued; returns the next one."""
        return self._work.renew(token_s)

    async def tell(self, commands: Sequence[Command]) -> None:
        """Do these things, in order. The driver waits for the answer before it sends more."""
        for command in commands:
            self._work.obey(command)

    async def stock(self, store: str) -> list[str]:
        """The commits that this node has of a repository from earlier runs."""
        return await self._work.copies.stock(store)

    async def receive(self, part: BundlePart) -> str:
        """Take a part of a bundle; returns what went wrong, which is empty if nothing did."""
        return await self._work.copies.receive(part)

    async def take(self) -> list[Event]:
        """The next events, as soon as there are some."""
        return await self._work.outbox.take()

    async def end(self) -> None:
        """The run is over."""
        if self._host is not None:
            await self._host.close()

    @property
    def _work(self) -> NodeHost:
        assert self._host is not None, "the agent has not begun"
        return self._host
