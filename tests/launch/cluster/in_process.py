"""A cluster in this process: real agents whose calls take no network. A node can be cut off, and can come back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar

from claude_orchestrator.gateway.nodes.agent import MeteredAgent
from claude_orchestrator.launch.cluster.machines import Accepted, AgentLost, Node
from claude_orchestrator.launch.cluster.wire import Begin, Begun, Command, Event, Part

_T = TypeVar("_T")


class Here:
    """The nodes, by their keys. `cut` has those that cannot be reached; `dead` have no agent any more."""

    def __init__(self, *keys: str, capacity: int = 8) -> None:
        self.alive = dict.fromkeys(keys, True)
        self.draining: set[str] = set()
        self.cut: set[str] = set()
        self.capacity = capacity
        self.started: list[str] = []
        self.answers = True
        self.mended = asyncio.Event()

    def mend(self) -> None:
        """All nodes can be reached again."""
        self.cut.clear()
        self.mended.set()

    async def nodes(self) -> tuple[Node, ...]:
        if not self.answers:
            raise OSError(None, "the cluster does not answer")
        return tuple(Node(key, key, {"CPU": 2.0}, key in self.draining) for key, there in self.alive.items() if there)

    async def accept(self, node: Node) -> Accepted:
        return Accepted(self.capacity)

    def start_agent(self, key: str) -> HereAgent:
        self.started.append(key)
        return HereAgent(self, key)


class HereAgent:
    """An agent of this process."""

    def __init__(self, here: Here, key: str) -> None:
        self._here = here
        self._key = key
        self._agent = MeteredAgent()
        self.killed = asyncio.Event()

    async def _reach(self) -> None:
        while self._key in self._here.cut:
            await self._here.mended.wait()
        if not self._here.alive.get(self._key):
            raise AgentLost

    async def begin(self, begin: Begin) -> Begun:
        await self._reach()
        return await self._agent.begin(begin)

    async def renew(self, token_s: float) -> float:
        await self._reach()
        return await self._agent.renew(token_s)

    async def tell(self, commands: Sequence[Command]) -> None:
        await self._reach()
        await self._agent.tell(commands)

    async def receive(self, part: Part) -> str:
        await self._reach()
        return await self._agent.receive(part)

    async def take(self) -> list[Event]:
        await self._reach()
        events = await self._agent.take()
        await self._reach()
        return events

    async def end(self) -> None:
        await self._reach()
        await self._agent.end()

    def kill(self) -> None:
        self.killed.set()
        self._closing = asyncio.ensure_future(self._agent.end())

    async def closed(self) -> None:
        """The agent was killed, and nothing of it runs any more."""
        await self._closing
