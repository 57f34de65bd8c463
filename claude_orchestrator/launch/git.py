"""Runs git without the user's hooks, pagers, filters of text and prompts."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO

# what would change what git writes or reads, and what would run programs
_CONFIG = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.autocrlf": "false",
    "core.safecrlf": "false",
    "core.quotePath": "true",
    "commit.gpgSign": "false",
    "submodule.recurse": "false",
    "advice.addEmbeddedRepo": "false",
    "apply.whitespace": "nowarn",
    "apply.ignoreWhitespace": "no",
    "gc.auto": "0",
    "user.name": "claude-orchestrator",
    "user.email": "claude-orchestrator@localhost",
    "user.useConfigOnly": "false",
}
# set where git itself runs the orchestrator, in a hook; they name another repository
LEADING_ASTRAY = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX",
    "GIT_NAMESPACE", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_EXTERNAL_DIFF", "GIT_CONFIG_PARAMETERS",
)  # fmt: skip


_FILTER_ENDED = "fatal: the remote end hung up unexpectedly"  # why is in the line before, such as a missing git-lfs


# git says no more of a full disk
_UNWRITTEN = ("unable to write file", "unknown write failure on standard output", "Out of diskspace")


class GitError(OSError):
    """A git command failed. The text is one line in git's own words. `detail` has its whole output."""

    detail = ""


def git(
    folder: str | Path,
    *args: str | Path,
    index: Path | None = None,
    stdin: bytes | None = None,
    stdout: IO[bytes] | None = None,
    keep: tuple[str, ...] = (),
) -> bytes:
    """The output of a git command in that folder. Raises GitError.

    `index` replaces the index of the folder. `keep` names those of `_CONFIG` that stay as the user has them.
    """
    config = [word for name, value in _CONFIG.items() if name not in keep for word in ("-c", f"{name}={value}")]
    environ = {name: value for name, value in os.environ.items() if name not in LEADING_ASTRAY}
    environ |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
    if index is not None:
        environ["GIT_INDEX_FILE"] = str(index)
    try:
        done = subprocess.run(
            ["git", *config, "-C", str(folder), *map(str, args)],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE,
            env=environ,
            check=False,
            start_new_session=sys.platform != "win32",  # Ctrl-C must not keep changes from being saved
        )
    except FileNotFoundError as error:
        why = "git is not installed" if error.filename == "git" else f"{folder}: no such folder"
        raise GitError(why) from None
    if done.returncode != 0:
        fault = GitError(_reason(done.stderr) or f"git {args[0]} ended with exit code {done.returncode}")
        fault.detail = done.stderr.decode("utf-8", "replace")
        raise fault
    return done.stdout or b""


def line(folder: str | Path, *args: str | Path, index: Path | None = None) -> str:
    """The output of a git command, as one line of text. Raises GitError."""
    return os.fsdecode(git(folder, *args, index=index)).rstrip("\n")


def head_of(folder: str | Path) -> str:
    """The commit of HEAD. Raises GitError, also where nothing is committed yet."""
    try:
        return line(folder, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    except GitError:
        raise GitError("the repository has no commit yet: commit something first") from None


def copy_index(folder: str | Path, index: Path) -> None:
    """Make `index` a copy of the folder's index, or one of HEAD if the folder has none. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):  # a full disk must be named
        # with its time: git trusts an entry that is older than the index, and looks into the other files
        shutil.copy2(line(folder, "rev-parse", "--path-format=absolute", "--git-path", "index"), index)
    if not index.exists():
        git(folder, "read-tree", "HEAD", index=index)


def _reason(stderr: bytes) -> str:
    """The line of git's messages that names the cause: the first fatal one, else the first error, else the last."""
    lines = [text.strip() for text in stderr.decode("utf-8", "replace").splitlines() if text.strip()]
    lines = [text for text in lines if text != _FILTER_ENDED] or lines
    for mark in ("No space left", *_UNWRITTEN, "fatal: ", "error: "):
        for text in lines:
            if mark in text:
                reason = text.removeprefix("fatal: ").removeprefix("error: ")
                return f"{reason}: is the disk full?" if mark in _UNWRITTEN else reason
    return lines[-1] if lines else ""
