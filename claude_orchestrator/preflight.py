"""What must be there before anything starts: the workspace, claude, files to read, places to write.

What a path is, is asked of os.path: a Path raises OSError where a name is too long, or a folder closed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from claude_orchestrator.errors import UserError
from claude_orchestrator.plan import Plan

OLDEST_VERSION = (1, 0, 109)  # the first with --include-partial-messages (measured)
LIVE_COUNT_VERSION = (2, 1, 170)  # the first that answers get_usage (measured)
VERSION_TIMEOUT_S = 15.0


def find_claude(given: str | None) -> str:
    """The path of the claude to run: `given` (a path, or a name on PATH), else `claude` on PATH. Raises UserError."""
    name = given or "claude"
    found = shutil.which(name)
    if found is not None:
        return str(Path(found).absolute())
    path = Path(name).expanduser()
    if given and os.path.isdir(path):
        raise UserError(f"--claude-bin: {name}: is a folder, not an executable")
    if given and os.path.exists(path):
        raise UserError(f"--claude-bin: {name}: not executable")
    if given:
        raise UserError(f"--claude-bin: {name}: no such file")
    raise UserError(
        "claude is not on PATH: install it (npm install -g @anthropic-ai/claude-code), name it with --claude-bin, "
        "or try --rehearse, which needs none"
    )


def check_version(claude: str) -> str | None:
    """Refuse a claude that is too old, or that does not run; returns what an older one lacks.

    One that does not say its version is let pass.
    """
    try:
        done = subprocess.run(
            [claude, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=VERSION_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{claude}: no answer to --version within {VERSION_TIMEOUT_S:g} s") from None
    except OSError as error:
        raise UserError(f"{claude}: cannot be run: {error.strerror or error}") from None
    match = re.match(rb"\s*(\d+)\.(\d+)\.(\d+)", done.stdout)
    if not match:
        return None
    found, version = match[0].decode().strip(), tuple(map(int, match.groups()))
    if version < OLDEST_VERSION:
        oldest = ".".join(map(str, OLDEST_VERSION))
        raise UserError(f"{claude}: version {found} is too old, at least {oldest} is needed")
    if version < LIVE_COUNT_VERSION:
        live = ".".join(map(str, LIVE_COUNT_VERSION))
        return (
            f"claude {found} cannot be asked for its count: before {live} subagents are counted when their turn ends, "
            "and an append_system_prompt can be read in the machine's list of processes"
        )
    return None


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
