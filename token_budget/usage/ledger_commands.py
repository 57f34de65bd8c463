"""`token-budget export`, `import` and `prune`."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from token_budget import places
from token_budget.ledger.address import is_address
from token_budget.text import counted, format_tokens, printable
from token_budget.usage.console import FILE, open_ledger, since_ms, write_whole

if TYPE_CHECKING:
    from token_budget.ledger.export_import import Diff
    from token_budget.ledger.import_reader import ImportData
    from token_budget.ledger.store import LedgerStore


@click.command("export")
@click.argument("file", type=FILE, default="-")
@click.option("--csv", "as_csv", is_flag=True, help="Write the records as CSV, which you cannot import.")
@click.option("--prompts", is_flag=True, help="Include prompts and the arguments of commands.")
@click.pass_context
def export_command(ctx: click.Context, file: Path, as_csv: bool, prompts: bool) -> None:
    """Export the ledger.

    Writes lines of JSON without prompts to FILE, or to standard output.
    """
    from token_budget.ledger import export_import
    from token_budget.usage import profiles

    ledger = open_ledger(ctx)
    if not is_address(ledger.name) and _is_of_ledger(file, Path(ledger.name)):
        raise ValueError(f"{file}: is the ledger itself, or a part of it")
    if as_csv:
        lines = export_import.export_csv(ledger)
    else:
        lines = export_import.export(ledger, prompts=prompts, profiles=profiles.stored(places.profiles_file()))
    with contextlib.closing(lines):  # before the ledger: they read from it
        ended = (f"{line}\n" for line in lines)
        if str(file) != "-":
            write_whole(file, ended)
            return
        sys.stdout.buffer.writelines(line.encode() for line in ended)
        sys.stdout.buffer.flush()


def _is_of_ledger(file: Path, ledger: Path) -> bool:
    real = os.path.realpath(ledger)
    parts = [Path(real + suffix) for suffix in ("", "-wal", "-shm", "-journal")]  # https://sqlite.org/tempfiles.html
    return os.path.realpath(file) in map(str, parts) or any(
        file.exists() and part.exists() and file.samefile(part) for part in parts
    )


@click.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8"), required=False)
@click.option(
    "--from-claude",
    type=FILE,
    metavar="DIR",
    help="Import Claude Code's own transcripts, for example ~/.claude/projects.",
)
@click.option("--dry-run", is_flag=True, help="Show what is new and write nothing.")
@click.pass_context
def import_command(ctx: click.Context, file: TextIO | None, from_claude: Path | None, dry_run: bool) -> None:
    """Import an export or transcripts.

    Adds an export of another ledger, or transcripts of Claude Code. A second import adds nothing.
    """
    from token_budget.ledger import export_import, import_reader
    from token_budget.usage import profiles

    if (file is None) == (from_claude is None):
        raise click.UsageError("expected a FILE, or --from-claude DIR")
    ledger = _there(ctx)
    if from_claude is not None:
        parcel = _from_claude(ledger, from_claude)
    else:
        assert file is not None
        parcel = import_reader.read(file, file.name)
    known = {one.name for one in profiles.names([places.profiles_file()])} if parcel.profiles else set()
    profiles.check(parcel.profiles, Path(file.name) if file else places.profiles_file())
    if dry_run:
        found, done = export_import.diff(ledger, parcel), "would add"
    else:
        found, done = export_import.apply(ledger or open_ledger(ctx, create=True), parcel), "added"
    _report(found, done, known)
    new = {name: values for name, values in parcel.profiles.items() if name not in known}
    if new and not dry_run:
        profiles.save_all(places.profiles_file(), new)


def _there(ctx: click.Context) -> LedgerStore | None:
    from token_budget.ledger.errors import NoLedgerError

    try:
        return open_ledger(ctx)
    except NoLedgerError:
        return None


def _report(found: Diff, done: str, known_profiles: set[str]) -> None:
    new = ((found.new_runs, "run"), (found.new_attempts, "attempt"), (found.new_records, "record"))
    parts = ", ".join(counted(number, noun) for number, noun in new)
    click.echo(f"{done} {parts} ({format_tokens(found.tokens)} tokens); known before: {found.known_records:,}")
    if found.other_records:
        text = f"{counted(found.other_records, 'record')} with other figures: the ledger keeps its own"
        click.echo(text, err=True)
    for name in sorted(known_profiles.intersection(found.profiles)):
        click.echo(f"profile {printable(name)} already exists and was not changed", err=True)


def _from_claude(ledger: LedgerStore | None, folder: Path) -> ImportData:
    import platform

    from token_budget import pricing
    from token_budget.ledger import transcripts
    from token_budget.ledger.import_reader import ImportData

    if not folder.is_dir():
        raise ValueError(f"--from-claude: {folder}: no such folder")
    prices = pricing.Prices() if pricing.available() else None
    if prices is None:
        click.echo(f"without {pricing.EXTRA} what is imported has no cost", err=True)
    found = transcripts.read_transcripts(
        folder,
        platform.node() or "unknown",
        None if prices is None else prices.response,
        known_sessions=transcripts.known_sessions(ledger) if ledger else None,
        now_ms=int(time.time() * 1000),
    )
    for model in sorted(prices.unknown) if prices else ():
        click.echo(f"no price is known for the model {printable(model)}: its use has no cost", err=True)
    if found.skipped_lines:
        click.echo(f"skipped {counted(found.skipped_lines, 'broken line')}", err=True)
    if found.known_responses:
        click.echo(f"left out {counted(found.known_responses, 'response')}: your runs have counted them", err=True)
    return ImportData(runs=found.runs, attempts=found.attempts, records=found.records)


@click.command("prune")
@click.option(
    "--before", required=True, metavar="WHEN", help="Remove runs that ended before, for example 90d or 2026-01-01."
)
@click.option("--yes", is_flag=True, help="Remove them. Without --yes, the command only shows what it would remove.")
@click.pass_context
def prune_command(ctx: click.Context, before: str, yes: bool) -> None:
    """Remove old runs from the ledger."""
    ledger = open_ledger(ctx)
    moments = since_ms(before, "--before"), int(time.time() * 1000)
    attempts, tokens = ledger.prunable(*moments)
    if yes:
        gone = ledger.prune(*moments)
        click.echo(
            f"removed {counted(attempts, 'attempt')}, {counted(gone, 'record')} ({format_tokens(tokens)} tokens)"
        )
    else:
        click.echo(
            f"would remove {counted(attempts, 'attempt')} ({format_tokens(tokens)} tokens): add --yes to remove them"
        )
