"""`token-budget limit`: the limits of accounts, which the ledger keeps."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import click

from token_budget.usage.console import ledger_place, open_ledger, print_lines, render_options

if TYPE_CHECKING:
    from token_budget.ledger.records import AccountLimit, AccountRecord
    from token_budget.ledger.store import LedgerStore
    from token_budget.models import Unit
    from token_budget.windows import Window

EXPECTED = "daily, weekly, monthly, daily-cost, weekly-cost or monthly-cost"


@click.group("limit")
def limit_group() -> None:
    """Manage the limits of accounts.

    Every run with --account NAME keeps to the limits of that account.
    """


@limit_group.command("set")
@click.argument("account")
@click.argument("limits", nargs=-1, required=True, metavar="LIMIT=N…")
@click.option("--zone", metavar="NAME", help="The time zone in which the account's days begin.  [default: UTC]")
@click.pass_context
def set_command(ctx: click.Context, account: str, limits: tuple[str, ...], zone: str | None) -> None:
    """Set limits of an account, for example daily=2M or monthly-cost=50.

    Limits in tokens are daily, weekly and monthly. Limits in USD are daily-cost, weekly-cost and monthly-cost.
    """
    name, found = _account(account), [_limit(text) for text in limits]
    if len({one[:2] for one in found}) < len(found):
        raise ValueError("a limit is there twice")
    if zone is not None:
        from token_budget.ledger.accounts import zone_named

        zone_named(zone)
    ledger = open_ledger(ctx, create=True)
    ledger.set_limits(name, found, zone=zone)
    _show(ledger, ledger.accounts(name), as_json=False)


@limit_group.command("list")
@click.argument("account", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def list_command(ctx: click.Context, account: str | None, as_json: bool) -> None:
    """Show the limits of all accounts or of one, and what is used of them."""
    ledger = open_ledger(ctx)
    name = None if account is None else _account(account)
    found = ledger.accounts(name)
    if name is not None and not found:
        raise ValueError(_without_limits(ctx, name))
    _show(ledger, found, as_json=as_json)


@limit_group.command("remove")
@click.argument("account")
@click.argument("limits", nargs=-1, metavar="[LIMIT…]")
@click.pass_context
def remove_command(ctx: click.Context, account: str, limits: tuple[str, ...]) -> None:
    """Remove limits of an account, or all of them.

    Runs that are in progress keep them until they end.
    """
    name, ledger = _account(account), open_ledger(ctx)
    if not ledger.accounts(name):
        raise ValueError(_without_limits(ctx, name))
    gone = ledger.remove_limits(name, [_window(text) for text in limits])
    click.echo(f"removed {gone} of the limits of {name}")


def _without_limits(ctx: click.Context, account: str) -> str:
    return f"{account} has no limits in {ledger_place(ctx)}"


def _account(text: str) -> str:
    from token_budget.fields import ACCOUNT, BadValue

    try:
        name: str = ACCOUNT.read(text)
    except BadValue as error:
        raise ValueError(f"ACCOUNT: {error}") from None
    return name


def _window(text: str) -> tuple[Window, Unit]:
    from token_budget.models import Unit
    from token_budget.windows import Window

    word = text.strip().removesuffix("-cost")
    if word not in set(Window):
        raise ValueError(f"expected {EXPECTED}, got {text!r}")
    return Window(word), Unit.USD if text.strip().endswith("-cost") else Unit.TOKENS


def _limit(text: str) -> AccountLimit:
    from token_budget.fields import TOKENS, USD, BadValue
    from token_budget.ledger.records import AccountLimit
    from token_budget.models import Unit

    name, equals, number = text.partition("=")
    if not equals:
        raise ValueError(f"expected LIMIT=N such as daily=2M, got {text!r}")
    window, unit = _window(name)
    try:
        return AccountLimit(window, unit, (USD if unit is Unit.USD else TOKENS).read(number))
    except BadValue as error:
        raise ValueError(f"{name.strip()}: {error}") from None


def _show(ledger: LedgerStore, accounts: list[AccountRecord], *, as_json: bool) -> None:
    from token_budget.ledger.accounts import limit_name, limits_at
    from token_budget.models import Weights
    from token_budget.text import NANO, printable
    from token_budget.usage.tables import TableColumn, table

    now_ms = ledger.now_ms(int(time.time() * 1000))
    rows = [
        (one, limit, used)
        for one in accounts
        for limit, used in zip(
            one.limits, ledger.shared(limits_at(one, now_ms), Weights(), now_ms, one.account).used, strict=True
        )
    ]
    if as_json:
        found = [
            {
                "account": one.account,
                "limit": limit_name(limit),
                "most": limit.limit / NANO if limit.unit == "USD" else limit.limit,
                "used": used / NANO if limit.unit == "USD" else used,
                "zone": one.zone,
            }
            for one, limit, used in rows
        ]
        click.echo(json.dumps(found, indent=2))
        return
    if not rows:
        click.echo("no account has limits")
        return
    columns = [
        TableColumn("account", [printable(one.account) for one, _, _ in rows], left=True),
        TableColumn("limit", [limit_name(limit) for _, limit, _ in rows], left=True),
        TableColumn("most", [limit.unit.show(limit.limit) for _, limit, _ in rows]),
        TableColumn("used", [limit.unit.show(used) for _, limit, used in rows]),
        TableColumn("%", [f"{used / limit.limit:.0%}".rstrip("%") for _, limit, used in rows]),
        TableColumn("zone", [printable(one.zone) for one, _, _ in rows], left=True),
    ]
    print_lines(table(columns, render_options()))
