"""One worktree on the disk: made, found again, compared with the commit that it began with, and removed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path

from claude_orchestrator.engine.worktrees.changes import BRANCHES, Changes, Worktree, figures_of
from claude_orchestrator.launch.git import GitError, copy_index, git, head_of, line
from token_budget.files import locked, write_atomically
from token_budget.folders import make_folder
from token_budget.named_tuples import NamedTuple

LOCK_TIMEOUT_S = 600.0
SAVED = f"refs/{BRANCHES}-changes"  # not refs/orchestrator: git would take the name of a branch for it, too
MAX_FILE_BYTES = 1024 * 1024 * 1024  # in a patch; git reads a larger one for minutes
_NEW_LINK = ":000000 160000 "
_DIFF = ("diff-tree", "-r", "--no-renames", "--no-ext-diff", "--no-textconv", "--no-color")


class WorktreePath(NamedTuple):
    """Where a worktree belongs: the folder that the instance would work in, the worktree's folder, and its branch."""

    folder: str
    path: Path
    branch: str

    @property
    def record(self) -> Path:
        """The file that says how the worktree began; it exists once the worktree is complete."""
        return self.path.with_name(f"{self.path.name}.json")

    @property
    def own_index(self) -> Path:
        """A separate index, so that the index of the worktree stays as it is."""
        return self.path.with_name(f".{self.path.name}.index")

    @property
    def saved(self) -> str:
        """The ref of the commit that holds all changes."""
        return _saved(self.branch)


def make(place: WorktreePath, base: str | None) -> Worktree:
    """Make the worktree, or find the one that an earlier start of the run has made. Raises OSError."""
    with locked(_lock_folder(place.folder), LOCK_TIMEOUT_S):
        known = read_record(place)
        if known is None:
            known = _add(place, _clean_base(place, base) or resolve(place.folder, base))
        elif not _is_worktree(known.path):
            _add_again(place, known)
    Path(known.cwd).mkdir(parents=True, exist_ok=True)  # git keeps no empty folders
    return known


def _lock_folder(folder: str) -> Path:
    """A folder of this user's own in the repository: everybody who can read a folder can lock it, and hold the lock."""
    common = line(folder, "rev-parse", "--path-format=absolute", "--git-common-dir")
    own = Path(common) / f"claude-orchestrator-{os.getuid() if sys.platform != 'win32' else 'locks'}"
    own.mkdir(mode=0o700, exist_ok=True)
    return own


def _saved(branch: str) -> str:
    return f"{SAVED}/{branch.partition('/')[2]}"


def resolve(folder: str, base: str | None) -> str:
    """The commit that a base means. A branch of ours means everything that its instance has done. Raises GitError."""
    if not base:
        return head_of(folder)
    if base.startswith(f"{BRANCHES}/"):
        with contextlib.suppress(GitError):
            return _commit(folder, _saved(base))
    try:
        return _commit(folder, base)
    except GitError:
        raise GitError(f"base: {base}: no such commit or branch") from None


def _clean_base(place: WorktreePath, base: str | None) -> str | None:
    """What the worktree of that branch began with, if it was removed because nothing had changed in it."""
    folder, _, name = (base or "").rpartition("/")
    if not folder or folder != place.branch.rpartition("/")[0]:
        return None
    other = WorktreePath(place.folder, place.path.with_name(name), base or "")
    known = read_record(other)
    is_gone = _try_commit(place.folder, other.saved) is None and _try_commit(place.folder, other.branch) is None
    return known.base if known is not None and is_gone else None


def _commit(folder: str, name: str) -> str:
    return line(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")


def read_record(place: WorktreePath) -> Worktree | None:
    """How the worktree began; None if it was never complete."""
    try:
        return Worktree(**json.loads(place.record.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _add(place: WorktreePath, base: str) -> Worktree:
    """Make a new worktree. What a killed start has left of one is removed: no instance has worked in it."""
    prefix = line(place.folder, "rev-parse", "--show-prefix")
    worktree = Worktree(place.branch, base, str(place.path), str(place.path / prefix))
    _discard(place)
    make_folder(place.path.parent)
    try:
        git(place.folder, "worktree", "add", "--quiet", "--no-track", "-b", place.branch, place.path, base)
        write_atomically(place.record, [json.dumps(worktree._asdict()).encode()], mode=0o600)
    except OSError:
        with contextlib.suppress(OSError):
            _discard(place)
            git(place.folder, "update-ref", "-d", f"refs/heads/{place.branch}", base)  # git leaves it
        raise
    return worktree


def _add_again(place: WorktreePath, known: Worktree) -> None:
    """Make a worktree that somebody has removed again, from what is saved of it."""
    ref = f"refs/heads/{place.branch}"
    with contextlib.suppress(GitError):
        git(place.folder, "worktree", "prune")
    if _try_commit(place.folder, ref) is None:
        git(place.folder, "update-ref", ref, _try_commit(place.folder, place.saved) or known.base)
    git(place.folder, "worktree", "add", "--quiet", "--force", place.path, place.branch)


def _try_commit(folder: str, name: str) -> str | None:
    try:
        return _commit(folder, name)
    except GitError:
        return None


def _discard(place: WorktreePath) -> None:
    """Remove an incomplete worktree and its branch, which has no commit of its own."""
    if place.path.exists():
        with contextlib.suppress(GitError):
            git(place.folder, "worktree", "remove", "--force", "--force", place.path)
        shutil.rmtree(place.path, ignore_errors=True)
        with contextlib.suppress(GitError):
            git(place.folder, "worktree", "prune")
        with contextlib.suppress(GitError):
            git(place.folder, "update-ref", "-d", f"refs/heads/{place.branch}")


def _is_worktree(path: str) -> bool:
    return (Path(path) / ".git").exists()


def save(place: WorktreePath, known: Worktree, patch: Path, *, keep_clean: bool) -> tuple[Changes | None, str]:
    """Keep what was changed: as a commit with a ref, and as a patch. A clean worktree is removed.

    Returns the changes, or None, and a text about what could not be kept, which is empty if everything was. Raises
    OSError if nothing could be saved; the worktree then stays as it is.
    """
    if not _is_worktree(known.path):
        return _of_removed(place, known, patch)
    try:
        tree, doubt = _tree(place, known)
    finally:
        place.own_index.unlink(missing_ok=True)
    head = _try_commit(known.path, "HEAD") or known.base
    if (head, line(known.path, "rev-parse", f"{known.base}^{{tree}}")) == (known.base, tree) and not doubt:
        if not keep_clean:
            _remove_clean(place, known)
        return None, ""
    message = f"The work of {place.path.name}"
    commit = head
    if line(known.path, "rev-parse", f"{head}^{{tree}}") != tree:
        commit = line(known.path, "commit-tree", tree, "-p", head, "-m", message)
    git(known.path, "update-ref", place.saved, commit)
    changes, more = _of_commit(place, known, commit, patch)
    return changes, doubt or more


def _tree(place: WorktreePath, known: Worktree) -> tuple[str, str]:
    """The tree of everything in the worktree that is not ignored, and what could not be read."""
    index, doubt = place.own_index, ""
    copy_index(known.path, index)
    large = _large_files(known, index)
    left_out = "\0".join([".", *(f":(exclude,literal){path}" for path in large)]).encode(errors="surrogateescape")
    how = ("--all", "--ignore-errors", "--pathspec-from-file=-", "--pathspec-file-nul")
    try:
        git(known.path, "add", *how, index=index, stdin=left_out)
    except GitError as error:
        doubt = str(error)
    tree = line(known.path, "write-tree", index=index)
    if large:
        doubt = doubt or f"the patch lacks files of more than {MAX_FILE_BYTES // 2**30} GiB, {', '.join(large[:3])}"
    return tree, doubt or _own_repositories(known, tree)


def _large_files(known: Worktree, index: Path) -> list[str]:
    """The new and changed files that are too large for a patch. A file with holes can claim to be of any size."""
    found = git(known.path, "ls-files", "--others", "--modified", "--exclude-standard", "-z", index=index)
    sizes: dict[str, int] = {}
    for path in map(os.fsdecode, found.split(b"\0")):
        with contextlib.suppress(OSError):
            sizes[path] = (Path(known.path) / path).lstat().st_size
    return [path for path, size in sizes.items() if path and size > MAX_FILE_BYTES]


def _own_repositories(known: Worktree, tree: str) -> str:
    """The folders in which the instance created repositories. The tree has their commits, but none of their files."""
    changed = os.fsdecode(git(known.path, *_DIFF, "-z", known.base, tree)).split("\0")
    found = [path for modes, path in zip(changed[::2], changed[1::2], strict=False) if modes.startswith(_NEW_LINK)]
    return f"the patch lacks the files of a repository that was created there, {', '.join(found[:3])}" if found else ""


def _of_removed(place: WorktreePath, known: Worktree, patch: Path) -> tuple[Changes | None, str]:
    """The changes of an instance that has removed its worktree: what it committed before."""
    doubt = "its worktree has lost its repository" if Path(known.path).exists() else ""
    commits = [_try_commit(place.folder, name) for name in (f"refs/heads/{known.branch}", place.saved)]
    commit = next((found for found in commits if found not in (None, known.base)), None)
    if commit is None:
        return (None, "") if not doubt else (Changes(*known[:2], known.base, known.path, 0, 0, 0, None), doubt)
    changes, more = _of_commit(place, known, commit, patch)
    return changes, doubt or more


def _of_commit(place: WorktreePath, known: Worktree, commit: str, patch: Path) -> tuple[Changes, str]:
    folder, doubt = place.folder, ""
    figures = figures_of(git(folder, *_DIFF, "--numstat", "-z", known.base, commit))
    written: str | None = str(patch)
    try:
        _write_patch(folder, known.base, commit, patch)
    except OSError as error:
        written, doubt = None, f"its patch cannot be written: {error.strerror or error}"
    path = known.path if _is_worktree(known.path) else None
    return Changes(known.branch, known.base, commit, path, *figures, written), doubt


def _write_patch(folder: str, base: str, commit: str, patch: Path) -> None:
    make_folder(patch.parent)
    temporary = patch.with_name(f".{patch.name}.new")
    try:
        with temporary.open("wb") as file:
            temporary.chmod(0o600)
            git(folder, *_DIFF, "-p", "--binary", "--full-index", "--src-prefix=a/", "--dst-prefix=b/", base, commit,
                stdout=file)  # fmt: skip
        temporary.replace(patch)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _remove_clean(place: WorktreePath, known: Worktree) -> None:
    """Remove a worktree without changes, and its branch. Git refuses where it finds changes; then both stay."""
    with contextlib.suppress(OSError):
        git(place.folder, "worktree", "remove", known.path)
        git(place.folder, "update-ref", "-d", f"refs/heads/{known.branch}", known.base)
