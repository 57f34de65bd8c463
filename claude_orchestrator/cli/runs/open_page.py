"""`claude-runs open`: the page of a run, while it runs and afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import webbrowser
from html import escape
from pathlib import Path
from urllib.parse import urlsplit

import click

from claude_orchestrator.engine import journal
from claude_orchestrator.engine.control.runs import FoundRun, opened, status_of
from claude_orchestrator.errors import UserError
from claude_orchestrator.ui.web.dashboard import served
from claude_orchestrator.ui.web.keys import read_door
from token_budget.folders import Folder
from token_budget.serving.listening import BoundPage, OptionNames, PageOptions, bind

REDIRECT = "dashboard.html"  # so that the ticket is not in the list of processes
CONNECT_S = 1.0


def open_page(run: FoundRun, port: int, *, browser: bool, read_only: bool) -> int:
    """Open the page that the run has, or serve one until the user interrupts; returns 0. Raises UserError."""
    with opened(run) as folder:
        address = _present(folder)
        if address is not None:
            _show(folder, address, browser=browser)
            return 0
        status_of(run, brief=True)  # refuses a run that cannot be read
        try:
            bound = bind(PageOptions(port, read_only=read_only), OptionNames("open"))
        except ValueError as error:
            raise UserError(str(error)) from None
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_serve(run, bound, folder, browser=browser))
    return 0


def _present(folder: Folder) -> str | None:
    """The address, with a new ticket, of a page that somebody serves already."""
    door = read_door(folder)
    if door is None:
        return None
    parts = urlsplit(door.address)
    try:
        os.kill(door.pid, 0)
        socket.create_connection((parts.hostname or "", parts.port or 0), CONNECT_S).close()
    except (OSError, OverflowError):
        return None
    return f"{door.address}open?ticket={door.ticket()}"


async def _serve(run: FoundRun, bound: BoundPage, folder: Folder, *, browser: bool) -> None:
    from claude_orchestrator.ui.web.found_run import FoundRunSource
    from claude_orchestrator.ui.web.timeline import OVER, recorded

    found = status_of(run)

    def announce(text: str) -> None:
        name, _, address = text.partition(": ")
        if name == "dashboard":
            _show(folder, address, browser=browser)
            over = found["run"]["state"] in OVER
            click.echo(f"Ctrl-C ends the page.{'' if over else ' The run continues.'}", err=True)
        else:
            click.echo(text, err=True)

    drawn = {row["name"]: row["budgets"] for row in found["instances"]}
    with os.fdopen(folder.file(journal.NAME, os.O_RDONLY), "rb") as file:
        timeline = recorded(journal.records(file.read()), found["budgets"], drawn)
    async with served(bound, FoundRunSource(run), folder, announce, timeline=timeline):
        await asyncio.Event().wait()


def _show(folder: Folder, address: str, *, browser: bool) -> None:
    click.echo(address)
    if not browser:
        return
    page = f'<!doctype html><meta http-equiv="refresh" content="0; url={escape(address)}"><title>claude-runs</title>\n'
    with contextlib.suppress(OSError, webbrowser.Error):
        with os.fdopen(folder.file(REDIRECT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w") as file:
            file.write(page)
        webbrowser.open(Path(folder.path, REDIRECT).absolute().as_uri())
