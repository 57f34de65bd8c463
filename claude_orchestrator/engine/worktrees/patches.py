"""Applies the patches of instances to a workspace: all of them, or none."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from claude_orchestrator.engine.worktrees.changes import figures_of
from claude_orchestrator.launch.git import GitError, git, line
from token_budget.named_tuples import NamedTuple

_ERROR = re.compile(r"error: (?:patch failed: (?P<at>.+):\d+|(?P<path>.+?): .*)")
_USERS = ("core.autocrlf", "core.safecrlf")  # line ends are as the user has them


class Patch(NamedTuple):
    """The changes of one instance."""

    instance: str
    data: bytes


class Conflict(NamedTuple):
    """Why a patch cannot be applied, and the files that are the cause."""

    instance: str
    why: str
    files: tuple[str, ...]


def apply_patches(workspace: Path, patches: Sequence[Patch]) -> list[Conflict]:
    """Apply all patches to the files of the workspace; returns the conflicts, with which nothing is changed.

    The index is not changed. Raises OSError, and then the files are as they were.
    """
    top = line(workspace, "rev-parse", "--show-toplevel")
    found = list(_conflicts(top, patches))
    if found:
        return found
    data = b"".join(patch.data for patch in patches)
    with tempfile.TemporaryDirectory(prefix="claude-orchestrator-") as saved:
        before = _save(Path(top), _paths(top, data), Path(saved))
        try:
            _apply(top, data)
        except BaseException:
            _restore(before)
            raise
    return []


def count_files(workspace: Path, patches: Sequence[Patch]) -> int:
    """How many files the patches change."""
    data = b"".join(patch.data for patch in patches)
    return figures_of(git(workspace, "apply", "--numstat", "-z", stdin=data))[0]


def _conflicts(top: str, patches: Sequence[Patch]) -> Iterator[Conflict]:
    accepted, created = b"", set[str]()
    for patch in patches:
        error, new = _fault(top, accepted + patch.data), _created(top, patch.data)
        if error is None and created.isdisjoint(new):
            accepted += patch.data
            created |= new
        elif error is None:  # git would let the last one win
            yield Conflict(patch.instance, "its changes conflict with those of another instance", tuple(created & new))
        elif _fault(top, patch.data, "--reverse") is None:
            yield Conflict(patch.instance, "its changes are in the workspace already", ())
        else:
            alone = _fault(top, patch.data)
            whose = "those of another instance" if alone is None else "the files of the workspace"
            yield Conflict(patch.instance, f"its changes conflict with {whose}", _files((alone or error).detail))


def _created(top: str, data: bytes) -> set[str]:
    """The files that a patch creates, as git writes their names."""
    summary = git(top, "apply", "--summary", stdin=data).decode("utf-8", "replace") if data else ""
    found = (re.fullmatch(r" create mode \d+ (.*)", text) for text in summary.splitlines())
    return {match[1] for match in found if match}


def _fault(top: str, data: bytes, *how: str) -> GitError | None:
    try:
        _apply(top, data, "--check", *how)
    except GitError as error:
        return error
    return None


def _apply(top: str, data: bytes, *how: str) -> None:
    if data:
        git(top, "apply", "--whitespace=nowarn", *how, stdin=data, keep=_USERS)


def _files(detail: str) -> tuple[str, ...]:
    """The files that git names in its errors."""
    found = (match["at"] or match["path"] for match in map(_ERROR.fullmatch, detail.splitlines()) if match)
    return tuple(dict.fromkeys(found))


def _paths(top: str, data: bytes) -> list[str]:
    """The files that a patch changes, adds and removes."""
    entries = git(top, "apply", "--numstat", "-z", stdin=data).split(b"\0") if data else []
    return [os.fsdecode(entry.split(b"\t", 2)[2]) for entry in entries if entry.count(b"\t") >= 2]


def _save(top: Path, names: Sequence[str], folder: Path) -> dict[Path, Path | None]:
    """Copies of files; None for one that is not there."""
    saved: dict[Path, Path | None] = {}
    for number, name in enumerate(names):
        path, copy = top / name, folder / str(number)
        saved[path] = None
        if os.path.lexists(path):
            shutil.copy2(path, copy, follow_symlinks=False)
            saved[path] = copy
    return saved


def _restore(saved: dict[Path, Path | None]) -> None:
    for path in saved:  # first make room on a full disk
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    for path, copy in saved.items():
        if copy is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(copy, path, follow_symlinks=False)
