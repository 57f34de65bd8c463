"""Starts another guard process if the present one is killed, for instance by pkill or for lack of memory."""

from __future__ import annotations

import asyncio

from claude_orchestrator.engine.bus import Bus
from claude_orchestrator.engine.run_events import Level, Message
from claude_orchestrator.launch.guards import Guard


def watch(guard: Guard, bus: Bus) -> None:
    """Replace the guard, with a message, whenever it ends before the run does."""
    pipe = guard.end_of_guard()
    if pipe is None:
        return
    loop = asyncio.get_running_loop()

    def restart() -> None:
        loop.remove_reader(pipe)
        bus.warn("something killed the guard process: starting another one")
        try:
            guard.revive()
        except OSError as error:
            why = error.strerror or error
            text = f"no guard process ({why}): a SIGKILL of this process would leave instances running"
            bus.publish(Message(Level.ERROR, text))
        else:
            watch(guard, bus)
        pipe.close()

    loop.add_reader(pipe, restart)
