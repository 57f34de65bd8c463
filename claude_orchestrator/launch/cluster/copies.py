"""The copies of repositories on a node. Instances whose files travel work in them."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from claude_orchestrator.launch.background import run_in_thread
from claude_orchestrator.launch.cluster.kept_repositories import KeptRepositories
from claude_orchestrator.launch.cluster.wire import Brought, BundlePart, ChangesPiece, Launch
from claude_orchestrator.launch.git import GitError
from claude_orchestrator.launch.shipping import REPOSITORY, Work, check_out, collect, unpack

PIECE_BYTES = 256 * 1024
RESERVE_BYTES = tuple(mib * 1024 * 1024 for mib in (32, 24, 16))  # the first that there is room for


class _Copy:
    """A worktree of a commit. `idle` is set while no check runs in it beside its instance."""

    def __init__(self, path: Path, cwd: Path, commit: str) -> None:
        self.path, self.cwd, self.commit = path, str(cwd), commit
        self.idle = asyncio.Event()
        self.idle.set()

    def leave_behind(self, beside: Path) -> str:
        """Move it to where it outlives the run; returns how to find it, which is empty if that is not possible."""
        try:
            kept = Path(tempfile.mkdtemp(prefix="claude-orchestrator-kept-", dir=beside.parent), self.path.name)
            self.path.rename(kept)
        except OSError:
            return ""
        return f"; its files stay there, in {kept}"


class _Reserve:
    """Room on the disk for git, which has to write what an instance has changed even if the disk is full."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self) -> None:
        """Reserve it, as far as there is room."""
        if self._path.exists() or not hasattr(os, "posix_fallocate"):
            return
        for size_bytes in RESERVE_BYTES:
            try:
                with self._path.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, size_bytes)
                return
            except OSError:
                self._path.unlink(missing_ok=True)

    def give_back(self) -> bool:
        """Give it back; False if there is none."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True


class Copies:
    """The stores of a node's agent and their worktrees, in a folder that is removed with the agent.

    What a run sends first is kept for later ones.

    One command of git at a time works there: git fails where another one holds its locks.
    """

    def __init__(self, folder: Path, kept: KeptRepositories) -> None:
        self._folder = folder
        self._kept = kept
        self._stores_kept: set[str] = set()  # by this run
        self._git = asyncio.Lock()
        self._arriving = bytearray()
        self._copies: dict[int, _Copy] = {}  # by the position of the instance
        self._reserve = _Reserve(folder / "reserve")

    def _store(self, name: str) -> Path:
        return self._folder / "stores" / name

    async def stock(self, name: str) -> list[str]:
        """The commits that a store has from earlier runs, latest first. To be called before anything else of it."""
        async with self._git:
            return await run_in_thread(partial(self._kept.lend, name, self._store(name) / REPOSITORY))

    async def receive(self, part: BundlePart) -> str:
        """Take a part of a bundle; returns what went wrong, which is empty if nothing did."""
        del self._arriving[part.offset :]  # of a sender that was stopped
        self._arriving += part.data
        if not part.is_last:
            return ""
        bundle, self._arriving = bytes(self._arriving), bytearray()
        try:
            async with self._git:
                place = await run_in_thread(partial(unpack, bundle, self._store(part.store), part.commit))
                if part.store not in self._stores_kept:
                    self._stores_kept.add(part.store)
                    await run_in_thread(partial(self._kept.keep, part.store, place))
        except OSError as error:
            self._kept.drop(part.store)
            return error.strerror or str(error)
        return ""

    async def place(self, launch: Launch) -> Launch:
        """The launch as it happens here: in a new copy, in that of its instance, or in the folder that it names. Raises
        OSError."""
        parcel, position = launch.parcel, launch.spec.position
        if parcel is None:
            copy = self._copies.get(position)
            if copy is None or launch.check is None:
                return launch
            copy.idle.clear()
            return launch._replace(folder=copy.cwd)
        path = self._folder / "copies" / f"{position + 1:03}"
        cwd = path / parcel.folder
        store = self._store(parcel.store) / REPOSITORY
        try:
            async with self._git:
                await run_in_thread(partial(check_out, store, path, parcel.commit, parcel.branch))
                await run_in_thread(self._reserve.take)
            cwd.mkdir(parents=True, exist_ok=True)  # git keeps no empty folders
        except OSError as error:
            self._kept.drop(parcel.store)
            raise GitError(f"its copy cannot be made on the node: {error.strerror or error}") from None
        copy = self._copies[position] = _Copy(path, cwd, parcel.commit)
        return launch._replace(spec=launch.spec._replace(cwd=copy.cwd), folder=copy.cwd)

    async def bring_back(self, launch: Launch, put: Callable[[ChangesPiece], Awaitable[None]]) -> Brought | None:
        """Send what was done in the copy that this launch has made, if it has made one."""
        if launch.parcel is None:
            return None
        copy = self._copies[launch.spec.position]
        await copy.idle.wait()
        try:
            async with self._git:
                work = await run_in_thread(partial(self._collect, copy))
        except OSError as error:
            return Brought(fault=f"{error.strerror or error}{copy.leave_behind(self._folder)}")
        for start in range(0, len(work.bundle), PIECE_BYTES):
            await put(ChangesPiece(launch.id, work.bundle[start : start + PIECE_BYTES]))
        return Brought(work.head, work.commit)

    def _collect(self, copy: _Copy) -> Work:
        try:
            return collect(copy.path, copy.commit)
        except OSError:
            if not self._reserve.give_back():
                raise
        try:
            return collect(copy.path, copy.commit)
        finally:
            self._reserve.take()

    def leave(self, launch: Launch) -> None:
        """The launch has ended, or has failed."""
        copy = self._copies.get(launch.spec.position)
        if copy is not None and launch.check is not None:
            copy.idle.set()
