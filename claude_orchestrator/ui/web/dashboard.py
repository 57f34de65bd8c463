"""The page of a run while it runs: checked and bound before anything starts, served from the run's own process."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from claude_orchestrator.ui.web.checks import is_loopback
from token_budget.folders import Folder
from token_budget.named_tuples import NamedTuple

if TYPE_CHECKING:
    from claude_orchestrator.engine.control.run_control import RunControl
    from claude_orchestrator.engine.controller import Door
    from claude_orchestrator.ui.web.sources import RunSource
    from claude_orchestrator.ui.web.timeline import Timeline

EXTRA = "the extra web (pip install 'claude-orchestrator[web]')"
LOOPBACK = "127.0.0.1"
LEAST_PASSWORD_CHARS = 12
MAX_PASSWORD_BYTES = 4_096
BACKLOG = 256
Announce = Callable[[str], None]


class PageOptions(NamedTuple):
    """Where the page is, and who may do what. Port 0 is any free one."""

    port: int
    host: str = LOOPBACK
    token_file: Path | None = None
    read_only: bool = False


class BoundPage(NamedTuple):
    """A page that has its address, and nobody to serve it yet."""

    options: PageOptions
    listening: socket.socket
    password: str

    @property
    def address(self) -> str:
        """The page's address, without a ticket."""
        host, port = self.options.host, self.listening.getsockname()[1]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def bind(options: PageOptions, option: str = "--dashboard") -> BoundPage:
    """Check the options and take the address. Raises ValueError with one line."""
    if importlib.util.find_spec("aiohttp") is None:
        raise ValueError(f"{option}: needs {EXTRA}")
    password = "" if options.token_file is None else _password(options.token_file)
    if not is_loopback(options.host) and not password:
        raise ValueError(
            f"{option}-host {options.host}: other machines could reach the page: add {option}-token-file FILE, "
            "a file with a password"
        )
    try:
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listening = socket.create_server((options.host, options.port), family=family, backlog=BACKLOG)
    except OSError as error:
        why = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise ValueError(f"{option}: {options.host}:{options.port}: {why}: choose another port") from None
    return BoundPage(options, listening, password)


def _password(path: Path) -> str:
    """The password in a file. Raises ValueError."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_PASSWORD_BYTES + 1).decode().strip()
            mode = os.fstat(file.fileno()).st_mode
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise ValueError(f"--dashboard-token-file: {path}: {why}") from None
    if os.name == "posix" and mode & 0o077:
        raise ValueError(f"--dashboard-token-file: {path}: other users can read it: chmod 600 {path}")
    if len(text) < LEAST_PASSWORD_CHARS:
        raise ValueError(f"--dashboard-token-file: {path}: expected at least {LEAST_PASSWORD_CHARS} characters")
    return text


def page_of(bound: BoundPage, announce: Announce) -> Door:
    """What serves the page of a run in its process."""

    def serve(control: RunControl, folder: Folder) -> contextlib.AbstractAsyncContextManager[None]:
        from claude_orchestrator.ui.web.sources import LiveRun

        return served(bound, LiveRun(control), folder, announce, _metrics_of(control))

    return serve


def _metrics_of(control: RunControl) -> Callable[[], str]:
    """What a scraper of metrics gets of a run."""
    from claude_orchestrator.engine.snapshot import Snapshots
    from claude_orchestrator.ui.metrics import exposition

    snapshots = Snapshots(control.view)
    return lambda: exposition(snapshots.take(time.monotonic()), control.view.changes.decisions)


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
    from claude_orchestrator.ui.web.routes import Site
    from claude_orchestrator.ui.web.run_files import RunFiles
    from claude_orchestrator.ui.web.server import PageServer

    keys, secret = make_keys(folder, bound.password)
    feed = Feed(source, timeline)
    port = bound.listening.getsockname()[1]
    site = Site(source, feed, RunFiles(folder), keys, f"orchestrator-{port}", bound.options.read_only, metrics)
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
