"""The driver's side of repositories that travel: it sends each node what that lacks, and takes the work of instances
back.

The worktree of an instance here holds its work: each attempt begins with it, and its results return to it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import PurePath
from typing import TypeVar
from weakref import WeakKeyDictionary

from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.launch.cluster.link import NodeLink, Trip
from claude_orchestrator.launch.cluster.wire import Brought, BundlePart, ShippedWork
from claude_orchestrator.launch.git import GitError, line
from claude_orchestrator.launch.shipping import Work, pack, snapshot, take_in, those_of

PART_BYTES = 4 * 1024 * 1024
MOST_KNOWN = 50  # commits that a bundle for a node leaves out
_T = TypeVar("_T")


class _Sent:
    """What a node has: commits by the store that they are in. The lock is held while something travels."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.commits: dict[str, list[str]] = {}


class Shipper:
    """One command of git at a time works here, in a thread: git fails where another one holds its locks."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="shipping")
        self._nodes: WeakKeyDictionary[NodeLink, _Sent] = WeakKeyDictionary()

    async def send(self, link: NodeLink, spec: LaunchSpec) -> Trip:
        """Bring the worktree of an instance to a node. Raises OSError where that is not possible."""
        sent = self._nodes.setdefault(link, _Sent())
        async with sent.lock:
            parcel, home = await self._in_thread(partial(_prepare, spec.cwd))
            known = sent.commits.get(parcel.store)
            if known is None:
                stock = (await link.stock(parcel.store))[:MOST_KNOWN]
                known = sent.commits[parcel.store] = await self._in_thread(partial(those_of, home, stock))
            bundle = await self._in_thread(partial(pack, home, parcel.commit, known))  # none: the node has the commit
            for part in _parts(parcel, bundle):
                fault = await link.receive(part)
                if fault:
                    raise GitError(f"the node {link.name} cannot take the repository: {fault}")
            if bundle:
                known.append(parcel.commit)
                del known[1:-MOST_KNOWN]  # the first has most of the history
        return Trip(spec.name, parcel, partial(self._take_in, link.name, home))

    async def _take_in(self, node: str, home: str, brought: Brought, bundle: bytes) -> str:
        """Put the work of an instance into its worktree; returns why that is not possible, or an empty text."""
        fault = brought.fault
        if not fault:
            try:
                await self._in_thread(partial(take_in, home, Work(brought.head, brought.commit, bundle)))
            except OSError as error:
                fault = error.strerror or str(error)
        return f"what it changed cannot be brought back from the node {node}: {fault}" if fault else ""

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _prepare(cwd: str) -> tuple[ShippedWork, str]:
    """What has to travel, and the worktree that it comes from."""
    home = line(cwd, "rev-parse", "--show-toplevel")
    common = line(cwd, "rev-parse", "--path-format=absolute", "--git-common-dir")
    store = hashlib.sha256(common.encode(errors="surrogateescape")).hexdigest()[:16]
    try:
        branch = line(home, "symbolic-ref", "--quiet", "--short", "HEAD")
    except GitError:  # the instance has detached it
        branch = f"orchestrator/{PurePath(home).name}"
    commit = snapshot(home)
    folder = line(cwd, "rev-parse", "--show-prefix")
    return ShippedWork(store, commit, branch, folder), home


def _parts(parcel: ShippedWork, bundle: bytes) -> Iterator[BundlePart]:
    for start in range(0, len(bundle), PART_BYTES):
        end = start + PART_BYTES
        yield BundlePart(parcel.store, parcel.commit, start, bundle[start:end], end >= len(bundle))
