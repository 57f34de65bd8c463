"""What the driver wants of each node of the cluster, reconciled with the nodes that Ray lists. Pure.

    STARTING ──► READY ──► DRAINED
        │          │          │          the node's agent, or its lease, has ended
        └──────────┴──────────┴──► LOST ──► (its fence has passed) ──► gone, and started again if Ray still lists it

A node is started once Ray lists it. One that was lost three times is not started again. A drained node keeps what
runs there and gets no more. Until the fence of a lost node has passed, its instances count as running.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from token_budget.string_enums import StrEnum

MOST_LOSSES = 3


class NodeState(StrEnum):
    """The state of a node."""

    STARTING = "starting"
    READY = "ready"
    DRAINED = "drained"
    LOST = "lost"


class Act(StrEnum):
    """What the driver has to do for a node."""

    START = "start"
    DRAIN = "drain"
    LOSE = "lose"
    FENCED = "fenced"


@dataclass(slots=True)
class FleetNode:
    """A node of the fleet. `fenced_at_s` is the time from which nothing can run on a lost node."""

    state: NodeState = NodeState.STARTING
    fenced_at_s: float = 0.0


class Fleet:
    """The nodes by their keys."""

    def __init__(self) -> None:
        self.nodes: dict[str, FleetNode] = {}
        self._losses: dict[str, int] = {}

    def reconcile(
        self, listed: Collection[str], draining: Collection[str], leases: Mapping[str, tuple[bool, float]], now_s: float
    ) -> list[tuple[Act, str]]:
        """Compare the fleet with the nodes that Ray lists as alive; returns what has to be done, in order.

        `leases` has, by node, whether its lease has ended, and from when on it surely has.
        """
        acts: list[tuple[Act, str]] = []
        for key, node in list(self.nodes.items()):
            has_ended, surely_at_s = leases.get(key, (False, now_s))
            if node.state is NodeState.LOST:
                if now_s >= node.fenced_at_s:
                    del self.nodes[key]
                    acts.append((Act.FENCED, key))
            elif has_ended or key not in listed:
                self.lose(key, surely_at_s)
                acts.append((Act.LOSE, key))
            elif node.state is NodeState.READY and key in draining:
                node.state = NodeState.DRAINED
                acts.append((Act.DRAIN, key))
        for key in listed:
            if key not in self.nodes and key not in draining and self._losses.get(key, 0) < MOST_LOSSES:
                self.nodes[key] = FleetNode()
                acts.append((Act.START, key))
        return acts

    def started(self, key: str) -> bool:
        """The node's agent has begun; False if the node was lost meanwhile."""
        node = self.nodes.get(key)
        if node is None or node.state is not NodeState.STARTING:
            return False
        node.state = NodeState.READY
        return True

    def lose(self, key: str, fenced_at_s: float) -> bool:
        """The node's agent has ended, or cannot be reached; False if that is known already."""
        node = self.nodes.get(key)
        if node is None or node.state is NodeState.LOST:
            return False
        self._losses[key] = self._losses.get(key, 0) + 1
        node.state, node.fenced_at_s = NodeState.LOST, fenced_at_s
        return True

    def is_given_up(self, key: str) -> bool:
        """Whether the node was lost too often."""
        return self._losses.get(key, 0) >= MOST_LOSSES
