"""Runs claude-orchestrator, and divides the CPU time of its event loop between the run, its page and the simulation.

    RESULT=file python -m tests.benchmarks.page_share --config … --rehearse --dashboard

Each step of the loop counts for whose task or connection it is. What the log of events costs inside of the run's own
steps is its cost for one event, measured at the end, times the events. A rehearsal makes the lines of its instances in
the same process, which a real run leaves to claude: that counts for nobody. So does what comes before the first launch.
The file gets JSON: seconds of `run`, `page` and `simulation`, and the number of `events`.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

SPENT: defaultdict[str, float] = defaultdict(float)
LOGS: list[Any] = []  # the one that is in use
LOGGED = 20_000
STATE = {"begun": 0, "events": 0}
PAGE = ("Feed.", "RequestHandler.", "PageServer.", "served", "LiveRun.", "EventLog.")
SIMULATION = ("SimulatedRunning.", "SimulatedLauncher.")


def owner_of(callback: Any) -> str:
    """Whose a callback of the loop is."""
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        name = getattr(owner.get_coro(), "__qualname__", "")
        return "page" if name.startswith(PAGE) else "simulation" if name.startswith(SIMULATION) else "run"
    kind = type(owner).__module__ + "." + type(owner).__qualname__
    name = getattr(callback, "__qualname__", "")
    is_socket = "selector_events" in kind or "BaseSelectorEventLoop" in name or kind.startswith("aiohttp")
    return "page" if is_socket else "run"


def install() -> None:
    """Time every step of the event loop from now on."""
    from claude_orchestrator.engine.bus import Bus
    from claude_orchestrator.engine.control.event_log import EventLog

    timer_s = min(-time.thread_time() + time.thread_time() for _ in range(1_000))
    run_handle, publish, attach = asyncio.events.Handle._run, Bus.publish, EventLog.attach

    def timed(handle: Any) -> None:
        begun, owner = time.thread_time(), owner_of(handle._callback)
        run_handle(handle)
        if STATE["begun"]:
            SPENT[owner] += time.thread_time() - begun - timer_s

    def counted(bus: Any, event: Any) -> None:
        STATE["events"] += 1
        STATE["begun"] = STATE["begun"] or type(event).__name__ == "Launched"
        publish(bus, event)

    def attached(log: Any) -> None:
        LOGS[:] = [log]
        attach(log)

    for place, name, function in (
        (asyncio.events.Handle, "_run", timed),
        (Bus, "publish", counted),
        (EventLog, "attach", attached),
    ):
        setattr(place, name, function)


def logging_s() -> float:
    """What the log of the run's events took to keep them."""
    from claude_orchestrator.engine.activity import Activity, Doing
    from claude_orchestrator.engine.bus import Bus
    from claude_orchestrator.engine.control.event_log import EventLog

    log, event = EventLog(Bus(), "x"), Activity("one", Doing.TOOL, "Bash: make", 1, since=0.0)
    begun = time.thread_time()
    for _ in range(LOGGED):
        log.observe(event)
    each_s = (time.thread_time() - begun) / LOGGED
    return each_s * sum(int(one.last_number) for one in LOGS)


def main() -> None:
    from claude_orchestrator.cli import main as program

    install()
    try:
        program.main()
    finally:
        logged_s = logging_s()
        SPENT["page"] += logged_s
        SPENT["run"] -= logged_s
        Path(os.environ["RESULT"]).write_text(json.dumps({**SPENT, "events": STATE["events"]}))


if __name__ == "__main__":
    main()
