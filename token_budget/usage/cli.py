"""`token-budget`: reads the ledger, without running anything."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import click

from token_budget import places
from token_budget.files import write_atomically
from token_budget.text import RenderOptions, encodable, format_tokens, printable

if TYPE_CHECKING:
    from token_budget.ledger.import_reader import Parcel
    from token_budget.ledger.sqlite import SqliteLedger

By = Literal["day", "command", "model", "run"]
FILE = click.Path(path_type=Path)
HELP_ALONE = getattr(click.exceptions, "NoArgsIsHelpError", ())  # before 8.2 click shows the help and raises nothing


def render_options() -> RenderOptions:
    """How to render text on this standard output."""
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size((100, 24)).columns
    color = not os.environ.get("NO_COLOR") and (terminal or bool(os.environ.get("FORCE_COLOR")))
    encoding = sys.stdout.encoding or "utf-8"
    return RenderOptions(max(20, width), color, "█".encode(encoding, "ignore") == b"", True)


def _say(lines: list[str]) -> None:
    for line in lines:
        click.echo(line, color=True)  # the renderer has decided about colours


def write_whole(file: Path, lines: Iterable[str]) -> None:
    """Write text as `write_atomically` does. Raises ValueError with a line for the user."""
    try:
        write_atomically(file, (line.encode() for line in lines))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ValueError(f"{file}: cannot be written: {error.strerror or error}") from None


@click.group(context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "TOKEN_BUDGET"})
@click.option("--ledger", type=FILE, metavar="FILE", help="The ledger.  [default: the one that runs write]")
@click.pass_context
def group(ctx: click.Context, ledger: Path | None) -> None:
    """What Claude instances have used, across runs: history, forecasts, profiles."""
    ctx.obj = ledger


def _ledger_file(ctx: click.Context) -> Path:
    if ctx.obj is None:
        ctx.obj = places.ledger_file(lambda line: click.echo(printable(line), err=True))
    file: Path = ctx.obj
    return file


def _open(ctx: click.Context, *, create: bool = False) -> SqliteLedger:
    from token_budget.ledger.sqlite import SqliteLedger

    opened = SqliteLedger(_ledger_file(ctx), create=create)
    ctx.call_on_close(opened.close)
    return opened


def _since(text: str | None, option: str = "--since") -> int:
    if text is None:
        return 0
    from token_budget.usage.history import since

    return since(text, datetime.now(), option)


# -- history --


@group.command()
@click.option("--by", type=click.Choice(get_args(By)), default="day", show_default=True)
@click.option("--since", metavar="WHEN", help="7d, 24h, 4w, 2026-11-01, today, month.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="As CSV.")
@click.pass_context
def history(ctx: click.Context, by: By, since: str | None, as_json: bool, as_csv: bool) -> None:
    """What was used, by day, command, model or run."""
    from token_budget.usage import history as module

    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    rows = module.history(_open(ctx), by, since_ms=_since(since))
    if as_json:
        click.echo(json.dumps(module.as_json(rows), indent=2))
    elif as_csv:
        click.echo(module.as_csv(rows), nl=False)
    else:
        _say(module.render(rows, by, render_options()))


@group.command()
@click.argument("run_id")
@click.pass_context
def run(ctx: click.Context, run_id: str) -> None:
    """One run in detail: RUN_ID, or `last`."""
    from token_budget.usage.history import run_detail

    _say(run_detail(_open(ctx), encodable(run_id), render_options()))


@group.command()
@click.argument("file", type=FILE)
@click.option("--since", metavar="WHEN", default="30d", show_default=True, help="From when on.")
@click.option("--daily", type=click.IntRange(1), metavar="N", help="A daily budget to draw beside it.")
@click.option("--weekly", type=click.IntRange(1), metavar="N", help="A weekly one.")
@click.option("--monthly", type=click.IntRange(1), metavar="N", help="A monthly one.")
@click.pass_context
def plot(ctx: click.Context, /, file: Path, since: str, **windows: int | None) -> None:
    """Draw use over time and by command into FILE.svg or FILE.html."""
    from token_budget.usage import plot as module
    from token_budget.usage.history import local_time

    forms: dict[str, Literal["svg", "html"]] = {".svg": "svg", ".html": "html"}
    form = forms.get(file.suffix.lower())
    if form is None:
        raise click.UsageError(f"{file}: expected a name that ends in .svg or .html")
    budgets = [(f"{name} budget", name, limit) for name, limit in windows.items() if limit is not None]
    now_ms = int(time.time() * 1000)
    write_whole(file, [module.plot(_open(ctx), _since(since), now_ms, local_time, form, budgets)])


# -- forecasts --


@group.command()
@click.argument("command", required=False)
@click.option("--model", default="", metavar="MODEL", help="Runs with this model weigh more.")
@click.pass_context
def forecast(ctx: click.Context, command: str | None, model: str) -> None:
    """Forecast what COMMAND will use: a command, or an instance with a plain prompt by its name."""
    from token_budget.forecast import forecast as forecast_of
    from token_budget.ledger.samples import SampleReader, subject_of
    from token_budget.models import Unit
    from token_budget.usage.history import find_subject

    ledger = _open(ctx)
    reader = SampleReader(ledger)
    asked = command and command.strip()
    subjects = [find_subject(ledger, encodable(asked))] if asked else reader.subjects()
    if not subjects:
        click.echo("no finished instances in the ledger yet")
    for base_command, instance in subjects:
        subject = subject_of(base_command, instance)
        known, cost = (
            forecast_of(reader.of(base_command, instance, unit), subject, model, time.time()) for unit in Unit
        )
        spent = f"; {cost.describe(Unit.USD)} (an estimate)" if cost.known else ""
        click.echo(f"{printable(subject)}: {known.describe()}{spent}")


@group.command()
@click.pass_context
def backtest(ctx: click.Context) -> None:
    """How good forecasts would have been on this ledger's own past, beside the fixed estimate of 1,000 tokens."""
    from token_budget.forecast import backtest as backtest_of
    from token_budget.ledger.samples import SampleReader

    found = backtest_of(SampleReader(_open(ctx)).all())
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
    from token_budget.usage.profiles import PROJECT_FILE

    ctx.meta["files"] = (workspace / PROJECT_FILE, places.profiles_file())


def _target(ctx: click.Context, project: bool) -> Path:
    files: tuple[Path, Path] = ctx.meta["files"]
    return files[0] if project else files[1]


@profile.command("list")
@click.pass_context
def profile_list(ctx: click.Context) -> None:
    """All profiles, with their files and what they extend."""
    from token_budget.usage.profiles import names

    for listed in names(ctx.meta["files"]):
        extends = f" extends {listed.extends}" if listed.extends else ""
        click.echo(printable(f"{listed.name}{extends} ({listed.file})"))


@profile.command("show")
@click.argument("name")
@click.pass_context
def profile_show(ctx: click.Context, name: str) -> None:
    """A profile's values, each with its origin."""
    from token_budget.usage.profiles import describe, load

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
    """Save a profile, in place of a whole one of that name."""
    from token_budget.usage.profiles import from_run as values_of
    from token_budget.usage.profiles import save

    values: dict[str, object] = {}
    if from_run is not None:
        used, weights = _use_of_run(_open(ctx), from_run)
        commands = {command: tokens for command, tokens in used.items() if command is not None}
        values.update(values_of(sum(used.values()), commands, margin))
        if weights != "flat":
            values["token_weights"] = weights
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator:
            raise click.UsageError(f"--set: expected KEY=VALUE, got '{pair}'")
        values[key.strip()] = _value(text)
    if not values:
        raise click.UsageError("nothing to save: give --set, or --from-run with a run that has used tokens")
    file = _target(ctx, project)
    said = "replaced" if save(file, name, values, ctx.meta["files"]) else "saved"
    click.echo(f"{said} {printable(name)} in {printable(str(file))}")


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _use_of_run(ledger: SqliteLedger, run_id: str) -> tuple[Counter[str | None], str]:
    """What each base command drew from the run's budgets, and by which weights."""
    from token_budget.usage.history import find_run, weights_of

    run = find_run(ledger, encodable(run_id), "--from-run")
    used, weights = Counter[str | None](), weights_of(run)
    for attempt in ledger.attempts(run=run.run):
        used[attempt.base_command] += weights.draw(attempt.usage)
    return used, weights.describe()


@profile.command("delete")
@click.argument("name")
@click.option("--project", is_flag=True, help="In the project's file, not the user's.")
@click.pass_context
def profile_delete(ctx: click.Context, name: str, project: bool) -> None:
    """Delete a profile; refused where another extends it."""
    from token_budget.usage.profiles import delete

    delete(_target(ctx, project), name, ctx.meta["files"])
    click.echo(f"deleted {printable(name)}")


# -- in and out --


@group.command("export")
@click.argument("file", type=FILE, default="-")
@click.option("--csv", "as_csv", is_flag=True, help="As CSV: records only, cannot be imported.")
@click.option("--prompts", is_flag=True, help="With prompts and commands' arguments.")
@click.pass_context
def export_command(ctx: click.Context, file: Path, as_csv: bool, prompts: bool) -> None:
    """Write the ledger as JSON lines, without prompts, into FILE or to standard output."""
    from token_budget.ledger import export_import
    from token_budget.usage import profiles

    ledger = _open(ctx)
    if _is_of_ledger(file, ledger.path):
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


@group.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8"), required=False)
@click.option("--from-claude", type=FILE, metavar="DIR", help="Claude Code's own transcripts, e.g. ~/.claude/projects.")
@click.option("--dry-run", is_flag=True, help="Show what is new, write nothing.")
@click.pass_context
def import_command(ctx: click.Context, file: Any, from_claude: Path | None, dry_run: bool) -> None:
    """Take in what another ledger exported, or what Claude Code itself has written; twice adds nothing."""
    from token_budget.ledger import export_import, import_reader
    from token_budget.usage import profiles

    if (file is None) == (from_claude is None):
        raise click.UsageError("expected a FILE, or --from-claude DIR")
    ledger = _open(ctx) if _ledger_file(ctx).exists() else None
    parcel = import_reader.read(file, file.name) if from_claude is None else _from_claude(ledger, from_claude)
    known = {one.name for one in profiles.names([places.profiles_file()])} if parcel.profiles else set()
    profiles.check(parcel.profiles, Path(file.name) if file else places.profiles_file())
    if dry_run:
        found, said = export_import.diff(ledger, parcel), "would add"
    else:
        found, said = export_import.apply(ledger or _open(ctx, create=True), parcel), "added"
    click.echo(
        f"{said} {found.new_runs:,} runs, {found.new_attempts:,} attempts, {found.new_records:,} records "
        f"({format_tokens(found.tokens)} tokens); {found.known_records:,} records were known"
    )
    if found.other_records:
        click.echo(f"{found.other_records:,} records are there with other figures and stay as they are", err=True)
    for name in sorted(known.intersection(found.profiles)):
        click.echo(f"profile {printable(name)} is there already and stays as it is", err=True)
    new = {name: values for name, values in parcel.profiles.items() if name not in known}
    if new and not dry_run:
        profiles.save_all(places.profiles_file(), new)


def _from_claude(ledger: SqliteLedger | None, folder: Path) -> Parcel:
    from token_budget import pricing
    from token_budget.ledger import transcripts
    from token_budget.ledger.import_reader import Parcel

    if not folder.is_dir():
        raise ValueError(f"--from-claude: {folder}: no such folder")
    import platform

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
        click.echo(f"{found.skipped_lines:,} broken lines were skipped", err=True)
    if found.known_responses:
        click.echo(f"{found.known_responses:,} responses were left out: runs of ours have counted them", err=True)
    return Parcel(runs=found.runs, attempts=found.attempts, records=found.records)


@group.command()
@click.option("--before", required=True, metavar="WHEN", help="90d, 2026-01-01: what ended before goes.")
@click.option("--yes", is_flag=True, help="Do it; without this it is only shown.")
@click.pass_context
def prune(ctx: click.Context, before: str, yes: bool) -> None:
    """Take old runs out of the ledger."""
    ledger = _open(ctx)
    moments = _since(before, "--before"), int(time.time() * 1000)
    attempts, tokens = ledger.prunable(*moments)
    if yes:
        gone = ledger.prune(*moments)
        click.echo(f"removed {attempts:,} attempts, {gone:,} records ({format_tokens(tokens)} tokens)")
    else:
        click.echo(f"would remove {attempts:,} attempts ({format_tokens(tokens)} tokens); with --yes it is done")


def main() -> None:
    """The console script: runs the command and turns errors into exit codes."""
    from token_budget.ledger.store import LedgerError

    if sys.stdout is None:  # the shell has closed it (`>&-`)
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        code = group.main(prog_name="token-budget", standalone_mode=False)
    except (LedgerError, ValueError) as error:
        for line in str(error).splitlines() or [repr(error)]:
            click.echo(f"ERROR: {printable(line)}", err=True)
        code = 2
    except click.ClickException as error:
        if isinstance(error, HELP_ALONE):
            error.show()
        else:
            click.echo(f"ERROR: {printable(error.format_message())} (see token-budget --help)", err=True)
        code = error.exit_code
    except OSError as error:
        click.echo(f"ERROR: {printable(str(error.filename or 'standard output'))}: {error.strerror or error}", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where the rest goes at exit, in silence
        code = 2
    except (click.Abort, KeyboardInterrupt):
        code = 130
    sys.exit(code or 0)
