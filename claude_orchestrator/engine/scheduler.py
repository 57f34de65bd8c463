"""Which instance may start, given what has ended: a value that keeps counts. Pure.

The work at an ending grows with the edges that it resolves. Nothing is searched. Nodes may be added while others run.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable

from token_budget.named_tuples import NamedTuple

SUCCESS, ALWAYS, FAILURE = "success", "always", "failure"
NOTHING_FAILED = "nothing that it depends on failed"


class GraphNode(NamedTuple):
    """An instance; or a group, which is a `relay`: it ends with the last of its members, and never starts.

    `needs` names what has to end first. `weight` is its forecast in tokens, `rank` its place among the others.
    """

    name: str
    needs: tuple[str, ...] = ()
    run_if: str = SUCCESS
    weight: int = 1
    rank: int = 0
    relay: bool = False


class Skip(NamedTuple):
    """An instance that will not run. `unneeded`: it was there for a failure, and nothing failed."""

    name: str
    reason: str
    unneeded: bool


class _Entry:
    """A node and its counts.

    `chain` is the weight of the longest way from here to an end. `failed` names the first failure among its needs, and
    `said` adds the path from there. `unneeded` names a need that was skipped without a failure.
    """

    __slots__ = ("chain", "dependants", "ended", "failed", "missing", "node", "queued", "said", "skipped", "unneeded")

    def __init__(self, node: GraphNode) -> None:
        self.node = node
        self.dependants: list[_Entry] = []
        self.missing = 0
        self.ended = self.queued = self.skipped = False
        self.failed = self.said = self.unneeded = ""
        self.chain = node.weight

    def take(self, need: _Entry) -> None:
        """Something that the node needs has ended: keep the first failure."""
        if need.failed and not self.failed:
            self.failed, self.said = need.failed, need.said
        self.unneeded = self.unneeded or need.unneeded

    def skip(self) -> Skip | None:
        """Whether the node is skipped, now that everything it needs has ended."""
        name, run_if = self.node.name, self.node.run_if
        if (
            run_if == ALWAYS
            or (run_if == FAILURE and self.failed)
            or not (self.failed or self.unneeded or run_if == FAILURE)
        ):
            return None
        if self.failed:
            skip = Skip(name, self.said, unneeded=False)
            self.said = f"{name} was skipped: {self.failed}"
        else:
            skip = Skip(name, NOTHING_FAILED if run_if == FAILURE else self.unneeded, unneeded=True)
            self.unneeded = f"{name} was not needed"
        return skip


class Scheduler:
    """Knows what is ready, what waits and what has ended. The nodes have no cycle and no unknown needs.

    Ready instances come out with the longest chain first, and by rank among equals.
    """

    def __init__(self, nodes: Iterable[GraphNode]) -> None:
        nodes = tuple(nodes)
        self._entries = {node.name: _Entry(node) for node in nodes}
        self._ready: list[tuple[int, int, str]] = []
        self._skips: list[Skip] = []
        self._left = sum(not node.relay for node in nodes)
        self._by_chain = any(node.needs and not node.relay for node in nodes)
        for node in nodes:
            entry = self._entries[node.name]
            entry.missing = len(node.needs)
            for need in node.needs:
                self._entries[need].dependants.append(entry)
        if self._by_chain:
            self._weigh()
        for node in nodes:
            entry = self._entries[node.name]
            if not (node.needs or entry.ended):
                self._settle(entry)

    @property
    def active(self) -> bool:
        """Whether an instance has not ended yet."""
        return self._left > 0

    def pop(self) -> str | None:
        """Take out the first instance that is ready, or None."""
        while self._ready:
            name = heapq.heappop(self._ready)[2]
            entry = self._entries[name]
            entry.queued = False
            if not entry.ended:
                return name
        return None

    def push(self, name: str) -> None:
        """Put back an instance that was taken out and has not started, or that has to start again."""
        entry = self._entries[name]
        if not (entry.ended or entry.queued):
            entry.queued = True
            heapq.heappush(self._ready, (-entry.chain if self._by_chain else 0, entry.node.rank, name))

    def end(self, name: str, failure: str = "") -> tuple[Skip, ...]:
        """An instance has ended; `failure` says how, if it did not complete. Returns what is skipped because of it."""
        entry = self._entries[name]
        if not entry.ended:
            entry.failed = entry.said = f"{name} {failure}" if failure else ""
            entry.unneeded = ""
            self._end(entry)
        return self._take_skips()

    def reopen(self, name: str) -> tuple[str, ...]:
        """An instance that ended without a start may start after all, and is ready.

        Returns its name, and those of the instances that were skipped because of it, which wait again. What has
        started meanwhile is left alone.
        """
        first, names = self._entries[name], []
        again = deque([first])
        while again:
            entry = again.popleft()
            if not entry.ended:
                continue
            entry.ended = entry.skipped = False
            if not entry.node.relay:
                self._left += 1
                names.append(entry.node.name)
            for dependant in entry.dependants:
                if dependant.ended and not (dependant.skipped or dependant.node.relay):
                    continue
                if dependant.missing > 0 or dependant.ended:
                    dependant.missing += 1
                    again.append(dependant)
            self._take_again(entry)
        self.push(name)
        return tuple(names)

    def _take_again(self, entry: _Entry) -> None:
        entry.failed = entry.said = entry.unneeded = ""
        for need in entry.node.needs:
            if self._entries[need].ended:
                entry.take(self._entries[need])

    def grow(self, group: str, members: Iterable[GraphNode]) -> tuple[Skip, ...]:
        """A group that was ready consists of these members, which need nothing more, and ends with the last of them."""
        members, entry = tuple(members), self._entries[group]
        after = entry.chain - entry.node.weight
        entry.node = entry.node._replace(relay=True, needs=tuple(member.name for member in members))
        entry.missing = len(members)
        self._left += len(members) - 1
        for member in members:
            new = self._entries[member.name] = _Entry(member)
            new.chain += after
            new.dependants.append(entry)
            self._settle(new)
        if not members:
            self._end(entry)
        return self._take_skips()

    def _weigh(self) -> None:
        """Add up the longest chains, from those without dependants on."""
        unweighed = {name: len(entry.dependants) for name, entry in self._entries.items()}
        ends = [name for name, count in unweighed.items() if not count]
        while ends:
            entry = self._entries[ends.pop()]
            for need in entry.node.needs:
                before = self._entries[need]
                before.chain = max(before.chain, before.node.weight + entry.chain)
                unweighed[need] -= 1
                if not unweighed[need]:
                    ends.append(need)

    def _settle(self, entry: _Entry) -> None:
        """All that a node needs has ended: it is ready, or it ends."""
        if self._starts(entry):
            self.push(entry.node.name)
        else:
            self._end(entry)

    def _starts(self, entry: _Entry) -> bool:
        if entry.node.relay:
            return False
        skip = entry.skip()
        if skip is not None:
            self._skips.append(skip)
            entry.skipped = True
        return skip is None

    def _end(self, first: _Entry) -> None:
        """A node ends, and with it each relay and each skipped instance that waited for nothing else."""
        ended = deque([first])
        while ended:
            entry = ended.popleft()
            entry.ended = True
            self._left -= not entry.node.relay
            for dependant in entry.dependants:
                dependant.missing -= 1
                if dependant.ended:
                    continue
                dependant.take(entry)
                if not dependant.missing:
                    if self._starts(dependant):
                        self.push(dependant.node.name)
                    else:
                        ended.append(dependant)

    def _take_skips(self) -> tuple[Skip, ...]:
        skips, self._skips = tuple(self._skips), []
        return skips
