"""The worktrees of one run, for an event loop: git works in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.engine.worktrees.changes import BRANCHES, Changes, Worktree, stem_of
from claude_orchestrator.engine.worktrees.repository import WorktreePath, make, read_record, save

FOLDER, RESULTS = "worktrees", "results"
_T = TypeVar("_T")


class Worktrees:
    """Makes and keeps the worktrees of a run in its directory. With `keep_clean`, those without changes stay too."""

    def __init__(self, directory: Path, warn: Callable[[str], None], *, keep_clean: bool = False) -> None:
        self._directory = directory.absolute()
        self._warn = warn
        self._keep_clean = keep_clean
        self._stems: dict[str, str] = {}
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="git")
        self._making = asyncio.Lock()

    def _place(self, spec: LaunchSpec) -> WorktreePath:
        name = spec.worktree if isinstance(spec.worktree, str) else spec.name
        stem = self._stems.get(name)
        if stem is None:
            stem = self._stems[name] = stem_of(name, self._stems.values())
        branch = f"{BRANCHES}/{self._directory.name}/{stem}"
        return WorktreePath(spec.origin or spec.cwd, self._directory / FOLDER / stem, branch)

    async def open(self, spec: LaunchSpec) -> Worktree:
        """The worktree of an instance, made if there is none yet. Raises OSError where that is not possible."""
        async with self._making:  # git locks its files, and fails where others hold them
            return await self._in_thread(partial(make, self._place(spec), spec.base))

    async def find(self, spec: LaunchSpec) -> Worktree | None:
        """The worktree that an earlier start of the run has made for an instance, if it did."""
        return await self._in_thread(partial(read_record, self._place(spec)))

    async def close(self, spec: LaunchSpec, worktree: Worktree) -> Changes | None:
        """Keep what the instance has changed; None if that is nothing. What cannot be kept is reported."""
        place = self._place(spec)
        patch = self._directory / RESULTS / f"{stem_of(spec.name)}.patch"
        try:
            changes, doubt = await self._in_thread(partial(save, place, worktree, patch, keep_clean=self._keep_clean))
        except OSError as error:
            doubt = f"its changes cannot be saved: {error.strerror or error}"
            changes = Changes(worktree.branch, worktree.base, worktree.base, worktree.path, 0, 0, 0, None)
        if doubt:
            again = "" if changes is None or changes.kept else f", and {self._resume} tries again"
            self._warn(f"{spec.name}: {doubt}: its work stays in {worktree.path}{again}")
        return changes

    @property
    def _resume(self) -> str:
        from claude_orchestrator.engine.control.commands import output_dir_option  # seldom needed

        return f"--resume {self._directory.name}{output_dir_option(self._directory.parent)}"

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
