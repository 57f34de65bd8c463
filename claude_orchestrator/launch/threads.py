"""Runs work that would hold up the event loop in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")
# not the loop's own pool: to shut that one down takes another thread
_pool = ThreadPoolExecutor(2, thread_name_prefix="orchestrator")


async def run_in_thread(work: Callable[[], _T]) -> _T:
    """Return what `work` returns. If the machine allows no more threads, do the work on the event loop instead."""
    try:
        return await asyncio.get_running_loop().run_in_executor(_pool, work)
    except RuntimeError:  # "can't start new thread"
        return work()
