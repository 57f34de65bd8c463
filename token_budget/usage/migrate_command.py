"""`token-budget migrate`: copies a ledger to another place, or brings a server's ledger up to date."""

from __future__ import annotations

import click

from token_budget.text import counted
from token_budget.usage.console import open_place


@click.command("migrate")
@click.option("--from", "source", metavar="FILE|URL", help="Copy this ledger.")
@click.option("--to", "target", required=True, metavar="FILE|URL", help="The ledger to make, update and fill.")
@click.pass_context
def migrate_command(ctx: click.Context, source: str | None, target: str) -> None:
    """Copy a ledger to another place.

    With --to alone, the command makes the ledger there or brings it up to date. You can repeat a copy: it adds only
    what is missing. Then the command compares the sums of both ledgers.
    """
    from token_budget.ledger.address import is_address, whole_name
    from token_budget.ledger.opening import upgrade

    if source is not None and whole_name(source) == whole_name(target):
        raise ValueError("--from and --to name the same ledger")
    opened = None if source is None else open_place(ctx, source)
    if is_address(target):
        before, after = upgrade(target)
        if before != after:
            click.echo(f"{target}: schema {after}" + (f" instead of {before}" if before else ""))
    elif source is None:
        raise ValueError("--to: expected the address of a server; a file is brought up to date by its first use")
    if opened is None:
        return
    from token_budget.ledger.moving_over import copy

    moved = copy(opened, open_place(ctx, target, create=True))
    new = ((moved.runs, "run"), (moved.attempts, "attempt"), (moved.records, "record"), (moved.accounts, "account"))
    click.echo("added " + ", ".join(counted(number, noun) for number, noun in new))
    if moved.differing_runs:
        named = ", ".join(moved.differing_runs[:3])
        number = counted(len(moved.differing_runs), "run")
        raise ValueError(f"the sums of {number} differ, for example {named}: if they are in progress, repeat it later")
    click.echo("the sums of both are the same")
