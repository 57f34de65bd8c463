"""Which node an instance runs on. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from claude_orchestrator.launch.cluster.checks import LEAST_DISK_BYTES
from claude_orchestrator.launch.cluster.instance_memory import Room
from claude_orchestrator.launch.cluster.machines import Accepted, Node

INSTANCES_PER_CORE = 4  # claude waits for the API most of the time
USABLE = 0.8  # of the memory that is free


def capacity_of(room: Room, instance_bytes: int) -> int:
    """How many instances a node takes, if one takes so much memory."""
    return min(room.cores * INSTANCES_PER_CORE, int(room.memory_bytes * USABLE) // instance_bytes)


@dataclass(slots=True, eq=False)
class NodeSlots:
    """A node as a place for instances. `resources` are those that its Ray declares; `taken` are the instances on it.

    Without a `room`, its capacity is fixed.
    """

    name: str
    capacity: int
    resources: Mapping[str, float]
    room: Room | None = None
    is_open: bool = True
    is_full: bool = False  # its disk
    taken: set[str] = field(default_factory=set)

    @property
    def free(self) -> int:
        """How many more instances it takes."""
        return max(0, self.capacity - len(self.taken)) if self.is_usable else 0

    @property
    def is_usable(self) -> bool:
        """Whether it takes instances at all."""
        return self.is_open and not self.is_full

    def fit(self, instance_bytes: int) -> None:
        """An instance takes so much memory: the node takes as many as there is room for."""
        if self.room is not None:
            self.capacity = capacity_of(self.room, instance_bytes)

    def suits(self, wants: Iterable[tuple[str, float]]) -> bool:
        """Whether it declares at least so much of each resource."""
        return all(self.resources.get(name, 0.0) >= amount for name, amount in wants)


def site_of(node: Node, accepted: Accepted, instance_bytes: int) -> NodeSlots:
    """The place that a node is, if an instance takes so much memory."""
    site = NodeSlots(node.name, accepted.capacity, node.resources, accepted.room)
    site.fit(instance_bytes)
    return site


class Placement:
    """Spreads instances over nodes: each goes to the suitable node with the smallest part of its places taken."""

    def __init__(self) -> None:
        self._sites: dict[str, NodeSlots] = {}
        self._place_of: dict[str, str] = {}

    @property
    def sites(self) -> tuple[NodeSlots, ...]:
        """The nodes, in the order in which they came."""
        return tuple(self._sites.values())

    @property
    def capacity(self) -> int:
        """How many instances all usable nodes take."""
        return sum(site.capacity for site in self._sites.values() if site.is_usable)

    @property
    def has_nodes(self) -> bool:
        """Whether a node is usable."""
        return any(site.is_usable for site in self._sites.values())

    @property
    def has_full_disks(self) -> bool:
        """Whether a node would be usable if there were room on its disk."""
        return any(site.is_open and site.is_full for site in self._sites.values())

    @property
    def is_in_use(self) -> bool:
        """Whether an instance has a place on an open node."""
        return any(site.is_open and site.taken for site in self._sites.values())

    @property
    def free(self) -> int:
        """How many more instances all usable nodes take."""
        return sum(site.free for site in self._sites.values())

    def add(self, key: str, site: NodeSlots) -> None:
        """A node has come, or has come back."""
        self._sites[key] = site

    def fit(self, instance_bytes: int, room_of: Mapping[str, int] = MappingProxyType({})) -> bool:
        """An instance takes so much memory, and instances may have so much together on these nodes.

        Returns whether any node takes more or fewer than before.
        """
        before = [site.capacity for site in self._sites.values()]
        for key, site in self._sites.items():
            if site.room is not None and key in room_of:
                site.room = site.room._replace(memory_bytes=room_of[key])
            site.fit(instance_bytes)
        return before != [site.capacity for site in self._sites.values()]

    def fill(self, key: str, free_bytes: int) -> bool:
        """So much is left of the disk of a node. Returns whether that changes whether it takes instances.

        One that was full has to have twice as much, so that it does not change all the time.
        """
        site = self._sites.get(key)
        if site is None:
            return False
        before, site.is_full = site.is_full, free_bytes < LEAST_DISK_BYTES * (1 + site.is_full)
        return site.is_full is not before

    def is_full(self, key: str) -> bool:
        """Whether its disk is."""
        return self._sites[key].is_full

    def close(self, key: str) -> None:
        """The node gets no further instances."""
        if key in self._sites:
            self._sites[key].is_open = False

    def remove(self, key: str) -> None:
        """The node is gone; what was placed there has no place any more."""
        site = self._sites.pop(key, None)
        for name in site.taken if site is not None else ():
            self._place_of.pop(name, None)

    def has_room(self, wants: Iterable[tuple[str, float]]) -> bool:
        """Whether a suitable node has a free place."""
        wants = tuple(wants)
        return any(site.free and site.suits(wants) for site in self._sites.values())

    def suits_any(self, wants: Iterable[tuple[str, float]]) -> bool:
        """Whether there is a suitable node, with a free place or without one."""
        wants = tuple(wants)
        return any(site.is_open and site.suits(wants) for site in self._sites.values())

    def take(self, name: str, wants: Iterable[tuple[str, float]]) -> str | None:
        """Take a place for an instance; returns the key of its node, or None if no suitable node has a free place."""
        wants = tuple(wants)
        fits = [(key, site) for key, site in self._sites.items() if site.free and site.suits(wants)]
        if not fits:
            return None
        key, site = min(fits, key=lambda pair: len(pair[1].taken) / pair[1].capacity)
        site.taken.add(name)
        self._place_of[name] = key
        return key

    def place_of(self, name: str) -> str | None:
        """The key of the node of an instance that has taken a place."""
        return self._place_of.get(name)

    def give_back(self, name: str) -> None:
        """The instance has ended."""
        key = self._place_of.pop(name, None)
        if key is not None and key in self._sites:
            self._sites[key].taken.discard(name)
