"""`token-budget profile`: lists, shows, saves and deletes profiles."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from token_budget import places
from token_budget.text import encodable, printable
from token_budget.usage.console import FILE, open_ledger, print_lines

if TYPE_CHECKING:
    from token_budget.ledger.store import LedgerStore


@click.group("profile")
@click.option("--workspace", type=FILE, default=Path(), metavar="DIR", help="The folder with the project's file.")
@click.pass_context
def profile_group(ctx: click.Context, workspace: Path) -> None:
    """Manage profiles, which are named sets of limits."""
    from token_budget.usage.profiles import PROJECT_FILE

    ctx.meta["files"] = (workspace / PROJECT_FILE, places.profiles_file())


def _files(ctx: click.Context) -> tuple[Path, Path]:
    """The project's file and the user's."""
    files: tuple[Path, Path] = ctx.meta["files"]
    return files


@profile_group.command("list")
@click.pass_context
def list_command(ctx: click.Context) -> None:
    """List all profiles, with their files and what they extend."""
    from token_budget.usage.profiles import names

    for listed in names(_files(ctx)):
        extends = f" extends {listed.extends}" if listed.extends else ""
        click.echo(printable(f"{listed.name}{extends} ({listed.file})"))


@profile_group.command("show")
@click.argument("name")
@click.pass_context
def show_command(ctx: click.Context, name: str) -> None:
    """Show a profile's values, each with its origin."""
    from token_budget.usage.profiles import describe, load

    print_lines(printable(line) for line in describe(load(name, _files(ctx))))


@profile_group.command("save")
@click.argument("name")
@click.option("--from-run", metavar="RUN_ID|last", help="Take the use of a run, plus a margin, as limits.")
@click.option(
    "--margin",
    type=float,
    metavar="SHARE",
    default=0.25,
    show_default=True,
    help="The margin, as a share of the use.",
)
@click.option(
    "--set",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set a key to a value, which is JSON or plain text. Repeatable.",
)
@click.option("--project", is_flag=True, help="Use the file of the project instead of your own.")
@click.pass_context
def save_command(
    ctx: click.Context, name: str, from_run: str | None, margin: float, pairs: tuple[str, ...], project: bool
) -> None:
    """Save a profile. It replaces one with the same name."""
    from token_budget.usage.profiles import save

    values: dict[str, object] = {}
    if from_run is not None:
        values.update(_limits_from(open_ledger(ctx), from_run, margin))
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator:
            raise click.UsageError(f"--set: expected KEY=VALUE, got '{pair}'")
        values[key.strip()] = _value(text)
    if not values:
        raise click.UsageError("nothing to save: give --set, or --from-run with a run that has used tokens")
    file = _files(ctx)[0 if project else 1]
    done = "replaced" if save(file, name, values, _files(ctx)) else "saved"
    click.echo(f"{done} {printable(name)} in {printable(str(file))}")


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _limits_from(ledger: LedgerStore, run_id: str, margin: float) -> dict[str, object]:
    """Limits that a run would keep, from what each base command drew from its budgets."""
    from token_budget.model_weights import weights_for
    from token_budget.usage.lookup import find_run
    from token_budget.usage.profiles import from_run
    from token_budget.usage.run_detail import weights_of

    run = find_run(ledger, encodable(run_id), "--from-run")
    used, weights = Counter[str | None](), weights_of(run)
    for attempt in ledger.attempts(run=run.run):
        used[attempt.base_command] += weights_for(weights, attempt.model).draw(attempt.usage)
    commands = {command: tokens for command, tokens in used.items() if command is not None}
    values = from_run(sum(used.values()), commands, margin)
    return values if weights.describe() == "flat" else {**values, "token_weights": weights.describe()}


@profile_group.command("delete")
@click.argument("name")
@click.option("--project", is_flag=True, help="Use the file of the project instead of your own.")
@click.pass_context
def delete_command(ctx: click.Context, name: str, project: bool) -> None:
    """Delete a profile, unless another one extends it."""
    from token_budget.usage.profiles import delete

    delete(_files(ctx)[0 if project else 1], name, _files(ctx))
    click.echo(f"deleted {printable(name)}")
