"""The page of a run while it runs: checked and bound before anything starts, served from the run's own process."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from token_budget.folders import Folder
from token_budget.serving.checks import is_loopback
from token_budget.serving.listening import BoundPage, OptionNames

if TYPE_CHECKING:
    from claude_orchestrator.engine.control.run_control import RunControl
    from claude_orchestrator.engine.run_request import Door
    from claude_orchestrator.ui.web.sources import RunSource
    from claude_orchestrator.ui.web.timeline import Timeline

DASHBOARD = OptionNames("--dashboard", "--dashboard-host", "--dashboard-token-file")
Announce = Callable[[str], None]


def page_of(bound: BoundPage, announce: Announce) -> Door:
    """What serves the page of a run in its process."""

    def serve(control: RunControl, folder: Folder) -> contextlib.AbstractAsyncContextManager[None]:
        from claude_orchestrator.ui.web.sources import LiveRun

        return served(bound, LiveRun(control), folder, announce, _metrics_of(control))

    return serve


def _metrics_of(control: RunControl) -> Callable[[], str]:
    """What a scraper of metrics gets of a run."""
    from claude_orchestrator.engine.snapshot import Snapshots

    snapshots = Snapshots(control.view)

    def collect() -> str:
        from claude_orchestrator.ui.web.prometheus import exposition  # only if somebody asks for it

        return exposition(snapshots.take(time.monotonic()), control.view.changes)

    return collect


@contextlib.asynccontextmanager
async def served(
    bound: BoundPage,
    source: RunSource,
    folder: Folder,
    announce: Announce,
    metrics: Callable[[], str] | None = None,
    timeline: Timeline | None = None,
) -> AsyncIterator[None]:
    """Serve a run on a page while this is open, and say where. `timeline` has what is known of its use so far."""
    from claude_orchestrator.ui.web.feed import Feed
    from claude_orchestrator.ui.web.keys import PageDoor, make_keys, write_door
    from claude_orchestrator.ui.web.routes import RunSite
    from claude_orchestrator.ui.web.run_files import RunFiles
    from token_budget.serving.server import PageServer

    keys, secret = make_keys(folder, bound.password)
    feed = Feed(source, timeline)
    port = bound.listening.getsockname()[1]
    site = RunSite(source, feed, RunFiles(folder), keys, f"orchestrator-{port}", bound.options.read_only, metrics)
    try:
        write_door(folder, PageDoor(bound.address, os.getpid(), secret, keys.boot))
    except OSError as error:
        announce(f"claude-runs cannot find the page: {error.strerror or error}")
    async with PageServer(site, bound.listening, bound.options.host):
        feed.start()
        announce(f"dashboard: {bound.address}open?ticket={keys.ticket()}")
        if not is_loopback(bound.options.host):
            can = "see prompts, answers and logs" + ("" if bound.options.read_only else ", and change the run")
            announce(f"the dashboard is open to other machines, without encryption: whoever has the password can {can}")
        try:
            yield
        finally:
            await feed.close()
