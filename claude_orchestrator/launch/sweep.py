"""Ends everything that an instance has left, with one scan of the processes for all instances at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
from functools import partial

from claude_orchestrator.launch import processes
from claude_orchestrator.launch.background import run_in_thread

SCAN_EVERY_S = 0.25
SCAN_AGAIN_S = 0.02  # after a scan that found some
MAX_SCANS = 40
SPARE_FILES = 2  # /proc and one file in it


class Sweep:
    """Scans for the processes that carry a mark of a run, at most four times a second."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._due = 0.0
        self._scanning: asyncio.Task[dict[str, list[int]]] | None = None
        self._spare: list[int] = []
        self._take_spare_files()

    async def end_marked(self, mark: str) -> None:
        """End every process that carries the mark.

        It freezes them until a scan finds no new ones, and kills them then. If it killed a process that was just
        starting an unmarked child, nothing could find that child any more.
        """
        frozen: set[int] = set()
        for _ in range(MAX_SCANS):
            try:
                pids = set((await self._scan()).get(mark, ()))
            except OSError:  # too many open files: instances that are ending give theirs back
                await asyncio.sleep(SCAN_EVERY_S)
                continue
            if not pids:
                return
            if pids <= frozen:
                processes.kill(pids)
            else:
                processes.freeze(pids - frozen)
                frozen |= pids

    def _scan(self) -> asyncio.Task[dict[str, list[int]]]:
        """The scan in progress, or a new one."""
        if self._scanning is None or self._scanning.done():
            self._scanning = asyncio.ensure_future(self._scan_when_due())
        return self._scanning

    async def _scan_when_due(self) -> dict[str, list[int]]:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._due - loop.time())
        # in a thread: a scan takes some ms, and a budget stop must not wait for it
        self._give_spare_files()
        try:
            found = await run_in_thread(partial(processes.marked, self._run_id))
        finally:
            self._take_spare_files()
        self._due = loop.time() + (SCAN_AGAIN_S if found else SCAN_EVERY_S)
        return found

    def _take_spare_files(self) -> None:
        """Reserve file numbers: a stop must be able to scan when all others are taken."""
        with contextlib.suppress(OSError):
            while len(self._spare) < SPARE_FILES:
                self._spare.append(os.open(os.devnull, os.O_RDONLY))

    def _give_spare_files(self) -> None:
        while self._spare:
            os.close(self._spare.pop())
