"""The Python API: `run` and `arun` do what the program does with a config, and return what it reports.

Each run has its own thread and event loop. A slow caller or a slow `on_event` therefore delays no decision about
budgets. Nothing is printed, and no signal is caught.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable
from typing import Unpack

from claude_orchestrator.api.inputs import ConfigLike, RunOptions
from claude_orchestrator.api.job import Job
from claude_orchestrator.api.outcome import InstanceResult, Run
from claude_orchestrator.config.config import InstanceConfig
from claude_orchestrator.engine.run_events import RunEvent
from claude_orchestrator.errors import UserError

__all__ = ["InstanceConfig", "InstanceResult", "Run", "RunOptions", "UserError", "arun", "run"]
OnEvent = Callable[[RunEvent], object]


def run(config: ConfigLike, *, on_event: OnEvent | None = None, **options: Unpack[RunOptions]) -> Run:
    """Run a config to its end and return what came of it.

    `config` is the JSON's data, a list of `InstanceConfig`, a path, or a prompt. `on_event` receives every event of the
    run, in the calling thread. Raises UserError before anything is launched. After KeyboardInterrupt, or an error of
    `on_event`, the instances are stopped first.
    """
    job = Job(config, options, wants_events=on_event is not None)
    while not job.finished:
        with job.stopped_by_errors():
            job.changed.wait()
            for event in job.take():
                if on_event is not None:
                    on_event(event)
    return job.outcome()


async def arun(config: ConfigLike, *, on_event: OnEvent | None = None, **options: Unpack[RunOptions]) -> Run:
    """`run` for a program with an event loop. `on_event` is called in that loop, and may be a coroutine function.

    If the task is cancelled, the instances are stopped first.
    """
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def notify() -> None:
        with contextlib.suppress(RuntimeError):  # the caller's loop is closed
            loop.call_soon_threadsafe(changed.set)

    job = Job(config, options, wants_events=on_event is not None, notify=notify)
    while not job.finished:
        with job.stopped_by_errors():
            await changed.wait()
            changed.clear()
            for event in job.take():
                if on_event is not None:
                    answer = on_event(event)
                    if inspect.isawaitable(answer):
                        await answer
    return job.outcome()
