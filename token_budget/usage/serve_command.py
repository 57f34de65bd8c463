"""`token-budget serve`: the history on a page in the browser."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import webbrowser
from html import escape
from pathlib import Path

import click

from token_budget.usage.console import FILE, ledger_place, open_ledger, port_option


@click.command("serve")
@port_option
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Listen on this address.")
@click.option("--token-file", type=FILE, metavar="FILE", help="A file with a password for other machines.")
@click.option("--browser/--no-browser", default=True, help="Open the page in your browser.  [default: browser]")
@click.option("--workspace", type=FILE, default=Path(), metavar="DIR", help="The folder with the config.")
@click.pass_context
def serve_command(
    ctx: click.Context, port: int, host: str, token_file: Path | None, browser: bool, workspace: Path
) -> None:
    """Show your use on a page in the browser.

    The page has use by day, command, model, instance and workspace, forecasts, and the limits of day, week and month
    with their projected end. The limits are those of the config or of the last run.
    """
    from token_budget.serving.listening import OptionNames, PageOptions, bind

    bound = bind(PageOptions(port, host, token_file), OptionNames("--port", page="serve"))
    from token_budget.ledger.store import LedgerStore
    from token_budget.models import Unit
    from token_budget.usage import plot_limits
    from token_budget.usage.page.site import History, Limits, serve

    def limits_of(ledger: LedgerStore) -> Limits:
        return {unit: plot_limits.limits_to_draw(ledger, workspace, unit, {}) for unit in Unit}

    limits_of(open_ledger(ctx))  # refuses what cannot be read, before anybody looks

    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):

        def announce(line: str) -> None:
            click.echo(line, err=not line.startswith("http"))
            if line.startswith("http") and browser:
                _open(line, Path(folder))

        click.echo("Ctrl-C ends the page.", err=True)
        asyncio.run(serve(bound, History(ledger_place(ctx), limits_of), announce))


def _open(address: str, folder: Path) -> None:
    """Start the browser with a file that leads to the address: the ticket is then in no list of processes."""
    page = f'<!doctype html><meta http-equiv="refresh" content="0; url={escape(address)}"><title>token-budget</title>\n'
    with contextlib.suppress(OSError, webbrowser.Error):
        (folder / "page.html").write_text(page)
        webbrowser.open((folder / "page.html").as_uri())
