"""A driver's meter and the gateways of some nodes, joined by wires that take time. Messages stay in order."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

from claude_orchestrator.gateway.nodes.driver_meter import DriverMeter
from claude_orchestrator.gateway.nodes.messages import MeterBegin
from claude_orchestrator.gateway.nodes.node_meter import NodeMeter
from token_budget.budget_manager import TokenBudgetManager


@dataclass
class Wire:
    """One direction. Each message takes up to `most_s`; a cut wire carries nothing more."""

    take: Callable[[object], None]
    most_s: float
    chance: random.Random
    messages: asyncio.Queue[object] = field(default_factory=asyncio.Queue)
    is_cut: bool = False

    def say(self, message: object) -> None:
        self.messages.put_nowait(message)

    async def carry(self) -> None:
        while True:
            message = await self.messages.get()
            await asyncio.sleep(self.chance.uniform(0, self.most_s))
            if not self.is_cut:
                self.take(message)


@dataclass
class Site:
    """A node: its gateway, and the wires to it and from it."""

    number: int
    meter: NodeMeter
    down: Wire
    up: Wire

    @property
    def waiting(self) -> int:
        """How many requests wait at its gateway."""
        return sum(client.waiting for client in self.meter._clients.values())

    def cut(self) -> None:
        self.down.is_cut = self.up.is_cut = True


@dataclass
class Sites:
    """The nodes, and the driver that decides. Instance `N/name` is placed on node N."""

    driver: DriverMeter
    nodes: list[Site]


@contextlib.asynccontextmanager
async def sites(
    count: int, manager: TokenBudgetManager, begin: MeterBegin, environ: Mapping[str, str], most_s: float = 0.01
) -> AsyncIterator[Sites]:
    """Open the gateways."""
    chance, nodes = random.Random(1), list[Site]()

    def where(name: str) -> tuple[object, int, Callable[[object], None]]:
        node = nodes[int(name.partition("/")[0])]
        return node.number, node.meter.port, node.down.say

    driver = DriverMeter(manager, begin, where, environ)
    async with contextlib.AsyncExitStack() as stack:
        for number in range(count):
            up = Wire(lambda message, number=number: driver.take(number, message), most_s, chance)  # type: ignore[misc]
            meter = await stack.enter_async_context(NodeMeter(begin, environ, up.say))
            node = Site(number, meter, Wire(meter.obey, most_s, chance), up)
            for wire in (node.up, node.down):
                stack.callback(asyncio.ensure_future(wire.carry()).cancel)
            nodes.append(node)
        yield Sites(driver, nodes)
