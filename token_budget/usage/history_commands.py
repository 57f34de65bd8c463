"""`token-budget history`, `run` and `plot`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Literal, get_args

import click

from token_budget.text import encodable
from token_budget.usage.console import (
    FILE,
    open_ledger,
    print_lines,
    render_options,
    since_ms,
    until_ms,
    write_whole,
)
from token_budget.usage.history import BYS, By, history

UnitName = Literal["tokens", "usd"]
PlotBy = Literal["command", "model"]
MOMENTS = "24h, 7d, 4w, today, yesterday, week, month or 2026-11-01"


def _read_groups(ctx: click.Context, param: click.Parameter, text: str) -> tuple[By, ...]:
    """Ways to group, separated by commas: `model,command`."""
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in BYS:
            raise click.BadParameter(f"'{word}' is not one of {', '.join(map(repr, BYS))}.", ctx, param)
    if len(set(words)) < len(words):
        raise click.BadParameter(f"'{text}' has a word twice.", ctx, param)
    return tuple(name for word in words for name in BYS if name == word)


@click.command("history")
@click.option(
    "--by",
    callback=_read_groups,
    metavar="GROUP[,GROUP]",
    default="day",
    show_default=True,
    help="day, command, model, run, instance or workspace, or several of them, such as model,command.",
)
@click.option("--since", metavar="WHEN", help=f"Begin at: {MOMENTS}.  [default: all]")
@click.option("--until", metavar="WHEN", help="End at. A day is included whole.  [default: now]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.pass_context
def history_command(
    ctx: click.Context, by: tuple[By, ...], since: str | None, until: str | None, as_json: bool, as_csv: bool
) -> None:
    """Show what your runs have used, by day or in other groups."""
    from token_budget.usage import history_text

    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    begin_ms = since_ms(since)
    rows = history(open_ledger(ctx), by, begin_ms, until_ms(until, begin_ms))
    if as_json:
        click.echo(json.dumps(history_text.as_json(rows, by), indent=2))
    elif as_csv:
        click.echo(history_text.as_csv(rows, by), nl=False)
    else:
        print_lines(history_text.render(rows, by, render_options()))


@click.command("run")
@click.argument("run_id")
@click.pass_context
def run_command(ctx: click.Context, run_id: str) -> None:
    """Show one run in detail. RUN_ID is its id, or `last`."""
    from token_budget.usage.run_detail import run_detail

    print_lines(run_detail(open_ledger(ctx), encodable(run_id), render_options()))


@click.command("plot")
@click.argument("file", type=FILE)
@click.option("--since", metavar="WHEN", default="30d", show_default=True, help=f"Begin at: {MOMENTS}.")
@click.option("--until", metavar="WHEN", help="End at. A day is included whole.  [default: now]")
@click.option(
    "--unit", type=click.Choice(get_args(UnitName)), default="tokens", show_default=True, help="What to draw."
)
@click.option(
    "--by", type=click.Choice(get_args(PlotBy)), default="command", show_default=True, help="How to group it."
)
@click.option("--daily", metavar="LIMIT", help="Draw this daily limit.  [default: that of the config or the last run]")
@click.option("--weekly", metavar="LIMIT", help="Draw this weekly limit.")
@click.option("--monthly", metavar="LIMIT", help="Draw this monthly limit.")
@click.option("--workspace", type=FILE, default=Path(), metavar="DIR", help="The folder with the config.")
@click.pass_context
def plot_command(
    ctx: click.Context, /, file: Path, unit: UnitName, by: PlotBy, workspace: Path, **texts: str | None
) -> None:
    """Draw your use as FILE.svg or FILE.html.

    The picture shows use over time, against your limits, and by command or model.
    """
    from token_budget.models import Unit
    from token_budget.usage import plot, plot_limits
    from token_budget.usage.plot_data import PlotRequest

    forms: dict[str, plot.Form] = {".svg": "svg", ".html": "html"}
    form = forms.get(file.suffix.lower())
    if form is None:
        raise click.UsageError(f"{file}: expected a name that ends in .svg or .html")
    begin_ms = since_ms(texts.pop("since"))
    end_ms = min(until_ms(texts.pop("until"), begin_ms), int(time.time() * 1000))
    counted = Unit.USD if unit == "usd" else Unit.TOKENS
    given = plot_limits.given_limits(texts, counted)
    ledger = open_ledger(ctx)
    limits = plot_limits.limits_to_draw(ledger, workspace, counted, given)
    write_whole(file, [plot.plot(ledger, PlotRequest(begin_ms, end_ms, counted, by, limits), form)])
