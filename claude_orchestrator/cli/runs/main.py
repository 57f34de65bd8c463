"""`claude-runs`: lists runs, shows them, and changes those that are at work."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec

import click

from claude_orchestrator.cli.console import run_script
from claude_orchestrator.cli.runs import completion
from token_budget.usage.console import port_option

if TYPE_CHECKING:
    from claude_orchestrator.engine.control.runs import FoundRun

_P = ParamSpec("_P")
PROGRAM = "claude-runs"
OUTPUT_DIR_VARIABLE = "CLAUDE_ORCHESTRATOR_OUTPUT_DIR"
_EPILOG = (
    "RUN is the id of a run, the beginning of one, or last. Exit codes: 0 done; 1 the run failed, or the program "
    "waited in vain; 2 bad usage, or the run cannot do that; 3 a bug; 130 interrupted."
)

run_argument = click.argument("run", metavar="RUN", shell_complete=completion.runs)
why_option = click.option("--why", default="", metavar="TEXT", help="The reason, which the run records.")


@click.group(invoke_without_command=True, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    envvar=OUTPUT_DIR_VARIABLE,
    help="The folder with the folders of runs.  [default: in the user's state directory]",
)
@click.version_option(package_name="claude-orchestrator", prog_name=PROGRAM, help="Show the version and exit.")
@click.pass_context
def group(ctx: click.Context, output_dir: Path | None) -> int:
    """See runs of claude-orchestrator, and change them while they run. Without a command, list them."""
    ctx.obj = output_dir
    if ctx.invoked_subcommand is not None:
        return 0
    from claude_orchestrator.cli.runs import show

    return show.list_runs(_output_dir(ctx), every=False, as_json=False)


def _output_dir(ctx: click.Context) -> Path:
    return completion.output_dir_of(ctx)


def of_run(command: Callable[Concatenate[FoundRun, _P], int]) -> Callable[..., int]:
    """Adds the argument RUN to a command, and passes the run that it names."""

    def with_run(ctx: click.Context, /, run: str, *args: _P.args, **options: _P.kwargs) -> int:
        from claude_orchestrator.engine.control.runs import find_run

        return command(find_run(_output_dir(ctx), run), *args, **options)

    functools.update_wrapper(with_run, command)
    return run_argument(click.pass_context(with_run))


# -- see --


@group.command("list")
@click.option("--all", "every", is_flag=True, help="List every run, not only the latest ones.")
@click.option("--json", "as_json", is_flag=True, help="Print each run as a line of JSON.")
@click.pass_context
def list_command(ctx: click.Context, every: bool, as_json: bool) -> int:
    """List runs with their states, tokens and costs."""
    from claude_orchestrator.cli.runs import show

    return show.list_runs(_output_dir(ctx), every=every, as_json=as_json)


@group.command("show")
@of_run
@click.option("--json", "as_json", is_flag=True, help="Print the whole run as JSON.")
def show_command(run: FoundRun, as_json: bool) -> int:
    """Show a run: its instances, budgets, approvals and latest decisions."""
    from claude_orchestrator.cli.runs import show

    return show.show_run(run, as_json=as_json)


@group.command("watch")
@of_run
@click.argument("instance", required=False, shell_complete=completion.instances)
def watch_command(run: FoundRun, instance: str | None) -> int:
    """Watch a run, or one instance of it, until it ends. q leaves, and the run continues."""
    from claude_orchestrator.cli.runs import watch

    return watch.watch(run, instance)


@group.command("logs")
@of_run
@click.argument("instance", metavar="INSTANCE", shell_complete=completion.instances)
@click.option("-f", "--follow", is_flag=True, help="Print what is added, until the instance ends.")
@click.option("--raw", is_flag=True, help="Print the lines of the log as claude wrote them.")
def logs_command(run: FoundRun, instance: str, follow: bool, raw: bool) -> int:
    """Print what an instance said, which tools it called, and what they returned."""
    from claude_orchestrator.cli.runs import logs

    return logs.print_log(run, instance, follow=follow, raw=raw)


@group.command("results")
@of_run
@click.argument("instance", required=False, shell_complete=completion.instances)
@click.option("--json", "as_json", is_flag=True, help="Print each result as a line of JSON.")
def results_command(run: FoundRun, instance: str | None, as_json: bool) -> int:
    """Print the answers of a run, or of one instance."""
    from claude_orchestrator.cli.runs import results

    return results.print_results(run, instance, as_json=as_json)


@group.command("open")
@of_run
@port_option
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@click.option("--read-only", is_flag=True, help="Let the page show the run, and not change it.")
def open_command(run: FoundRun, port: int, no_browser: bool, read_only: bool) -> int:
    """Open the page of a run in your browser. It needs the extra web."""
    from claude_orchestrator.cli.runs import open_page

    return open_page.open_page(run, port, browser=not no_browser, read_only=read_only)


@group.command("wait")
@of_run
@click.option("--success", is_flag=True, help="Exit with 1 unless every instance completed.")
@click.option("--timeout", metavar="TIME", help="Wait no longer than this, for example 90s or 2h. Then exit with 1.")
def wait_command(run: FoundRun, success: bool, timeout: str | None) -> int:
    """Wait until a run has ended."""
    from claude_orchestrator.cli.runs import waiting

    return waiting.wait(run, success=success, timeout=timeout)


# -- change --


@group.command("stop")
@of_run
@click.argument("instances", nargs=-1, shell_complete=completion.instances)
@click.option("--at-once", is_flag=True, help="Stop the whole run without grace time.")
@why_option
def stop_command(run: FoundRun, instances: tuple[str, ...], at_once: bool, why: str) -> int:
    """Stop instances or groups of a run. Without INSTANCES, stop the run."""
    from claude_orchestrator.cli.runs import steer

    return steer.stop(run, list(instances), at_once=at_once, why=why)


@group.command("pause")
@of_run
@why_option
def pause_command(run: FoundRun, why: str) -> int:
    """Launch nothing more. Instances that run continue."""
    from claude_orchestrator.cli.runs import steer

    return steer.pause(run, why)


@group.command("resume")
@of_run
@why_option
def resume_command(run: FoundRun, why: str) -> int:
    """Launch again after a pause."""
    from claude_orchestrator.cli.runs import steer

    return steer.resume(run, why)


@group.command("limit")
@of_run
@click.argument("limits", nargs=-1, required=True, metavar="BUDGET=LIMIT…", shell_complete=completion.budgets)
@why_option
def limit_command(run: FoundRun, limits: tuple[str, ...], why: str) -> int:
    """Change limits, for example overall=200k or /test=50k. Budgets in money take dollars."""
    from claude_orchestrator.cli.runs import steer

    return steer.limit(run, list(limits), why)


@group.command("parallel")
@of_run
@click.argument("number", metavar="N")
@why_option
def parallel_command(run: FoundRun, number: str, why: str) -> int:
    """Set how many instances run at once."""
    from claude_orchestrator.cli.runs import steer

    return steer.parallel(run, number, why)


# -- approvals --


@group.command("approvals")
@of_run
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def approvals_command(run: FoundRun, as_json: bool) -> int:
    """List the tools that wait until you approve them."""
    from claude_orchestrator.cli.runs import steer

    return steer.approvals(run, as_json=as_json)


@group.command("approve")
@of_run
@click.argument("ids", nargs=-1, required=True, metavar="ID…|all", shell_complete=completion.approvals)
@click.option("--always", is_flag=True, help="Also allow such calls for the rest of the run.")
@why_option
def approve_command(run: FoundRun, ids: tuple[str, ...], always: bool, why: str) -> int:
    """Approve tools, so that they run."""
    from claude_orchestrator.cli.runs import steer

    return steer.approve(run, list(ids), always=always, why=why)


@group.command("deny")
@of_run
@click.argument("ids", nargs=-1, required=True, metavar="ID…|all", shell_complete=completion.approvals)
@click.option("--message", default="", metavar="TEXT", help="What Claude reads as the answer.")
@why_option
def deny_command(run: FoundRun, ids: tuple[str, ...], message: str, why: str) -> int:
    """Deny tools. Claude continues without them."""
    from claude_orchestrator.cli.runs import steer

    return steer.deny(run, list(ids), message=message, why=why)


# -- what is left of a run --


@group.command("apply")
@of_run
@click.argument("names", nargs=-1, metavar="[NAME]…", shell_complete=completion.instances)
@click.option("--workspace", type=click.Path(path_type=Path), metavar="DIR", help="Apply them here instead.")
def apply_command(run: FoundRun, names: tuple[str, ...], workspace: Path | None) -> int:
    """Apply the changes from the worktrees of a run to the workspace, either all of them or none."""
    from claude_orchestrator.cli.apply import apply_changes
    from claude_orchestrator.ui.terminal import Terminal

    return apply_changes(run.path.parent, run.id, ",".join(names) or None, workspace, Terminal())


@group.command("prune")
@click.option("--before", required=True, metavar="WHEN", help="Runs that ended before, for example 30d or 2026-01-01.")
@click.option("--yes", is_flag=True, help="Remove them. Without --yes, the command only shows what it would remove.")
@click.pass_context
def prune_command(ctx: click.Context, before: str, yes: bool) -> int:
    """Remove the folders of old runs. Runs with worktrees stay."""
    from claude_orchestrator.cli.runs import prune

    return prune.prune(_output_dir(ctx), before, yes=yes)


def main() -> None:
    """The console script."""
    run_script(group, (PROGRAM,))
