"""Brings a repository to another machine, and what was done there back, by bundles of git.

A shipment is known by its commit, so each machine needs it once. The commit has everything of a folder that git does
not ignore, committed or not. The way back is a bundle too, with the commits of an instance and a last commit of what it
left uncommitted. So modes, links and binary files arrive unchanged.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from claude_orchestrator.launch.git import GitError, copy_index, git, head_of, line
from token_budget.named_tuples import NamedTuple

REF = "refs/claude-orchestrator/shipped"  # in bundles, and in the store of a machine
REPOSITORY = "repository.git"  # in a store
LEFT_OPEN = "What was not committed"  # the message of a commit
UNFINISHED = "bad object worktrees/"  # another git is making a worktree, which has no commit yet
FETCHES, FETCH_AGAIN_S = 50, 0.1
MAX_BUNDLE_BYTES = 512 * 1024 * 1024  # it travels in one piece


class Work(NamedTuple):
    """What an instance has done elsewhere: its last commit, the one that has all of its files, and their bundle.

    The bundle is empty if nothing has changed.
    """

    head: str
    commit: str
    bundle: bytes


# -- on the machine that has the repository --


def snapshot(folder: str | Path) -> str:
    """The commit of everything in a folder's repository as it is now; that of HEAD if all is committed.

    Raises GitError. Neither the index nor any branch changes.
    """
    top = line(folder, "rev-parse", "--show-toplevel")
    return _with_open_changes(top, head_of(top))


def pack(folder: str | Path, commit: str, known: Sequence[str] = (), max_bytes: int = MAX_BUNDLE_BYTES) -> bytes:
    """The bundle of a commit with its history, without what the other machine has. Raises GitError.

    It is empty if that machine has the commit.
    """
    if commit in known:
        return b""
    ref = f"{REF}/{commit}"
    git(folder, "update-ref", ref, commit)  # a bundle has refs, and no bare commits
    try:
        with tempfile.TemporaryFile() as file:
            git(folder, "bundle", "create", "--quiet", "-", ref, *(f"^{other}" for other in known), stdout=file)
            size_bytes = file.tell()
            if size_bytes > max_bytes:
                raise _too_large(size_bytes, max_bytes)
            file.seek(0)
            return file.read()
    finally:
        git(folder, "update-ref", "-d", ref)


def check_size(folder: str | Path, commit: str = "HEAD", max_bytes: int = MAX_BUNDLE_BYTES) -> None:
    """Raise GitError if a commit with its history is too large to travel. Nothing is written to the repository."""
    # what objects take on the disk is at least about as much as they take on their way
    if int(line(folder, "rev-list", "--objects", "--disk-usage", commit)) <= max_bytes:
        return
    with tempfile.TemporaryFile() as file:
        revisions = f"{commit}\n".encode()
        git(
            folder, "pack-objects", "--revs", "--delta-base-offset", "--quiet", "--stdout", stdin=revisions, stdout=file
        )
        size_bytes = file.tell()
    if size_bytes > max_bytes:
        raise _too_large(size_bytes, max_bytes)


def _too_large(size_bytes: int, max_bytes: int) -> GitError:
    size, most = (f"{number / 1024**2:,.1f} MiB" for number in (size_bytes, max_bytes))
    instead = "clone it at the same path on every node, and leave --cluster-workspace ship out"
    return GitError(f"with its history, the repository takes {size}, and at most {most} travel: {instead}")


def those_of(repository: str | Path, commits: Sequence[str]) -> list[str]:
    """The ones of some commits that a repository has. Raises GitError."""
    asked = "".join(f"{commit}\n" for commit in commits).encode()
    found = git(repository, "cat-file", "--batch-check", stdin=asked).decode().splitlines()
    return [commit for commit, answer in zip(commits, found, strict=True) if answer.split()[1:2] == ["commit"]]


def take_in(worktree: str | Path, work: Work) -> None:
    """Bring a worktree, which must be unchanged, to the state of the instance's copy.

    What it had committed is committed, the rest is not. Raises GitError.
    """
    if not work.bundle:
        return
    _fetch(worktree, work.bundle)
    git(worktree, "reset", "--quiet", "--hard", work.commit)
    git(worktree, "reset", "--quiet", "--mixed", work.head)
    git(worktree, "update-ref", "-d", f"{REF}/{work.commit}")


# -- on the machine that has the copy --


def unpack(bundle: bytes, store: Path, commit: str) -> Path:
    """The repository of a store, with this commit. One caller at a time. Raises GitError.

    `bundle` may be empty if the store has the commit.
    """
    place = store / REPOSITORY
    store.mkdir(parents=True, exist_ok=True, mode=0o700)
    git(store, "init", "--quiet", "--bare", place)
    if bundle and not has(place, commit):
        _fetch(place, bundle)
    if not has(place, commit):
        raise GitError(f"the commit {commit[:12]} has not arrived")
    return place


def has(repository: Path, commit: str) -> bool:
    """Whether a repository has a commit."""
    with contextlib.suppress(GitError):
        git(repository, "cat-file", "-e", f"{commit}^{{commit}}")
        return True
    return False


def check_out(repository: Path, path: Path, commit: str, branch: str) -> None:
    """Make a worktree of a commit at a path, on a branch of that name; both are made anew. Raises GitError."""
    if path.exists():
        shutil.rmtree(path)
    git(repository, "worktree", "prune")
    git(repository, "worktree", "add", "--quiet", "--force", "-B", branch, path, commit)


def collect(path: str | Path, began_with: str) -> Work:
    """Everything that an instance has done in its worktree. Raises GitError."""
    head = line(path, "rev-parse", "--verify", "HEAD^{commit}")
    commit = _with_open_changes(path, head)
    return Work(head, commit, pack(path, commit, [began_with]))


def _with_open_changes(top: str | Path, head: str) -> str:
    """A commit on top of `head` with everything that is not committed; `head` itself if there is nothing."""
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder, "index")
        copy_index(top, index)
        git(top, "add", "--all", ".", index=index)
        tree = line(top, "write-tree", index=index)
    if line(top, "rev-parse", f"{head}^{{tree}}") == tree:
        return head
    # the same content is the same commit at any time, so the date is that of its parent
    who = f"claude-orchestrator <claude-orchestrator@localhost> {line(top, 'show', '-s', '--format=%ct', head)} +0000"
    text = f"tree {tree}\nparent {head}\nauthor {who}\ncommitter {who}\n\n{LEFT_OPEN}\n"
    made = git(top, "hash-object", "-t", "commit", "-w", "--stdin", stdin=text.encode())
    return made.decode().strip()


def _fetch(folder: str | Path, bundle: bytes) -> None:
    """Take the commits of a bundle. A commit that it needs and the folder lacks is a GitError."""
    descriptor, name = tempfile.mkstemp(suffix=".bundle")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(bundle)
        for left in reversed(range(FETCHES)):
            try:
                git(folder, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", name, f"{REF}/*:{REF}/*")
                return
            except GitError as error:
                if not left or UNFINISHED not in str(error):
                    raise
            time.sleep(FETCH_AGAIN_S)
    finally:
        Path(name).unlink(missing_ok=True)
