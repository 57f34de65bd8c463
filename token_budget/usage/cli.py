"""`token-budget`: reads and manages the ledger and the profiles. It runs nothing."""

from __future__ import annotations

import gc
import io
import os
import sys
from pathlib import Path

import click

from token_budget.text import printable
from token_budget.usage.console import report_usage
from token_budget.usage.forecast_commands import backtest_command, forecast_command
from token_budget.usage.history_commands import history_command, plot_command, run_command
from token_budget.usage.ledger_commands import export_command, import_command, prune_command
from token_budget.usage.limit_commands import limit_group
from token_budget.usage.migrate_command import migrate_command
from token_budget.usage.profile_commands import profile_group
from token_budget.usage.reconcile_command import reconcile_command
from token_budget.usage.serve_command import serve_command

PROGRAM, DISTRIBUTION = "token-budget", "claude-orchestrator"


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version(DISTRIBUTION)
    except PackageNotFoundError:  # the source, not installed
        number = "(not installed)"
    click.echo(f"{PROGRAM} {number}")
    ctx.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "TOKEN_BUDGET"})
@click.option("--ledger", metavar="FILE|URL", help="The ledger to read.  [default: the one that runs write]")
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Show the version."
)
@click.pass_context
def group(ctx: click.Context, ledger: str | None) -> None:
    """Show what your runs have used, forecast what commands will use, and manage budget profiles."""
    ctx.obj = ledger


for command in (
    history_command,
    run_command,
    plot_command,
    serve_command,
    forecast_command,
    backtest_command,
    profile_group,
    reconcile_command,
    export_command,
    import_command,
    prune_command,
    limit_group,
    migrate_command,
):
    group.add_command(command)


def _open_standard_output() -> None:
    if sys.stdout is None:  # the shell has closed it (`>&-`)
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _script(argv0: str) -> tuple[str, str]:
    """The name that the program was called by, and the variable by which a shell asks that name for completion."""
    name = Path(argv0).name.removesuffix(".exe")
    name = PROGRAM if name in ("", "-c", "-m", "__main__.py") else name
    asked = (f"_{one}_COMPLETE".replace("-", "_").replace(".", "_").upper() for one in (name, PROGRAM))
    variables = list(asked)
    return name, next((variable for variable in variables if os.environ.get(variable)), variables[0])


def _complain(text: str) -> None:
    click.echo(f"ERROR: {printable(text)}", err=True)


def main() -> None:
    """The console script: runs the command and turns errors into exit codes."""
    from token_budget.ledger.errors import LedgerError

    _open_standard_output()
    name, variable = _script(sys.argv[0])
    try:
        code = group.main(prog_name=name, complete_var=variable, standalone_mode=False)
    except (LedgerError, ValueError) as error:
        for line in str(error).splitlines() or [repr(error)]:
            _complain(line)
        code = 2
    except click.ClickException as error:
        code = report_usage(error, name, _complain)
    except OSError as error:
        _complain(f"{error.filename or 'standard output'}: {error.strerror or error}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the rest goes there at exit, in silence
        code = 2
    except (click.Abort, KeyboardInterrupt):
        code = 130
    gc.freeze()  # a last collection would look through everything that was ever imported
    sys.exit(code or 0)
