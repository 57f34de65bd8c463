"""`token-budget forecast` and `backtest`."""

from __future__ import annotations

import time

import click

from token_budget.text import encodable, printable
from token_budget.usage.console import open_ledger


@click.command("forecast")
@click.argument("command", required=False)
@click.option("--model", default="", metavar="MODEL", help="Give runs with this model more weight.")
@click.pass_context
def forecast_command(ctx: click.Context, command: str | None, model: str) -> None:
    """Forecast what a command will use.

    COMMAND is a slash command, or the name of an instance with a plain prompt. Without it, you get all forecasts.
    """
    from token_budget.forecast import forecast
    from token_budget.ledger.samples import SampleReader, subject_of
    from token_budget.models import Unit
    from token_budget.usage.lookup import find_subject

    ledger = open_ledger(ctx)
    reader = SampleReader(ledger)
    asked = command and command.strip()
    subjects = [find_subject(ledger, encodable(asked))] if asked else reader.subjects()
    if not subjects:
        click.echo("no finished instances in the ledger yet")
    for base_command, instance in subjects:
        subject = subject_of(base_command, instance)
        tokens, cost = (forecast(reader.of(base_command, instance, unit), subject, model, time.time()) for unit in Unit)
        in_money = f"; {cost.describe(Unit.USD)} (an estimate)" if cost.known else ""
        click.echo(f"{printable(subject)}: {tokens.describe()}{in_money}")


@click.command("backtest")
@click.pass_context
def backtest_command(ctx: click.Context) -> None:
    """Measure how well forecasts fit the runs in the ledger.

    Compares them with a fixed estimate of 1,000 tokens.
    """
    from token_budget.forecast import backtest
    from token_budget.ledger.samples import SampleReader

    found = backtest(SampleReader(open_ledger(ctx)).all())
    click.echo(f"{found.n:,} instances forecast, {found.n_unknown:,} without a forecast")
    for score in found.scores:
        click.echo(
            f"P{score.p * 100:.0f}: {score.covered:.1%} at or under it (target: {score.p:.0%}), pinball loss "
            f"{score.loss_tokens:,.0f} tokens; fixed 1,000: {score.fixed_covered:.1%}, {score.fixed_loss_tokens:,.0f}"
        )
