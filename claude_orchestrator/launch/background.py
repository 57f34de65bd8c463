"""Work beside what the event loop does now: tasks that nobody awaits, and work in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

_T = TypeVar("_T")
# not the loop's own pool: to shut that one down takes another thread
_pool = ThreadPoolExecutor(2, thread_name_prefix="orchestrator")


class Tasks(set[asyncio.Future[Any]]):
    """The tasks that are not done yet. Without such a reference, a task can be garbage-collected while it runs."""

    def start(self, work: Coroutine[Any, Any, object]) -> None:
        """Run this as a task."""
        task = asyncio.ensure_future(work)
        self.add(task)
        task.add_done_callback(self.discard)


async def run_in_thread(work: Callable[[], _T]) -> _T:
    """Return what `work` returns. If the machine allows no more threads, do the work on the event loop instead."""
    try:
        return await asyncio.get_running_loop().run_in_executor(_pool, work)
    except RuntimeError:  # "can't start new thread"
        return work()
