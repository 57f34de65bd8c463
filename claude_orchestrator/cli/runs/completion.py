"""What a shell offers after Tab: runs, instances, budgets, approvals. It never fails, and never prints."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

LATEST = 50  # runs that are offered


def output_dir_of(ctx: click.Context) -> Path:
    """The folder with the runs that the user means."""
    given = ctx.find_root().obj or ctx.find_root().params.get("output_dir")
    if given is not None:
        return Path(given)
    from token_budget import places

    return places.runs_dir(lambda line: None, move=False)


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files and folders, which the shell itself finds."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def _completer(find: Callable[[click.Context], Iterable[str]]) -> Callable[..., list[str]]:
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        with contextlib.suppress(Exception):
            return [one for one in find(ctx) if one.startswith(incomplete)]
        return []

    return complete


def _run_ids(ctx: click.Context) -> Iterable[str]:
    from claude_orchestrator.engine.control.runs import run_names

    return ["last", *reversed(run_names(output_dir_of(ctx))[-LATEST:])]


def _status(ctx: click.Context) -> dict[str, Any]:
    from claude_orchestrator.engine.control.runs import find_run, status_of

    return status_of(find_run(output_dir_of(ctx), ctx.params["run"]))


def _profiles(ctx: click.Context) -> Iterable[str]:
    from token_budget import places
    from token_budget.usage.profiles import PROJECT_FILE, names

    workspace = Path(ctx.params.get("workspace") or ".")
    return [listed.name for listed in names((workspace / PROJECT_FILE, places.profiles_file()))]


def _commands(ctx: click.Context) -> Iterable[str]:
    from claude_orchestrator.claude.commands import discover_here

    return [f"/{info.name.removeprefix('/')}" for info in discover_here(Path(ctx.params.get("workspace") or "."))]


def _instances(ctx: click.Context) -> Iterable[str]:
    rows = _status(ctx)["instances"]
    return dict.fromkeys(name for row in rows for name in (row["group"], row["name"]) if name)


runs = _completer(_run_ids)
profiles = _completer(_profiles)
commands = _completer(_commands)
instances = _completer(_instances)
budgets = _completer(lambda ctx: [f"{budget['label']}=" for budget in _status(ctx)["budgets"]])
approvals = _completer(lambda ctx: ["all", *(ask["id"] for ask in _status(ctx)["approvals"])])
