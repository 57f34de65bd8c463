"""`token-budget reconcile`."""

from __future__ import annotations

import json
import time

import click

from token_budget.usage.console import open_ledger, print_lines, render_options, since_ms

DAY_MS, HOUR_MS = 86_400_000, 3_600_000


@click.command("reconcile")
@click.option(
    "--since", metavar="WHEN", default="7d", show_default=True, help="Begin with the day in UTC that this moment is in."
)
@click.option("--api-key-id", multiple=True, metavar="ID", help="Compare with the use of this API key only.")
@click.option("--workspace-id", multiple=True, metavar="ID", help="Compare with the use of this workspace only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def reconcile_command(
    ctx: click.Context, since: str, api_key_id: tuple[str, ...], workspace_id: tuple[str, ...], as_json: bool
) -> None:
    """Compare the ledger with what Anthropic has counted, by model and day.

    Needs an admin key in ANTHROPIC_ADMIN_API_KEY. Reads only.
    """
    from token_budget.usage.reconciling import compare
    from token_budget.usage.reconciling.admin_api import AdminApi

    api, ledger = AdminApi.of(), open_ledger(ctx)
    begin_ms = since_ms(since) // DAY_MS * DAY_MS
    end_ms = int(time.time() * 1000) // HOUR_MS * HOUR_MS
    if end_ms <= begin_ms:
        raise ValueError("--since: the current hour cannot be compared yet: begin earlier")
    today_ms = end_ms // DAY_MS * DAY_MS
    spaces = [("workspace_ids[]", one) for one in workspace_id]
    keys = [("api_key_ids[]", one) for one in api_key_id]
    counted = list(api.usage(begin_ms, end_ms, [*spaces, *keys]))
    # the cost report knows workspaces, but no keys
    costs = list(api.costs(begin_ms, today_ms)) if today_ms > begin_ms and not (keys or spaces) else []
    ours = ledger.sums("model", since_ms=begin_ms, until_ms=end_ms, by_time=True)
    pairs = compare.compare(ours, counted, costs, today_ms)
    if as_json:
        click.echo(json.dumps(compare.as_json(pairs, begin_ms, end_ms), indent=2))
    else:
        print_lines(compare.render(pairs, render_options()))
