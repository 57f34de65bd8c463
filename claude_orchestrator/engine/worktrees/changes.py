"""What an instance has changed in its worktree, and how git's figures are read. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from claude_orchestrator.engine.file_names import file_stems
from token_budget.named_tuples import NamedTuple
from token_budget.text import short_digest

BRANCHES = "orchestrator"  # the folder of all our branches: `orchestrator/RUN/NAME`


class Worktree(NamedTuple):
    """An instance's worktree: its branch, the commit that it began with, its folder, and the folder to work in."""

    branch: str
    base: str
    path: str
    cwd: str


class Changes(NamedTuple):
    """What an instance has changed since `base`. `commit` holds all of it, with what was not committed.

    `path` is the worktree; None if it is gone. `patch` is the file with the changes; None if it cannot be written.
    """

    branch: str
    base: str
    commit: str
    path: str | None
    files: int
    insertions: int
    deletions: int
    patch: str | None

    @property
    def kept(self) -> bool:
        """Whether the changes are saved. If not, a later start of the run tries again."""
        return self.patch is not None

    @property
    def fields(self) -> dict[str, Any]:
        """As reports and result lines show it."""
        shown = self._asdict()
        del shown["commit"]
        return shown


def changes_from(record: object) -> Changes | None:
    """Changes as the journal stores them; None if it stores none. Raises KeyError or TypeError for anything else."""
    if record is None:
        return None
    if not isinstance(record, Mapping):
        raise TypeError("not an object")
    return Changes(**{name: record[name] for name in Changes._fields})


def figures_of(numstat: bytes) -> tuple[int, int, int]:
    """Files, insertions and deletions in the output of `git diff-tree --numstat -z`. A binary file has no lines."""
    files = insertions = deletions = 0
    for entry in numstat.split(b"\0"):
        parts = entry.split(b"\t", 2)
        if len(parts) == 3:
            files += 1
            insertions += int(parts[0]) if parts[0].isdigit() else 0
            deletions += int(parts[1]) if parts[1].isdigit() else 0
    return files, insertions, deletions


def stem_of(name: str, taken: Iterable[str] = ()) -> str:
    """The last part of a worktree's branch and folder. It gets a hash of the name if it would be ambiguous.

    `taken` are the stems of others. Some file systems do not distinguish capital letters.
    """
    stem = file_stems([name])[name]
    if ".." in stem or stem.casefold().endswith(".lock"):
        stem = re.sub(r"\.(?=\.|lock$)", "-", stem, flags=re.IGNORECASE)
    others = {other.casefold() for other in taken}
    if stem == name and stem.casefold() not in others:
        return stem
    digest = short_digest(name)
    return stem if stem.endswith(digest) else f"{stem}-{digest}"
