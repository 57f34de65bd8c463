"""Work that would hold up the event loop, done in a thread where one is to be had."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")
# not the loop's own: to end that one takes a thread too
_pool = ThreadPoolExecutor(2, thread_name_prefix="off-loop")


async def off_loop(work: Callable[[], _T]) -> _T:
    """What `work` returns. Where the machine gives no more threads it is done here and now: late beats never."""
    try:
        return await asyncio.get_running_loop().run_in_executor(_pool, work)
    except RuntimeError:  # "can't start new thread"
        return work()
