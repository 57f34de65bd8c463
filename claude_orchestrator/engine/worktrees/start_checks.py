"""What worktrees need before a run starts: a repository with a commit, free branch names, and space on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from claude_orchestrator.claude.argv import asks_for_worktree
from claude_orchestrator.config.launch_spec import LaunchSpec
from claude_orchestrator.config.placeholders import Template
from claude_orchestrator.engine.shared_folders import some_of
from claude_orchestrator.engine.worktrees.changes import BRANCHES
from claude_orchestrator.engine.worktrees.repository import resolve
from claude_orchestrator.errors import UserError
from claude_orchestrator.launch.git import LEADING_ASTRAY, GitError, git, line
from token_budget.text import counted


def check_worktrees(
    specs: Sequence[LaunchSpec],
    output_dir: Path,
    environ: Mapping[str, str],
    at_once: int,
    complete: Collection[str | None] = (),
) -> list[str]:
    """Refuse what git would refuse, with UserError and every fault; returns what deserves a warning.

    At most `at_once` worktrees are needed at the same time, and all of them if all instances change something. Those
    with a base in `complete` begin with uncommitted changes too.
    """
    asking = [spec for spec in specs if spec.worktree]
    if not asking:
        return []
    astray = [name for name in LEADING_ASTRAY[:5] if name in environ]
    if astray:
        raise UserError(f"worktree: {astray[0]} is set, and would lead git to another repository: unset it")
    faults = [*_name_faults(asking)]
    bases: dict[tuple[str, str | None], list[str]] = {}
    for spec in asking:
        base = None if isinstance(spec.base, Template) or (spec.base or "").startswith(f"{BRANCHES}/") else spec.base
        bases.setdefault((spec.cwd, base), []).append(spec.name)
    commits: dict[tuple[str, str | None], str] = {}
    for (folder, base), names in bases.items():
        try:
            commits[folder, base] = _commit(folder, base)
        except OSError as error:
            faults.append(f"{some_of(names)}: worktree: {folder}: {error.strerror or error}")
    if faults:
        raise UserError(*faults)
    files = {key: _files_of(key[0], commit) for key, commit in commits.items()}
    needed = [(len(bases[key]), _bytes_of(listed)) for key, listed in files.items()]
    return [
        *_space(needed, output_dir, at_once),
        *_submodules({folder: listed for (folder, _), listed in files.items()}),
        *_dirty(dict.fromkeys(folder for folder, base in bases if base not in complete)),
    ]


def _name_faults(asking: Iterable[LaunchSpec]) -> Iterator[str]:
    owners: dict[str, str] = {}
    for spec in asking:
        name = spec.worktree if isinstance(spec.worktree, str) else spec.name
        owner = owners.setdefault(name, spec.name)
        if owner != spec.name:
            yield f"{spec.name}: worktree: {name} also belongs to {owner}: give each instance its own"
        if asks_for_worktree(spec.argv) and not spec.origin:
            yield f"{spec.name}: worktree: --worktree in extra_args would make a second worktree: remove one"


def _commit(folder: str, base: str | None) -> str:
    """The commit that worktrees of a folder begin with. Raises OSError."""
    line(folder, "rev-parse", "--show-toplevel")  # not in a repository, or in one without files
    commit = resolve(folder, base)
    try:
        line(folder, "show-ref", "--verify", "--quiet", f"refs/heads/{BRANCHES}")
    except GitError:
        return commit
    raise GitError(f"a branch has the name {BRANCHES}, so none can be called {BRANCHES}/RUN/NAME: rename it")


def _files_of(folder: str, commit: str) -> list[list[bytes]]:
    """The files of a commit, each as mode, type, object, size and path; none if they are not known."""
    try:
        listing = git(folder, "ls-tree", "-r", "-l", "--full-tree", commit)
    except GitError:
        return []
    return [entry.split(None, 4) for entry in listing.splitlines()]


def _bytes_of(files: Iterable[Sequence[bytes]]) -> int:
    """How much the files of a commit take; 0 if that is not known."""
    return sum(int(size) for _, _, _, size, _ in files if size.isdigit())


def _submodules(files: Mapping[str, Iterable[Sequence[bytes]]]) -> Iterator[str]:
    for folder, listed in files.items():
        names = [path.decode("utf-8", "replace") for _, kind, _, _, path in listed if kind == b"commit"]
        if names:
            yield f"{folder}: submodules are empty folders in worktrees: {some_of(names)}"


def _space(needed: Iterable[tuple[int, int]], output_dir: Path, at_once: int) -> Iterator[str]:
    counted = sorted(needed, key=lambda pair: pair[1], reverse=True)
    existing = next(folder for folder in (output_dir.absolute(), *output_dir.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    every, first, left = sum(number * size for number, size in counted), 0, at_once
    for number, size in counted:
        first += min(left, number) * size
        left -= min(left, number)
    number_of_all = sum(number for number, _ in counted)
    figures = f"{number_of_all} worktrees" if number_of_all > 1 else "one worktree"
    where = f"{_mib(free)} are free in {existing}"
    if first > free:
        raise UserError(f"worktree: {figures} would take {_mib(every)}, {_mib(first)} of it at once, and {where}")
    if every > free:
        yield f"{figures} can take up to {_mib(every)}, and {where}"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _dirty(folders: Iterable[str]) -> Iterator[str]:
    for folder in folders:
        try:
            changed = git(folder, "status", "--porcelain", keep=("core.autocrlf", "core.safecrlf"))
        except GitError:
            continue
        if changed:
            count = changed.count(b"\n")
            yield f"{folder}: worktrees begin without the uncommitted changes of {counted(count, 'file')}"
