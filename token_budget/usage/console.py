"""What the commands of `token-budget` share: the ledger, the output, the moments that users write."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from token_budget import places
from token_budget.files import write_atomically
from token_budget.text import RenderOptions, printable

if TYPE_CHECKING:
    from token_budget.ledger.store import LedgerStore

FILE = click.Path(path_type=Path)
HELP_ALONE = getattr(click.exceptions, "NoArgsIsHelpError", ())  # before 8.2 click shows the help and raises nothing


def report_usage(error: click.ClickException, name: str, complain: Callable[[str], None]) -> int:
    """Report how the program `name` was misused; returns the exit code. A command without arguments shows its help."""
    if isinstance(error, HELP_ALONE):
        error.show()
    else:
        used = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx is not None else name
        complain(f"{error.format_message()} (see {used} --help)")
    return error.exit_code


def _check_port(ctx: click.Context, param: click.Parameter, value: int) -> int:
    """Click's own range would write `0<=x<=65535`."""
    if not 0 <= value <= 65_535:
        raise click.BadParameter(f"expected a port from 1 to 65535, or 0 for any free one, got {value}", ctx, param)
    return value


port_option = click.option(
    "--port",
    type=int,
    callback=_check_port,
    default=0,
    metavar="PORT",
    help="The port of the page.  [default: any free one]",
)


def render_options() -> RenderOptions:
    """How to render text on this standard output."""
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size((100, 24)).columns
    color = not os.environ.get("NO_COLOR") and (terminal or bool(os.environ.get("FORCE_COLOR")))
    encoding = sys.stdout.encoding or "utf-8"
    return RenderOptions(max(20, width), color, "█".encode(encoding, "ignore") == b"", True)


def print_lines(lines: Iterable[str]) -> None:
    """Print lines that are rendered, with the colours that they have."""
    for line in lines:
        click.echo(line, color=True)


def write_whole(file: Path, lines: Iterable[str]) -> None:
    """Write text as `write_atomically` does. Raises ValueError with a line for the user."""
    try:
        write_atomically(file, (line.encode() for line in lines))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ValueError(f"{file}: cannot be written: {error.strerror or error}") from None


def ledger_place(ctx: click.Context) -> str:
    """The ledger that the user named, a file or the address of a server, or else the one that runs write."""
    if ctx.obj is None:
        ctx.obj = str(places.ledger_file(lambda line: click.echo(printable(line), err=True)))
    place: str = ctx.obj
    return place


def open_ledger(ctx: click.Context, *, create: bool = False) -> LedgerStore:
    """The ledger, open until the command ends. Raises LedgerError."""
    return open_place(ctx, ledger_place(ctx), create=create)


def open_place(ctx: click.Context, place: str, *, create: bool = False) -> LedgerStore:
    """The ledger at a place, open until the command ends. Raises LedgerError."""
    from token_budget.ledger.opening import open_store

    opened = open_store(place, create=create)
    ctx.call_on_close(opened.close)
    return opened


def since_ms(text: str | None, option: str = "--since") -> int:
    """When a span begins; 0 where nothing is given. Raises ValueError with a line for the user."""
    from token_budget.usage.moments import read_since

    return 0 if text is None else read_since(text, datetime.now(), option)


def until_ms(text: str | None, begin_ms: int) -> int:
    """When a span ends: not later than now, and after its beginning. Raises ValueError with a line for the user."""
    from token_budget.ledger.records import FOREVER_MS
    from token_budget.usage.moments import read_until
    from token_budget.windows import to_ms

    if text is None:
        return FOREVER_MS
    now = datetime.now()
    found = min(read_until(text, now), to_ms(now) + 1)
    if found <= begin_ms:
        raise ValueError(f"--until: '{printable(text.strip())}' is before --since")
    return found
