"""A launcher that runs instances on the nodes of a cluster. The driver keeps budgets, journal and results."""

from __future__ import annotations

import asyncio
import errno
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.launch.background import Tasks
from claude_orchestrator.launch.base import Capabilities, Running
from claude_orchestrator.launch.cluster.checks import LEAST_DISK_BYTES
from claude_orchestrator.launch.cluster.fleet import Act, Fleet
from claude_orchestrator.launch.cluster.instance_memory import MIB, InstanceMemory
from claude_orchestrator.launch.cluster.link import NodeGone, NodeLink, Trip
from claude_orchestrator.launch.cluster.machines import Accepted, AgentLost, Machines, Node
from claude_orchestrator.launch.cluster.placement import Placement, site_of
from claude_orchestrator.launch.cluster.shipper import Shipper
from claude_orchestrator.launch.cluster.wire import Begin, Memory
from claude_orchestrator.launch.fence_kind import fence_kind
from token_budget.named_tuples import NamedTuple

LOOK_EVERY_S = 1.0
ANSWER_S = 5.0
BEGIN_S = 60.0
NO_HEAD = (
    "the head of the cluster does not answer: nothing starts until it does, and without it Ray soon ends the nodes: "
    "--resume last --cluster ADDRESS continues on another cluster what does not complete"
)
NO_NODE_S = 120.0  # how long instances wait for a node once none is left: one may be on its way


class Callbacks(NamedTuple):
    """What the launcher calls: `warn` with a message, and `changed` when there may be more or fewer places."""

    warn: Callable[[str], None]
    changed: Callable[[], None]


class RunMeter(Protocol):
    """What counts the API requests of all nodes."""

    def take(self, node: object, message: object) -> None:
        """A message of a node's gateway."""

    def lost(self, node: object) -> None:
        """Nothing of a node can run any more."""


class ClusterLauncher:
    """A context. It starts an agent on each node, and on each node that joins later.

    Entering it raises OSError if no node can be used. Once none has been left for `patience_s`, every launch fails.
    """

    def __init__(
        self,
        machines: Machines,
        begin: Begin,
        accepted: Mapping[str, Accepted],
        callbacks: Callbacks,
        patience_s: float = NO_NODE_S,
        memory: InstanceMemory | None = None,
    ) -> None:
        self.capabilities = Capabilities(
            simulated=begin.simulated,
            fence="none" if begin.simulated else fence_kind(),
            elsewhere=begin.ships,
        )
        self.placement = Placement()
        self._machines = machines
        self._begin = begin
        self._accepted = dict(accepted)  # those that were checked before the start
        self._callbacks = callbacks
        self._fleet = Fleet()
        self._links: dict[str, NodeLink] = {}
        self._lost: dict[str, list[NodeLink]] = {}
        self._nodes: dict[str, Node] = {}
        self._tasks = Tasks()
        self._agents = 0
        self._patience_s = patience_s
        self._alone_since_s: float | None = None
        self._why_alone = ""  # why nothing waits for a place any more
        self._answered_at_s = 0.0
        self._is_headless = False  # the cluster has not answered for a lease
        self._memory = memory or InstanceMemory()
        self._meters: list[RunMeter] = []
        self._shipper = Shipper() if begin.ships else None

    # -- Launcher --

    async def launch(self, spec: LaunchSpec) -> Running:
        """Start an instance on the node whose place it has taken. Raises OSError where that is not possible."""
        link = self._link_of(spec)
        return await link.launch(spec, trip=await self._send(link, spec))

    async def check(self, spec: LaunchSpec, command: str, folder: str) -> Running:
        """Start the command that checks an instance's work, on the same node."""
        link = self._link_of(spec)
        trip = None if link.carries(spec.name) else await self._send(link, spec)
        return await link.launch(spec, command, folder, trip)

    async def _send(self, link: NodeLink, spec: LaunchSpec) -> Trip | None:
        """Bring an instance's worktree to its node, if worktrees travel."""
        return None if self._shipper is None or not spec.origin else await self._shipper.send(link, spec)

    def _link_of(self, spec: LaunchSpec) -> NodeLink:
        if not self._why_alone and self.placement.place_of(spec.name) is None:
            self.placement.take(spec.name, spec.node)
        return self._link_at_place(spec.name)

    def _link_at_place(self, name: str) -> NodeLink:
        if self._why_alone:
            raise OSError(errno.ENODEV, self._why_alone)
        key = self.placement.place_of(name)
        link = self._links.get(key) if key is not None else None
        if link is None:
            raise NodeGone(self._nodes[key].name if key in self._nodes else "for it")
        return link

    def attach(self, meter: RunMeter) -> None:
        """From now on this meter gets what the gateways of the nodes say."""
        self._meters.append(meter)

    def gateway_of(self, name: str) -> tuple[object, int, Callable[[object], None]]:
        """The node of an instance, the port of its gateway there, and how to tell that something."""
        link = self._link_at_place(name)
        return link, link.port, link.tell_meter

    def _heard(self, key: str, node: object, message: object) -> None:
        if isinstance(message, Memory):
            self._notice_disk(key, message.disk)
            self._memory.saw(message.taken.values())
            room = message.free + sum(message.taken.values())
            if self.placement.fit(self._memory.expected_bytes, {key: room}):
                self._callbacks.changed()
            return
        for meter in self._meters:
            meter.take(node, message)

    def _notice_disk(self, key: str, free_bytes: int) -> None:
        """Instances that begin on a full disk would only fail."""
        if not self.placement.fill(key, free_bytes):
            return
        name, needs = self._nodes[key].name, 2 * LEAST_DISK_BYTES // MIB
        self._callbacks.warn(
            f"the node {name} has {free_bytes // MIB} MiB of disk left: it gets no more instances until it has {needs}"
            if self.placement.is_full(key)
            else f"the node {name} has room on its disk again"
        )
        self._callbacks.changed()

    # -- places --

    @property
    def free(self) -> int:
        """How many more instances may start. Once no node is left, all of them may, and fail."""
        return sys.maxsize if self._why_alone else 0 if self._is_headless else self.placement.free

    def has_room(self, spec: LaunchSpec) -> bool:
        """Whether there is a place for this instance."""
        return bool(self._why_alone) or (not self._is_headless and self.placement.has_room(spec.node))

    def take(self, spec: LaunchSpec) -> None:
        """The instance is about to be launched: it takes a place, unless nothing waits for one any more."""
        if not self._why_alone:
            self.placement.take(spec.name, spec.node)

    def give_back(self, name: str) -> None:
        """The instance has ended."""
        self.placement.give_back(name)

    # -- the fleet --

    async def __aenter__(self) -> ClusterLauncher:
        try:
            await self._look(first=True)
            async with asyncio.timeout(BEGIN_S):
                while not self.placement.capacity:
                    if not self._tasks:
                        raise ConnectionError(None, "no node can be used any more")
                    await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
                if self._tasks:
                    await asyncio.wait(self._tasks)
        except TimeoutError:
            await self._close()
            raise ConnectionError(None, f"no node answers within {BEGIN_S:g} s") from None
        except BaseException:
            await self._close()
            raise
        self._tasks.start(self._keep_looking())
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._close()

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(link.end() for link in self._links.values()))

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self._look()
            except Exception as error:  # without this loop, nobody would notice a lost node
                self._callbacks.warn(f"the nodes cannot be watched ({type(error).__name__}: {error}): trying again")

    async def _look(self, *, first: bool = False) -> None:
        """Compare what is wanted with the nodes that are alive, and act."""
        try:
            async with asyncio.timeout(ANSWER_S):
                found = await self._machines.nodes()
            self._nodes |= {node.key: node for node in found}
            listed = {node.key for node in found}
        except OSError:  # a TimeoutError is one
            if first:
                raise ConnectionError(None, "the cluster does not answer any more") from None
            found, listed = (), set(self._fleet.nodes)  # the leases decide
        else:
            self._answered_at_s = time.monotonic()
        now_s = time.monotonic()
        self._notice_head(now_s)
        leases = {key: (link.lease.has_ended(now_s), link.lease.surely_ended_at_s) for key, link in self._links.items()}
        draining = {node.key for node in found if node.is_draining}
        for act, key in self._fleet.reconcile(listed, draining, leases, now_s):
            self._act(act, key)

        self._notice_end(now_s)

    def _notice_head(self, now_s: float) -> None:
        """Ray ends the nodes of a cluster whose head is gone, so nothing starts while it does not answer."""
        is_headless = now_s - self._answered_at_s >= self._begin.lease_s
        if is_headless is self._is_headless:
            return
        self._is_headless = is_headless
        self._callbacks.warn(NO_HEAD if is_headless else "the head of the cluster answers again")
        self._callbacks.changed()

    def _notice_end(self, now_s: float) -> None:
        """Once no node has been left for some time, nothing waits for one any more. Without a head, none can join.

        Nor does anything wait for the head, once nothing runs: it may be off, and its nodes may never notice.
        """
        is_over = self._is_headless and not self.placement.sites
        if (self.placement.capacity and not self._is_headless) or self.placement.is_in_use:
            self._alone_since_s, self._why_alone = None, ""
        elif self._alone_since_s is None:
            self._alone_since_s = now_s
        elif not self._why_alone and (is_over or now_s - self._alone_since_s >= self._patience_s):
            self._why_alone = f"no node of the cluster {self._lacks()}"
            self._callbacks.warn(f"{self._why_alone}: instances that have not started fail")
            self._callbacks.changed()

    def _lacks(self) -> str:
        if self._is_headless:
            return f"{'can be used' if self.placement.sites else 'is left'}, and its head does not answer"
        if self.placement.has_nodes:
            return f"has memory for an instance ({self._memory.text})"
        if self.placement.has_full_disks:
            return "has room on its disk"
        return "is left"

    def _act(self, act: Act, key: str) -> None:
        name = self._nodes[key].name
        match act:
            case Act.START:
                self._tasks.start(self._begin_on(key))
            case Act.DRAIN:
                self.placement.close(key)
                self._callbacks.warn(f"the node {name} is drained: it gets no more instances")
            case Act.LOSE:
                self._lose(key)
            case Act.FENCED:
                self.placement.remove(key)
                for link in self._lost.pop(key, []):
                    for meter in self._meters:
                        meter.lost(link)
                    link.fenced()
        self._callbacks.changed()

    async def _begin_on(self, key: str) -> None:
        """Check a node, unless that was done before the start, and start an agent there."""
        node = self._nodes[key]
        accepted = self._accepted.pop(key, None) or await self._machines.accept(node)
        if accepted.faults:
            self._callbacks.warn(f"the node {node.name} is not used: {'; '.join(accepted.faults)}")
            return
        self._agents += 1
        # each agent has a mark of its own: two nodes can be on one machine
        begin = self._begin._replace(mark=f"{self._begin.mark}@{self._agents}.{key[:8]}")
        link = NodeLink(
            node.name,
            self._machines.start_agent(key),
            begin,
            lambda: self._agent_ended(key),
            partial(self._heard, key),
        )
        try:
            async with asyncio.timeout(BEGIN_S):
                fault = await link.begin()
        except (AgentLost, TimeoutError):
            fault = "its agent has ended"
        if fault or not self._fleet.started(key):
            self._callbacks.warn(f"the node {node.name} is not used: {fault or 'it was lost'}")
            self._fleet.lose(key, time.monotonic())
            await link.end()
            return
        self._links[key] = link
        self.placement.add(key, site_of(node, accepted, self._memory.expected_bytes))
        self._callbacks.changed()

    def _agent_ended(self, key: str) -> None:
        link = self._links[key]
        if self._fleet.lose(key, link.lease.surely_ended_at_s):
            self._lose(key)
            self._callbacks.changed()

    def _lose(self, key: str) -> None:
        """The agent has ended or does not answer. Its instances count as running until its lease must have ended."""
        self.placement.close(key)
        link = self._links.pop(key, None)
        if link is None:
            return
        lacking = "; their changes there are lost" if link.carries() else ""
        link.lose()
        self._lost.setdefault(key, []).append(link)
        given_up = ", for the third time: it is not used any more" if self._fleet.is_given_up(key) else ""
        self._callbacks.warn(
            f"the node {link.name} is lost{given_up}: its instances end with its lease, at the latest{lacking}"
        )
