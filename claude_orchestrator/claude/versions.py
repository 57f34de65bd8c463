"""Which claude is installed, and what its version can do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from claude_orchestrator.errors import UserError
from token_budget.named_tuples import NamedTuple

OLDEST_VERSION = (1, 0, 109)  # the first with --include-partial-messages (measured)
LIVE_COUNT_VERSION = (2, 1, 170)  # the first that answers get_usage (measured)
SAME_PROMPT_VERSION = (2, 1, 332)  # has one system prompt in all worktrees of a repository; 2.1.197 has not (measured)
# It announces this only to Anthropic's own address (measured in 2.1.332; 2.1.197 does not know it). No earlier version
# can: 2.1.239 is the first one of that day.
CLEAR_AT_VERSION, CLEAR_AT = (2, 1, 239), "mid-conversation-system-clear-at-2026-08-21"
VERSION_TIMEOUT_S = 15.0


def find_claude(given: str | None) -> str:
    """The path of the claude to run: `given` (a path, or a name on PATH), else `claude` on PATH. Raises UserError."""
    name = given or "claude"
    found = _program(name)
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
        "claude is not on PATH: install it with npm install -g @anthropic-ai/claude-code, name it with --claude-bin, "
        "or try --rehearse, which needs no claude"
    )


def _program(name: str) -> str | None:
    """The path of a program, as a shell finds it."""
    if sys.platform == "win32":
        import shutil  # it knows which extensions make a program there

        return shutil.which(name)
    folders = [""] if os.sep in name else os.get_exec_path()
    paths = (str(Path(folder, name)) for folder in folders)
    return next((path for path in paths if os.access(path, os.X_OK) and not os.path.isdir(path)), None)


class Version(NamedTuple):
    """What an older claude lacks, and whether its system prompt names the worktree that it works in.

    `leaves_out` is the name that its header `anthropic-beta` lacks at any address but Anthropic's own.
    """

    lacks: str | None = None
    names_worktree: bool = True
    leaves_out: str = ""


def check_version(claude: str) -> Version:
    """Refuse a claude that is too old, or that does not run.

    A claude that does not report its version is accepted.
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
        return Version()
    found, version = match[0].decode().strip(), tuple(map(int, match.groups()))
    if version < OLDEST_VERSION:
        oldest = ".".join(map(str, OLDEST_VERSION))
        raise UserError(f"{claude}: version {found} is too old: install {oldest} or newer")
    if version < LIVE_COUNT_VERSION:
        live = ".".join(map(str, LIVE_COUNT_VERSION))
        return Version(
            f"claude {found} cannot report its count while it works: before {live}, subagents count when their turn "
            "ends, and other users can read an append_system_prompt in the list of processes"
        )
    leaves_out = CLEAR_AT if version >= CLEAR_AT_VERSION else ""
    return Version(names_worktree=version < SAME_PROMPT_VERSION, leaves_out=leaves_out)
