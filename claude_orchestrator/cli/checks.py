"""What must be there before anything starts: the workspace, folders to work in, places to write.

What a path is, is asked of os.path: a Path raises OSError where a name is too long, or a folder closed.
"""

from __future__ import annotations

import os
from pathlib import Path

from claude_orchestrator.config.plan import Plan
from claude_orchestrator.errors import UserError


def check_workspace(workspace: Path) -> None:
    """Refuse a workspace that is missing or no folder."""
    if not os.path.exists(workspace):
        raise UserError(f"--workspace: {workspace}: no such folder")
    if not os.path.isdir(workspace):
        raise UserError(f"--workspace: {workspace}: not a folder")


def check_plan(plan: Plan, source: str) -> None:
    """Refuse a plan whose folders are missing; all of them at once."""
    errors = [
        f"{source}: instances[{spec.index}].cwd: {spec.cwd}: no such folder"
        for spec in plan.specs
        if not os.path.isdir(spec.cwd)
    ]
    if errors:
        raise UserError(*errors)


def check_output_dir(path: Path) -> None:
    """Refuse a folder that could not be made or written to; makes nothing."""
    fault = fault_of_place(path)
    if fault is not None:
        raise UserError(f"--output-dir: {path}: cannot be written: {fault}")


def fault_of_place(path: Path) -> str | None:
    """Why nothing could be made in or at that path; None where it could. Makes nothing."""
    existing = next(folder for folder in (path, *path.absolute().parents) if os.path.exists(folder))
    if not os.path.isdir(existing):
        return f"{existing} is not a folder"
    return None if os.access(existing, os.W_OK | os.X_OK) else "Permission denied"


def check_writable(option: str, path: Path) -> None:
    """Refuse a file that could not be written at the end of the run; tried now, by writing beside it."""
    import tempfile

    try:
        if path.is_dir():
            raise UserError(f"{option}: {path}: is a folder")
        if path.exists() and not path.is_file():  # a device or a pipe
            return
        with tempfile.NamedTemporaryFile(dir=path.parent or Path(), prefix=".claude-orchestrator-"):
            pass
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise UserError(f"{option}: {path}: cannot be written: {error.strerror or error}") from None
