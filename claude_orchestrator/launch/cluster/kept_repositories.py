"""Repositories that travelled to this machine in earlier runs, so that a later run sends only what is new.

Objects of git are named by their content, so a kept repository can lack something, but it cannot be wrong. Each run
gets its own copy. Both share their files on the disk until one of them is removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from claude_orchestrator.launch.git import git, line
from claude_orchestrator.launch.shipping import REF
from token_budget.files import locked

MOST_REPOSITORIES = 10
MOST_BYTES = 2 * 1024**3
MOST_COMMITS = 50  # of each repository
LOCK_S = 10.0


class KeptRepositories:
    """A folder that only its owner can enter. Where it cannot be used, nothing is kept, and everything travels.

    Of the repositories, the ones used last stay, within both bounds.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self._folder = folder
        self._most_bytes = most_bytes

    def lend(self, name: str, place: Path) -> list[str]:
        """Make a repository at a place of what is kept by this name; returns the commits that it has, latest first."""
        kept = self._kept(name)
        if not kept.is_dir():
            return []
        try:
            with self._locked():
                _copy(kept, place)
                os.utime(kept)
            return _commits(place)
        except OSError:
            shutil.rmtree(place, ignore_errors=True)
            self.drop(name)
            return []

    def keep(self, name: str, place: Path) -> None:
        """Keep what the repository at a place has, for later runs."""
        kept = self._kept(name)
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._locked():
                if kept.is_dir():
                    git(kept, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", place, f"{REF}/*:{REF}/*")
                    for commit in _commits(kept)[MOST_COMMITS:]:
                        git(kept, "update-ref", "-d", f"{REF}/{commit}")
                else:
                    unfinished = kept.with_suffix(".new")
                    shutil.rmtree(unfinished, ignore_errors=True)
                    _copy(place, unfinished)
                    unfinished.rename(kept)
                os.utime(kept)
                self._clear()

    def drop(self, name: str) -> None:
        """What is kept by this name cannot be used."""
        with contextlib.suppress(OSError), self._locked():
            shutil.rmtree(self._kept(name))

    def _kept(self, name: str) -> Path:
        return self._folder / f"{name}.git"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        found = self._folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise PermissionError(None, "others can enter it", str(self._folder))
        with locked(self._folder, LOCK_S):
            yield

    def _clear(self) -> None:
        left_bytes = self._most_bytes
        latest = sorted(self._folder.glob("*.git"), key=lambda kept: kept.stat().st_mtime, reverse=True)
        for number, kept in enumerate(latest):
            left_bytes -= sum(path.stat().st_size for path in kept.rglob("*") if path.is_file())
            if number >= MOST_REPOSITORIES or left_bytes < 0:
                shutil.rmtree(kept, ignore_errors=True)


def _copy(repository: Path, place: Path) -> None:
    """A repository with the same objects; git links their files where the file system can."""
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    git(repository, "clone", "--quiet", "--mirror", "--local", repository, place)
    git(place, "config", "--remove-section", "remote.origin")  # an instance must not reach what is kept


def _commits(repository: Path) -> list[str]:
    return line(repository, "for-each-ref", "--sort=-creatordate", "--format=%(objectname)", REF).split()
