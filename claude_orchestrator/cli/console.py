"""What the console scripts share: standard streams that are there, shell completion, and errors as exit codes."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from claude_orchestrator import __version__
from claude_orchestrator.errors import UserError
from token_budget.text import printable


def open_standard_streams() -> None:
    """Open those that the shell has closed (`>&-`), so that no other file gets their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            fd = os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            setattr(sys, name, os.fdopen(fd, "w" if number else "r"))


def script_name(argv0: str, environ: Mapping[str, str], scripts: Sequence[str]) -> tuple[str, str]:
    """The name that a program was called by, and the variable with which a shell asks that name for completion.

    `scripts` are the names under which it is installed, the usual one first.
    """
    name = Path(argv0).name.removesuffix(".exe")
    name = scripts[0] if name in ("", "-c", "-m", "__main__.py") else name
    variables = {
        f"_{script}_COMPLETE".replace("-", "_").replace(".", "_").upper(): script for script in (name, *scripts)
    }
    asked = next((variable for variable in variables if environ.get(variable)), None)
    return (variables[asked], asked) if asked else (name, next(iter(variables)))


def _complain(text: str) -> None:
    line = f"ERROR: {printable(text)}"
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from claude_orchestrator.ui.ci.workflow_commands import annotation

        line = annotation("ERROR", text)
    click.echo(line, err=True)


def run_script(command: click.Command, scripts: Sequence[str]) -> None:
    """Run a command as a console script: it ends this process with an exit code."""
    open_standard_streams()
    name, variable = script_name(sys.argv[0], os.environ, scripts)
    try:
        code = command.main(prog_name=name, complete_var=variable, standalone_mode=False)
    except UserError as error:
        for line in error.lines:
            _complain(line)
        code = 2
    except click.ClickException as error:
        from token_budget.usage.console import report_usage  # only here: no start of the program needs it

        code = report_usage(error, name, _complain)
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        from claude_orchestrator.engine import run_inputs

        if run_inputs.is_ledger_error(error):
            _complain(f"--ledger: {error}")
            sys.exit(2)
        if isinstance(error, click.Abort) and not isinstance(error.__cause__, EOFError):
            sys.exit(130)  # click's word for Ctrl-C, but also for an EOFError
        import traceback

        traceback.print_exc()
        text = f"this is a bug in {scripts[0]} {__version__}: please report it with the text above"
        _complain(text)
        code = 3
    gc.freeze()  # a last collection would look through everything that was ever imported
    sys.exit(code or 0)
