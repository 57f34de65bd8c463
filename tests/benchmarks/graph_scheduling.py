"""What it costs to schedule a graph: building it and feeding every ending, without running anything.

    python -m tests.benchmarks.graph_scheduling

Each figure stands beside graphlib.TopologicalSorter, which knows neither priorities nor failures, on the same graph in
the same run. `fan_out_us` is the cost of each instance of a group that grows at run time; graphlib cannot grow.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable
from graphlib import TopologicalSorter

from claude_orchestrator.engine.scheduler import GraphNode, Scheduler

NODES = 5_000
ROUNDS = 5


def chain() -> list[GraphNode]:
    """Each node needs the one before."""
    return [GraphNode(f"n{n}", (f"n{n - 1}",) if n else (), rank=n) for n in range(NODES)]


def wide() -> list[GraphNode]:
    """One node, then all others, then one that needs them all."""
    middle = [GraphNode(f"n{n}", ("first",), rank=n) for n in range(NODES - 2)]
    return [GraphNode("first"), *middle, GraphNode("last", tuple(node.name for node in middle))]


def at_random() -> list[GraphNode]:
    """Each node needs up to five of the earlier ones."""
    chance = random.Random(5)
    nodes = []
    for n in range(NODES):
        needs = {f"n{chance.randrange(n)}" for _ in range(chance.randrange(6))} if n else set()
        nodes.append(GraphNode(f"n{n}", tuple(sorted(needs)), weight=chance.randrange(1, 50_000), rank=n))
    return nodes


def ours(nodes: list[GraphNode]) -> int:
    """Build it, and end each node as it becomes ready."""
    scheduler, ended = Scheduler(nodes), 0
    while (name := scheduler.pop()) is not None:
        scheduler.end(name)
        ended += 1
    assert not scheduler.active
    return ended


def graphlib(nodes: list[GraphNode]) -> int:
    """The same with the standard library."""
    sorter = TopologicalSorter({node.name: node.needs for node in nodes})
    sorter.prepare()
    ended = 0
    while sorter.is_active():
        for name in sorter.get_ready():
            sorter.done(name)
            ended += 1
    return ended


def grown(nodes: list[GraphNode]) -> int:
    """A group that becomes so many instances when its upstream has ended."""
    scheduler = Scheduler([GraphNode("plan"), GraphNode("group", ("plan",)), GraphNode("last", ("group",))])
    scheduler.pop()
    scheduler.end("plan")
    assert scheduler.pop() == "group"
    scheduler.grow("group", [node._replace(needs=()) for node in nodes])
    ended = 0
    while (name := scheduler.pop()) is not None:
        scheduler.end(name)
        ended += 1
    return ended - 1


def us_each(schedule: Callable[[list[GraphNode]], int], nodes: list[GraphNode]) -> float:
    """Microseconds for each node; the median of some rounds."""
    rounds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        assert schedule(nodes) == len(nodes)
        rounds.append((time.perf_counter() - begun) / len(nodes) * 1e6)
    return round(statistics.median(rounds), 2)


def main() -> None:
    """Print one JSON line."""
    graphs = {"chain": chain(), "wide": wide(), "random": at_random()}
    figures = {
        name: {"ours_us": us_each(ours, nodes), "graphlib_us": us_each(graphlib, nodes)}
        for name, nodes in graphs.items()
    }
    fan_out = us_each(grown, [GraphNode(f"n{n}", rank=n) for n in range(NODES)])
    print(json.dumps({"benchmark": "graph_scheduling", "nodes": NODES, **figures, "fan_out_us": fan_out}))


if __name__ == "__main__":
    main()
