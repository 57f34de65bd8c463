"""What the driver needs of a cluster: its nodes, and an agent on each. Ray provides it, and so can one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from claude_orchestrator.launch.cluster.instance_memory import Room
from claude_orchestrator.launch.cluster.wire import Begin, Begun, BundlePart, Command, Event
from token_budget.named_tuples import NamedTuple


class AgentLost(Exception):
    """The agent has ended, or its node cannot be reached."""


class Agent(Protocol):
    """An agent on a node, as the driver sees it. Each call raises AgentLost if no answer comes."""

    async def begin(self, begin: Begin) -> Begun:
        """Begin to work for a run."""

    async def renew(self, token_s: float) -> float:
        """Extend the lease by a token; returns the next one."""

    async def tell(self, commands: Sequence[Command]) -> None:
        """Pass these commands on, in order."""

    async def stock(self, store: str) -> list[str]:
        """The commits that the node has of a repository from earlier runs."""

    async def receive(self, part: BundlePart) -> str:
        """Take a part of a bundle; returns what went wrong, which is empty if nothing did."""

    async def take(self) -> list[Event]:
        """The next events."""

    async def end(self) -> None:
        """The run is over."""

    def kill(self) -> None:
        """End the agent's process, if it can be reached."""


class Node(NamedTuple):
    """A node that is alive and has processors. `key` is unique, and `name` is for people.

    `is_elsewhere`: it has another address than the driver.
    """

    key: str
    name: str
    resources: Mapping[str, float]
    is_draining: bool = False
    is_elsewhere: bool = False


class Accepted(NamedTuple):
    """What the checks of a node have found: how many instances it takes, and the reasons against using it.

    With a `room`, it takes as many as fit in it. `free_bytes` is its free memory.
    """

    capacity: int
    faults: tuple[str, ...] = ()
    room: Room | None = None
    free_bytes: int = 0


class Machines(Protocol):
    """A cluster."""

    async def nodes(self) -> tuple[Node, ...]:
        """The nodes that are alive. Raises OSError if the cluster does not answer."""

    async def accept(self, node: Node) -> Accepted:
        """Check a node before it is used."""

    def start_agent(self, key: str) -> Agent:
        """Start an agent on a node."""
