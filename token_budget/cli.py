"""`token-budget`: reads the ledger, without running anything."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import click

from token_budget.text import Look, format_tokens, printable

if TYPE_CHECKING:
    from token_budget.ledger import Ledger

By = Literal["day", "command", "model", "run"]
APP = "claude-orchestrator"
FILE = click.Path(path_type=Path)


def default_ledger() -> Path:
    """Where the ledger is unless another is named."""
    return Path(click.get_app_dir(APP), "ledger.db")


def look() -> Look:
    """How text is to look here and now."""
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size((100, 24)).columns
    color = not os.environ.get("NO_COLOR") and (terminal or bool(os.environ.get("FORCE_COLOR")))
    encoding = sys.stdout.encoding or "utf-8"
    return Look(max(20, width), color, "█".encode(encoding, "ignore") == b"", True)


def _say(lines: list[str]) -> None:
    for line in lines:
        click.echo(line)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "TOKEN_BUDGET"})
@click.option("--ledger", type=FILE, metavar="FILE", help="The ledger.  [default: the one that runs write]")
@click.pass_context
def group(ctx: click.Context, ledger: Path | None) -> None:
    """What Claude instances have used, across runs: history, forecasts, profiles."""
    ctx.obj = ledger or default_ledger()


def _open(ctx: click.Context, *, create: bool = False) -> Ledger:
    from token_budget.ledger import Ledger

    opened = Ledger(ctx.obj, create=create)
    ctx.call_on_close(opened.close)
    return opened


def _since(text: str | None) -> int:
    if text is None:
        return 0
    from token_budget.history import since
    from token_budget.windows import to_ms

    return to_ms(since(text, datetime.now()))


# -- history --


@group.command()
@click.option("--by", type=click.Choice(get_args(By)), default="day", show_default=True)
@click.option("--since", metavar="WHEN", help="7d, 24h, 4w, 2026-11-01, today, month.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="As CSV.")
@click.pass_context
def history(ctx: click.Context, by: By, since: str | None, as_json: bool, as_csv: bool) -> None:
    """What was used, by day, command, model or run."""
    from token_budget import history as module

    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    rows = module.history(_open(ctx), by, since_ms=_since(since))
    if as_json:
        click.echo(json.dumps(module.as_json(rows), indent=2))
    elif as_csv:
        click.echo(module.as_csv(rows), nl=False)
    else:
        _say(module.render(rows, by, look()))


@group.command()
@click.argument("run_id")
@click.pass_context
def run(ctx: click.Context, run_id: str) -> None:
    """One run in detail: RUN_ID, or `last`."""
    from token_budget.history import run_detail

    _say(run_detail(_open(ctx), run_id, look()))


@group.command()
@click.argument("file", type=FILE)
@click.option("--since", metavar="WHEN", default="30d", show_default=True, help="From when on.")
@click.option("--daily", type=click.IntRange(1), metavar="N", help="A daily budget to draw beside it.")
@click.option("--weekly", type=click.IntRange(1), metavar="N", help="A weekly one.")
@click.option("--monthly", type=click.IntRange(1), metavar="N", help="A monthly one.")
@click.pass_context
def plot(ctx: click.Context, /, file: Path, since: str, **windows: int | None) -> None:
    """Draw use over time and by command into FILE.svg or FILE.html."""
    from token_budget import plot as module

    forms: dict[str, Literal["svg", "html"]] = {".svg": "svg", ".html": "html"}
    form = forms.get(file.suffix.lower())
    if form is None:
        raise click.UsageError(f"{file}: expected a name that ends in .svg or .html")
    budgets = [(f"{name} budget", name, limit) for name, limit in windows.items() if limit is not None]
    now_ms = int(time.time() * 1000)
    local: Callable[[int], datetime] = lambda ms: datetime.fromtimestamp(ms / 1000)  # noqa: E731
    text = module.plot(_open(ctx), _since(since), now_ms, local, form, budgets)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"{file}: cannot be written: {error.strerror or error}") from None


# -- forecasts --


@group.command()
@click.argument("command", required=False)
@click.option("--model", default="", metavar="MODEL", help="Runs with this model weigh more.")
@click.pass_context
def forecast(ctx: click.Context, command: str | None, model: str) -> None:
    """What a base command will use (all of them without COMMAND)."""
    from token_budget.forecast import forecast as forecast_of
    from token_budget.observations import observations

    ledger = _open(ctx)
    names = [command] if command else sorted({one.base_command or "" for one in observations(ledger)})
    if not names:
        click.echo("no finished instances in the ledger yet")
    for name in names:
        known, cost = (
            forecast_of(observations(ledger, name or None, money=money), name or None, model, time.time())
            for money in (False, True)
        )
        spent = f"; {cost.describe(money=True)} (an estimate)" if cost.known else ""
        click.echo(f"{printable(name or '(prompts)')}: {known.describe()}{spent}")


@group.command()
@click.pass_context
def backtest(ctx: click.Context) -> None:
    """How good forecasts would have been on this ledger's own past, beside the fixed estimate of 1,000 tokens."""
    from token_budget.forecast import backtest as backtest_of
    from token_budget.observations import observations

    found = backtest_of(observations(_open(ctx), everything=True))
    click.echo(f"{found.n:,} instances foretold, {found.n_unknown:,} without a forecast")
    for score in found.scores:
        click.echo(
            f"P{score.p * 100:.0f}: {score.covered:.1%} under it (to be: {score.p:.0%}), pinball loss "
            f"{score.loss_tokens:,.0f} tokens; fixed 1,000: {score.fixed_covered:.1%}, {score.fixed_loss_tokens:,.0f}"
        )


# -- profiles --


@group.group()
@click.option("--workspace", type=FILE, default=Path(), metavar="DIR", help="Where the project's file is.")
@click.pass_context
def profile(ctx: click.Context, workspace: Path) -> None:
    """Named sets of limits."""
    from token_budget.profiles import PROJECT_FILE, USER_FILE

    ctx.meta["files"] = (workspace / PROJECT_FILE, Path(click.get_app_dir(APP), USER_FILE))


def _target(ctx: click.Context, project: bool) -> Path:
    files: tuple[Path, Path] = ctx.meta["files"]
    return files[0] if project else files[1]


@profile.command("list")
@click.pass_context
def profile_list(ctx: click.Context) -> None:
    """All profiles, with their files and what they extend."""
    from token_budget.profiles import names

    for listed in names(ctx.meta["files"]):
        extends = f" extends {listed.extends}" if listed.extends else ""
        click.echo(printable(f"{listed.name}{extends} ({listed.file})"))


@profile.command("show")
@click.argument("name")
@click.pass_context
def profile_show(ctx: click.Context, name: str) -> None:
    """A profile's values, each with its origin."""
    from token_budget.profiles import describe, load

    _say([printable(line) for line in describe(load(name, ctx.meta["files"]))])


@profile.command("save")
@click.argument("name")
@click.option("--from-run", metavar="RUN_ID|last", help="A run's use plus a margin becomes the limits.")
@click.option("--margin", type=click.FloatRange(0, 10), default=0.25, show_default=True, help="A part of the use.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="A value, as JSON. Repeatable.")
@click.option("--project", is_flag=True, help="In the project's file, not the user's.")
@click.pass_context
def profile_save(
    ctx: click.Context, name: str, from_run: str | None, margin: float, pairs: tuple[str, ...], project: bool
) -> None:
    """Save a profile."""
    from token_budget.profiles import from_run as values_of
    from token_budget.profiles import save

    values: dict[str, object] = {}
    if from_run is not None:
        by_command = dict(_use_of_run(_open(ctx), from_run))
        commands = {key: tokens for key, tokens in by_command.items() if key is not None}
        values.update(values_of(sum(by_command.values()), commands, margin))
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator:
            raise click.UsageError(f"--set: expected KEY=VALUE, got {pair!r}")
        try:
            values[key.strip()] = json.loads(text)
        except ValueError:
            values[key.strip()] = text
    if not values:
        raise click.UsageError("nothing to save: give --from-run or --set")
    save(_target(ctx, project), name, values)
    click.echo(f"saved {printable(name)} in {printable(str(_target(ctx, project)))}")


def _use_of_run(ledger: Ledger, run_id: str) -> Iterator[tuple[str | None, int]]:
    runs = ledger.runs()
    if run_id == "last" and runs:
        run_id = runs[-1].run
    attempts = ledger.attempts(run=run_id)
    if not attempts:
        raise ValueError(f"--from-run: no run {run_id!r} in {ledger.path}")
    for command in {attempt.base_command for attempt in attempts}:
        yield command, sum(one.usage.total_tokens for one in attempts if one.base_command == command)


@profile.command("delete")
@click.argument("name")
@click.option("--project", is_flag=True, help="In the project's file, not the user's.")
@click.pass_context
def profile_delete(ctx: click.Context, name: str, project: bool) -> None:
    """Delete a profile; refused where another extends it."""
    from token_budget.profiles import delete

    delete(_target(ctx, project), name, ctx.meta["files"])
    click.echo(f"deleted {printable(name)}")


# -- in and out --


@group.command("export")
@click.argument("file", type=click.File("w", encoding="utf-8", lazy=False), default="-")
@click.option("--csv", "as_csv", is_flag=True, help="As CSV: records only, cannot be imported.")
@click.option("--prompts", is_flag=True, help="With prompts and commands' arguments.")
@click.pass_context
def export_command(ctx: click.Context, file: Any, as_csv: bool, prompts: bool) -> None:
    """Write the ledger as JSON lines, without prompts."""
    from token_budget import transfer

    ledger = _open(ctx)
    lines = transfer.export_csv(ledger) if as_csv else transfer.export(ledger, prompts=prompts, profiles=_profiles())
    for line in lines:
        file.write(line if line.endswith("\n") else line + "\n")


def _profiles() -> dict[str, object]:
    from token_budget.profiles import USER_FILE

    path = Path(click.get_app_dir(APP), USER_FILE)
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    profiles = found.get("profiles") if isinstance(found, dict) else None
    return profiles if isinstance(profiles, dict) else {}


@group.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8"), required=False)
@click.option("--from-claude", type=FILE, metavar="DIR", help="Claude Code's own transcripts, e.g. ~/.claude/projects.")
@click.option("--dry-run", is_flag=True, help="Show what is new, write nothing.")
@click.pass_context
def import_command(ctx: click.Context, file: Any, from_claude: Path | None, dry_run: bool) -> None:
    """Take in what another ledger exported, or what Claude Code itself has written; twice adds nothing."""
    from token_budget import transfer

    if (file is None) == (from_claude is None):
        raise click.UsageError("expected a FILE, or --from-claude DIR")
    ledger = _open(ctx, create=True)
    parcel = transfer.read(file, file.name) if from_claude is None else _from_claude(ledger, from_claude)
    found = transfer.diff(ledger, parcel) if dry_run else transfer.apply(ledger, parcel)
    said = "would add" if dry_run else "added"
    click.echo(
        f"{said} {found.new_runs:,} runs, {found.new_attempts:,} attempts, {found.new_records:,} records "
        f"({format_tokens(found.tokens)} tokens); {found.known_records:,} records were known"
    )
    if found.profiles and not dry_run:
        _take_profiles(parcel.profiles)


def _from_claude(ledger: Ledger, folder: Path) -> Any:
    from token_budget import pricing, transcripts
    from token_budget.transfer import Parcel

    if not folder.is_dir():
        raise ValueError(f"--from-claude: {folder}: no such folder")
    import platform

    prices = pricing.Prices() if pricing.available() else None
    if prices is None:
        click.echo(f"without {pricing.EXTRA} what is imported has no cost", err=True)
    sessions = transcripts.known_sessions(ledger)
    price = None if prices is None else prices.response
    found = transcripts.read_transcripts(folder, platform.node() or "unknown", price, known_sessions=sessions)
    for model in sorted(prices.unknown) if prices else ():
        click.echo(f"no price is known for the model {printable(model)}: its use has no cost", err=True)
    if found.skipped_lines:
        click.echo(f"{found.skipped_lines:,} broken lines were skipped", err=True)
    return Parcel(runs=found.runs, attempts=found.attempts, records=found.records)


def _take_profiles(profiles: Any) -> None:
    """Profiles that travelled: new names are saved, known ones stay as they are."""
    from token_budget.profiles import USER_FILE, save

    path, known = Path(click.get_app_dir(APP), USER_FILE), _profiles()
    for name, values in profiles.items():
        if name in known:
            click.echo(f"profile {printable(name)} is there already and stays as it is", err=True)
        else:
            save(path, name, values)


@group.command()
@click.option("--before", required=True, metavar="WHEN", help="90d, 2026-01-01: what ended before goes.")
@click.option("--yes", is_flag=True, help="Do it; without this it is only shown.")
@click.pass_context
def prune(ctx: click.Context, before: str, yes: bool) -> None:
    """Take old runs out of the ledger."""
    ledger = _open(ctx)
    before_ms = _since(before)
    old = [attempt for attempt in ledger.attempts() if (attempt.ended_ms or attempt.started_ms) < before_ms]
    tokens = sum(attempt.usage.total_tokens for attempt in old)
    if yes:
        gone = ledger.prune(before_ms)
        click.echo(f"removed {len(old):,} attempts, {gone:,} records ({format_tokens(tokens)} tokens)")
    else:
        click.echo(f"would remove {len(old):,} attempts ({format_tokens(tokens)} tokens); with --yes it is done")


def main() -> None:
    """The console script: runs the command and turns errors into exit codes."""
    from token_budget.ledger import LedgerError

    try:
        code = group.main(prog_name="token-budget", standalone_mode=False)
    except (LedgerError, ValueError) as error:
        for line in str(error).splitlines() or [repr(error)]:
            click.echo(f"ERROR: {printable(line)}", err=True)
        code = 2
    except click.ClickException as error:
        click.echo(f"ERROR: {printable(error.format_message())} (see token-budget --help)", err=True)
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code or 0)
