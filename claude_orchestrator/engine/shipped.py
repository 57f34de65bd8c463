"""Instances whose repository travels to nodes: each has a worktree here, which is the home of its work."""

from __future__ import annotations

from pathlib import Path

from claude_orchestrator.config.config import Config, InstanceConfig
from claude_orchestrator.config.fields import SHIP
from claude_orchestrator.config.placeholders import Template
from claude_orchestrator.engine.loading import Loaded
from claude_orchestrator.errors import UserError
from claude_orchestrator.launch.shipping import check_size, snapshot
from token_budget.named_tuples import NamedTuple

OPTION = f"--cluster-workspace {SHIP}"


class Shipped(NamedTuple):
    """The config of a run whose repositories travel, and the bases of worktrees that lack nothing of the workspace."""

    config: Config
    complete: frozenset[str | None] = frozenset()


def as_shipped(loaded: Loaded) -> Shipped:
    """The config with a worktree for each instance, which begins with all that is there, committed or not.

    One that has a base begins with that. Raises UserError. A dry run has no such commits, because it writes nothing.
    """
    if loaded.options["rehearse"]:  # nothing works in a folder
        return Shipped(loaded.config)
    if loaded.options["cluster"] is None and loaded.earlier is None:
        raise UserError(f"{OPTION}: needs --cluster")
    commits: dict[Path, str | None] = {}
    faults: dict[str, None] = {}
    for entry in loaded.config.instances:
        folder = _folder(loaded.workspace, entry)
        if entry.base is None and folder not in commits:
            try:
                commits[folder] = snapshot(folder) if loaded.options.may_write else None
                check_size(folder, commits[folder] or "HEAD")
            except OSError as error:
                faults[f"{OPTION}: {folder}: {error.strerror or error}"] = None
    if faults:
        raise UserError(*faults)
    instances = tuple(
        entry._replace(
            worktree=entry.worktree or True,
            base=commits[_folder(loaded.workspace, entry)] if entry.base is None else entry.base,
        )
        for entry in loaded.config.instances
    )
    # the others that name no commit yet begin with the work of another instance
    return Shipped(loaded.config._replace(instances=instances), frozenset((None, *commits.values())))


def _folder(workspace: Path, entry: InstanceConfig) -> Path:
    """Where an instance works; the workspace if that is not known yet."""
    return workspace if entry.cwd is None or isinstance(entry.cwd, Template) else workspace / entry.cwd
