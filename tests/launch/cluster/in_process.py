"""A cluster in this process: real agents whose calls take no network. A node can vanish, and can come back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from claude_orchestrator.gateway.nodes.agent import MeteredAgent
from claude_orchestrator.launch.cluster.instance_memory import Room
from claude_orchestrator.launch.cluster.machines import Accepted, AgentLost, Node
from claude_orchestrator.launch.cluster.wire import Begin, Begun, BundlePart, Command, Event


class Here:
    """The nodes, by their keys: whether each is alive."""

    def __init__(self, *keys: str, capacity: int = 8) -> None:
        self.alive = dict.fromkeys(keys, True)
        self.draining: set[str] = set()
        self.capacity = capacity
        self.started: list[str] = []
        self.answers = True
        self.room: Room | None = None

    async def nodes(self) -> tuple[Node, ...]:
        if not self.answers:
            raise OSError(None, "the cluster does not answer")
        return tuple(Node(key, key, {"CPU": 2.0}, key in self.draining) for key, there in self.alive.items() if there)

    async def accept(self, node: Node) -> Accepted:
        return Accepted(self.capacity, room=self.room)

    def start_agent(self, key: str) -> HereAgent:
        self.started.append(key)
        return HereAgent(self, key)


class HereAgent:
    """An agent of this process."""

    def __init__(self, here: Here, key: str) -> None:
        self._here = here
        self._key = key
        self._agent = MeteredAgent()

    def _reach(self) -> None:
        if not self._here.alive.get(self._key):
            raise AgentLost

    async def begin(self, begin: Begin) -> Begun:
        self._reach()
        return await self._agent.begin(begin)

    async def renew(self, token_s: float) -> float:
        self._reach()
        return await self._agent.renew(token_s)

    async def tell(self, commands: Sequence[Command]) -> None:
        self._reach()
        await self._agent.tell(commands)

    async def stock(self, store: str) -> list[str]:
        self._reach()
        return await self._agent.stock(store)

    async def receive(self, part: BundlePart) -> str:
        self._reach()
        return await self._agent.receive(part)

    async def take(self) -> list[Event]:
        self._reach()
        events = await self._agent.take()
        self._reach()
        return events

    async def end(self) -> None:
        self._reach()
        await self._agent.end()

    def kill(self) -> None:
        self._closing = asyncio.ensure_future(self._agent.end())

    async def closed(self) -> None:
        """The agent was killed, and nothing of it runs any more."""
        await self._closing
