"""`--apply`: brings the changes of a run's instances into the workspace."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from claude_orchestrator.config.given import Options
from claude_orchestrator.engine.earlier_runs import reopen_run
from claude_orchestrator.engine.journal_history import EarlierInstance
from claude_orchestrator.engine.state import State
from claude_orchestrator.engine.worktrees.patches import Patch, apply_patches, count_files
from claude_orchestrator.errors import UserError
from claude_orchestrator.ui.terminal import Terminal
from token_budget import places
from token_budget.text import counted, printable
from token_budget.usage.json_file import JsonFileError, read_bytes

MAX_PATCH_BYTES = 4 * 1024 * 1024 * 1024


def apply(options: Options, terminal: Terminal) -> int:
    """Apply the changes; returns 0 if all were applied, and 1 if none was because of a conflict. Raises UserError."""
    if options.prompt is not None or options["resume"] is not None:
        raise UserError("--apply: excludes PROMPT and --resume")
    output_dir = options["output_dir"] or places.runs_dir(terminal.warn, move=False)
    workspace = options["workspace"].absolute() if "workspace" in options.given else None
    return apply_changes(output_dir, options["apply"], options["only"], workspace, terminal)


def apply_changes(output_dir: Path, run_id: str, only: str | None, workspace: Path | None, terminal: Terminal) -> int:
    """Apply the changes of a run to a workspace, or to its own; see `apply`. Raises UserError."""
    run = reopen_run(output_dir, run_id, terminal.warn, rehearsal=False, verb="apply")
    run.journal.close()
    run.directory.close()
    history = run.history
    workspace = workspace or Path(history.header["workspace"])
    chosen = chosen_of(list(history.instances.values()), only)
    if not chosen:
        raise UserError(f"--apply: no instance of run {run.directory.path.name} completed with changes in a worktree")
    patches = [Patch(instance.name, _read(instance)) for instance in chosen]
    try:
        conflicts = apply_patches(workspace, patches)
        files = 0 if conflicts else count_files(workspace, patches)
    except OSError as error:
        raise UserError(f"--apply: {workspace}: {error.strerror or error}: nothing was changed") from None
    for instance, why, names in conflicts:
        where = f": {', '.join(names)}" if names else ""
        terminal.message("ERROR", f"{instance}: {why}{where}")
    if conflicts:
        terminal.message("ERROR", "nothing was changed; --only NAME,… chooses instances")
        return 1
    named = ", ".join(printable(patch.instance) for patch in patches)
    terminal.print([f"applied the changes of {named}: {counted(files, 'file')} in {workspace}"])
    return 0


def chosen_of(instances: Sequence[EarlierInstance], only: str | None) -> list[EarlierInstance]:
    """The instances whose changes are applied: those that are named, else all that completed with changes.

    The name of a group means all its instances with changes. Raises UserError for a name without changes.
    """
    if only is None:
        return [one for one in instances if one.changes is not None and one.state is State.COMPLETED]
    chosen: dict[str, EarlierInstance] = {}
    for name in _names(only):
        named = [one for one in instances if one.name == name or one.name.startswith((f"{name}[", f"{name}#"))]
        if not named:
            raise UserError(f"--only: the run has no instance called {name!r}")
        changed = [one for one in named if one.changes is not None]
        if not changed:
            raise UserError(f"--only: {name}: it changed nothing in a worktree")
        chosen |= {one.name: one for one in changed}
    return list(chosen.values())


def _names(text: str) -> Iterator[str]:
    """The names in a list with commas; a comma inside brackets belongs to a name."""
    yield from (name for part in re.findall(r"(?:\[[^\]]*\]|[^,])+", text) if (name := part.strip()))


def _read(instance: EarlierInstance) -> bytes:
    changes = instance.changes
    if changes is None or changes.patch is None:
        raise UserError(f"--apply: {instance.name}: its patch could not be written: its work is in a worktree")
    try:
        return read_bytes(Path(changes.patch), MAX_PATCH_BYTES)
    except OSError as error:
        raise UserError(f"--apply: {changes.patch}: cannot be read: {error.strerror or error}") from None
    except JsonFileError as error:
        raise UserError(f"--apply: {changes.patch}: {error}") from None
